"""The log end to end: a record for every end; a reader that stalls, dies or fills its disk hurts nobody."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from appliance.observe.names import Event
from appliance.outcome import LEGAL, Stage
from tests.e2e.gateway import Gateway, Record, rule, ruleset, wait_for
from tests.e2e.peers import (
    Echo,
    Endpoint,
    assert_idle,
    blackhole,
    connect,
    echoes,
    finish,
    refusing,
    reset,
    turned_away,
)

ENDINGS = (
    "client_eof",
    "endpoint_eof",
    "client_reset",
    "endpoint_reset",
    "idle_timeout",
    "dial_refused",
    "dial_timeout",
    "dial_resolve",
    "drain",
)


def test_one_record_for_every_way_to_end() -> None:
    """However a session ends it leaves one record, with the fields that docs/log.md promises alone."""
    with Endpoint() as endpoint, refusing() as dead, blackhole() as mute, Echo() as echo:
        to = endpoint.port
        text = ruleset(
            rule("relay", to),
            rule("idle", to, idle_timeout="200ms", connect_timeout="100ms"),
            rule("refused", dead),
            rule("mute", mute, connect_timeout="100ms"),
            rule("name", "nothing.invalid:1", connect_timeout="60s"),
            rule("echo", echo.port),
            drain="100ms",
        )
        with Gateway.start(text) as gateway:
            for ending in ENDINGS[:4]:
                with connect(gateway.address("relay")) as client, endpoint.accept() as server:
                    client.sendall(b"x")  # what comes before the relay has begun is a failed dial
                    assert server.recv(1) == b"x"
                    side = client if ending.startswith("client") else server
                    (finish if ending.endswith("eof") else reset)(side)
                    assert _ended(server if side is client else client)
                    (server if side is client else client).close()
                wait_for(ending, lambda: ending in _causes(gateway))  # noqa: B023  it is called here
            with connect(gateway.address("idle")) as client, endpoint.accept():
                assert _ended(client)
            for name in ("refused", "mute", "name"):
                assert turned_away(gateway.address(name))
            gateway.sessions(8)
            with connect(gateway.address("echo")) as client:
                assert echoes(client)
                assert gateway.stop() == 0
            assert sorted(_causes(gateway)) == sorted(ENDINGS)
            records = gateway.events("session")
        for record in records:
            assert_as_promised(record)
        assert len({record["session"] for record in records}) == len(records)


def _causes(gateway: Gateway) -> list[str]:
    return [record["cause"] for record in gateway.events("session")]


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def assert_as_promised(record: Record) -> None:
    """Check a session's record against the tables that docs/log.md is made from."""
    keys = list(record)
    assert keys[:3] == ["event", "level", "time"]
    always = {str(field) for field in Event.SESSION.always}
    sometimes = {str(field) for field in Event.SESSION.sometimes}
    assert always <= set(keys) <= always | sometimes | set(keys[:3]), keys
    assert record["cause"] in LEGAL[Stage(record["stage"])]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", record["session"])
    assert None not in record.values()


def test_every_event_is_known() -> None:
    """A gateway's whole life writes only events and fields that docs/log.md knows, one JSON object a line."""
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port), workers=2)) as gateway:
        with connect(gateway.address("way")) as client:
            assert echoes(client)
        gateway.sessions(1)
        os.kill(gateway.workers[0], signal.SIGKILL)
        gateway.await_event("worker_started", 3)
        gateway.stop()
        events = gateway.events()
        for record in events:
            event = next(known for known in Event if known.value == record["event"])
            names = {str(field) for field in (*event.always, *event.sometimes)} | {"event", "level", "time"}
            assert set(record) <= names, record
            assert {str(field) for field in event.always} <= set(record), record
            assert record["level"] in event.levels
        names_seen = [record["event"] for record in events]
        assert names_seen[0] == "listening"
        assert names_seen[-1] == "stopped"
        assert names_seen.count("ready") == 1


def await_listener(path: Path) -> None:
    """Wait until a session passes through a unix listener."""

    def up() -> bool:
        try:
            with connect(str(path)) as client:
                return echoes(client)
        except OSError:
            return False

    wait_for(f"a listener at {path}", up)


def assert_forwards(path: Path, count: int) -> None:
    """Check that so many sessions pass."""
    for _ in range(count):
        with connect(str(path)) as client:
            assert echoes(client)


def test_a_reader_that_stalls(tmp_path: Path) -> None:
    """Nobody reads the log: forwarding goes on, and once it is read again the gap is counted exactly."""
    front = tmp_path / "front"
    many = 6000
    read_end, write_end = os.pipe()
    with Echo() as echo, open(read_end, "rb", buffering=0) as log:  # noqa: PTH123  an fd
        text = ruleset(rule("way", echo.port, listen=f"unix:{front}"))
        with Gateway.start(text, stdout=write_end) as gateway:
            os.close(write_end)
            await_listener(front)
            begun = 1
            assert_forwards(front, many)
            begun += many
            (worker,) = gateway.workers
            lines = _Lines(log.fileno())
            wait_for("the gap is told", lambda: lines.read() and lines.count("log_dropped"))
            assert_forwards(front, 5)
            begun += 5
            wait_for("all are accounted for", lambda: lines.read() and lines.accounted() >= begun)
            assert gateway.workers == [worker]
            gateway.process.send_signal(signal.SIGTERM)
            wait_for("the end", lambda: lines.read() and lines.count("stopped"))
            assert gateway.process.wait(20) == 0
        assert lines.accounted() == begun
        assert lines.count("session") < begun


class _Lines:
    """What is read from a pipe, without waiting."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(self._fd, False)
        self._data = bytearray()

    def read(self) -> bool:
        """Read what there is; True, so that a condition can begin with it."""
        try:
            while piece := os.read(self._fd, 1 << 16):
                self._data += piece
        except BlockingIOError:
            pass
        return True

    @property
    def records(self) -> list[Record]:
        """Every whole line, each of which must be JSON."""
        return [json.loads(line) for line in bytes(self._data).split(b"\n")[:-1]]

    def count(self, name: str) -> int:
        """Count the records of an event."""
        return sum(record["event"] == name for record in self.records)

    def accounted(self) -> int:
        """Count the session records that came, and those reported as dropped."""
        dropped: int = sum(record.get("count", 0) for record in self.records)
        return self.count("session") + dropped


def test_a_reader_that_dies(tmp_path: Path) -> None:
    """The log's reader is gone: forwarding goes on, SIGPIPE kills nobody, and the gateway ends well."""
    front = tmp_path / "front"
    read_end, write_end = os.pipe()
    with Echo() as echo:
        text = ruleset(rule("way", echo.port, listen=f"unix:{front}"))
        with Gateway.start(text, stdout=write_end) as gateway:
            os.close(write_end)
            await_listener(front)
            workers = gateway.workers
            os.close(read_end)
            assert_forwards(front, 50)
            assert gateway.workers == workers


def test_a_full_disk(tmp_path: Path) -> None:
    """A log that cannot be written stops nothing, and spins nothing."""
    front = tmp_path / "front"
    full = os.open("/dev/full", os.O_WRONLY)
    with Echo() as echo:
        text = ruleset(rule("way", echo.port, listen=f"unix:{front}"))
        with Gateway.start(text, stdout=full) as gateway:
            os.close(full)
            await_listener(front)
            assert_forwards(front, 50)
            for pid in (gateway.process.pid, *gateway.workers):
                assert_idle(pid)


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(tmp_path: Path, closed: str) -> None:
    """Started with stdout closed, no session's socket becomes "stdout": clients get their own bytes only."""
    front = tmp_path / "front"
    wrap = ("sh", "-c", f'exec "$0" "$@" {closed}')
    with Echo() as echo:
        text = ruleset(rule("way", echo.port, listen=f"unix:{front}"))
        with Gateway.start(text, wrap=wrap, stdout=subprocess.DEVNULL) as gateway:
            await_listener(front)
            assert_forwards(front, 50)
            with connect(str(front)) as client:
                assert echoes(client)
                finish(client)
                assert client.recv(100) == b""
            assert len(gateway.workers) == 1


def test_a_terminal_shows_lines_for_people(tmp_path: Path) -> None:
    """On a terminal the log is for a person: no JSON, the same facts."""
    front = tmp_path / "front"
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> bytes:
        while select.select([ours], [], [], 0)[0]:
            try:
                shown.extend(os.read(ours, 4096))
            except OSError:  # EIO: the other side is closed
                break
        return bytes(shown)

    with Echo() as echo:
        text = ruleset(rule("people", echo.port, listen=f"unix:{front}"))
        with Gateway.start(text, stdout=theirs) as gateway:
            os.close(theirs)
            wait_for("it says that it is up", lambda: b"ready" in read())
            assert_forwards(front, 1)
            wait_for("it tells of the session", lambda: b"client_eof" in read())
            gateway.stop()
        read()
    os.close(ours)
    assert b"people" in shown
    for line in shown.splitlines():
        assert not line.lstrip().startswith(b"{"), line
