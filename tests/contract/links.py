"""A client and an endpoint, joined by a gateway, over every kind of connection.

The gateway has a rule for each kind of client and endpoint; a test takes one session of it at a time, so the
rule's next record is that session's. Where one of the two is TLS, the process between the ends is `sealing`,
which has both: bytes pass a session with a TLS endpoint and one with a TLS client, and the record is that of
the session the kind names.
"""

import hashlib
import random
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Final, Literal

from tests.e2e.gateway import PATIENCE, Gateway, Record, rule, ruleset, wait_for

Family = Literal["tcp4", "tcp6", "unix", "tls"]
Mover = Literal["copied", "spliced"]

KINDS: Final[tuple[tuple[Family, Family], ...]] = (
    ("tcp4", "tcp4"),
    ("tcp6", "tcp6"),
    ("tcp6", "tcp4"),
    ("unix", "tcp4"),
    ("tcp4", "unix"),
    ("unix", "unix"),
    ("tcp4", "tls"),
    ("tls", "tcp4"),
    ("unix", "tls"),
    ("tls", "unix"),
)
MOVERS: Final[tuple[Mover, ...]] = ("copied", "spliced")

WARM_UP: Final = 1 << 20
"""Bytes that pass each way before a test of spliced bytes begins: by then the relay has gone over to it."""
SMALL_BUFFER: Final = 1 << 16
ABORT: Final = struct.pack("ii", 1, 0)
HOSTS: Final = {"tcp4": "127.0.0.1", "tcp6": "::1", "tls": "127.0.0.1"}


@lru_cache(maxsize=12)
def random_bytes(count: int, seed: int = 1) -> bytes:
    """Give bytes in which a lost, doubled or moved piece shows."""
    return random.Random(f"{count} {seed}").randbytes(count)


def read(source: socket.socket, count: int) -> bytes:
    """Read so many bytes, or up to the end."""
    data = bytearray(count)
    view = memoryview(data)
    got = 0
    while got < count and (more := source.recv_into(view[got:])):
        got += more
    return bytes(view[:got])


def read_to_end(source: socket.socket) -> bytes:
    """Read up to EOF; raises ConnectionResetError as recv(2) does."""
    return b"".join(iter(lambda: source.recv(1 << 18), b""))


def same(one: bytes, other: bytes) -> bool:
    """Compare large payloads; pytest would take minutes to explain how they differ."""
    return len(one) == len(other) and hashlib.sha256(one).digest() == hashlib.sha256(other).digest()


@dataclass
class Link:
    """One session: both its ends, and what becomes of it."""

    client: socket.socket
    endpoint: socket.socket
    gateway: Gateway
    rule: str
    ended_before: int
    threads: ThreadPoolExecutor
    warmed: int
    """Bytes that have passed each way already."""

    def record(self) -> Record:
        """Wait for the session's record; there is just one."""
        before = self.ended_before

        def records() -> list[Record]:
            return [each for each in self.gateway.events("session") if each["rule"] == self.rule][before:]

        wait_for(f"the record of {self.rule}", records)
        (record,) = records()
        return record

    def expect(self, cause: str, up: int | None = None, down: int | None = None) -> None:
        """Check the record: stage relay, this cause, so many bytes after the warm-up."""
        record = self.record()
        assert (record["stage"], record["cause"]) == ("relay", cause)
        assert up is None or record["up"] == self.warmed + up
        assert down is None or record["down"] == self.warmed + down

    def warm_up(self) -> None:
        """Have the relay splice both ways."""
        data = random_bytes(WARM_UP)
        for source, sink in ((self.client, self.endpoint), (self.endpoint, self.client)):
            sending = self.threads.submit(source.sendall, data)
            assert same(read(sink, WARM_UP), data)
            sending.result(PATIENCE)
        self.warmed = WARM_UP


def abort(end: socket.socket) -> None:
    """Abort: RST over TCP; a unix socket says the same when it is closed with bytes unread."""
    if end.family == socket.AF_UNIX:
        end.recv(1, socket.MSG_PEEK)  # wait until there are some
    else:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    end.close()


class Sealing(Gateway):
    """A running `sealing`; it says what a gateway says."""

    @classmethod
    @contextmanager
    def start_with(cls, rules: list[tuple[str, str, str]]) -> Iterator["Sealing"]:
        """Start it: each rule a name, where to listen, where to forward."""
        command = [sys.executable, "-m", "tests.contract.sealing", *chain.from_iterable(rules)]
        with tempfile.TemporaryDirectory(prefix="portway-test-") as place:
            folder = Path(place)
            with (folder / "log").open("ab") as lines, (folder / "stderr").open("wb") as complaints:
                process = subprocess.Popen(command, stdout=lines, stderr=complaints)
            sealing = cls(process, folder, folder / "log")
            try:
                sealing.await_event("ready")
                yield sealing
                sealing.stop()
                sealing.check()
            finally:
                sealing.kill()

    @property
    def workers(self) -> list[int]:
        """The process itself."""
        return [self.process.pid]


class Links:
    """A gateway with a rule for every kind, and an endpoint's listener behind each."""

    def __init__(
        self, gateway: Gateway, sealing: "Sealing", listeners: dict[str, socket.socket], folder: Path
    ) -> None:
        self._gateway = gateway
        self._sealing = sealing
        self._listeners = listeners
        self._folder = folder

    @classmethod
    @contextmanager
    def start(cls, folder: Path) -> Iterator["Links"]:
        """Start the gateway."""
        with ExitStack() as stack:
            rules, sealed, listeners = [], [], {}
            for client, endpoint in KINDS:
                name = f"{client}-{endpoint}"
                listeners[name] = listener = stack.enter_context(_listener(endpoint, folder / f"to-{name}"))
                listen = f"unix:{folder}/{name}" if client == "unix" else f"{_host(client)}:0"
                if "tls" in {client, endpoint}:
                    sealed.append((name, listen, _address(listener)))
                else:
                    rules.append(rule(name, _address(listener), listen))
            gateway = stack.enter_context(Gateway.start(ruleset(*rules)))
            sealing = stack.enter_context(Sealing.start_with(sealed))
            yield cls(gateway, sealing, listeners, folder)

    @contextmanager
    def open(self, kind: tuple[Family, Family], mover: Mover) -> Iterator[Link]:
        """Open a session; whatever the test leaves open is closed."""
        name = "-".join(kind)
        gateway = self._sealing if "tls" in kind else self._gateway
        recorded = f"{name}-back" if kind[0] == "tls" else name
        ended = sum(each["rule"] == recorded for each in gateway.events("session"))
        with ThreadPoolExecutor(4) as threads, self._connect(kind[0], gateway, name) as client:
            endpoint, _ = self._listeners[name].accept()
            with endpoint:
                endpoint.settimeout(PATIENCE)
                link = Link(client, endpoint, gateway, recorded, ended, threads, 0)
                if mover == "spliced":
                    link.warm_up()
                try:
                    yield link
                finally:  # ends the threads too, whatever they wait for
                    for end in (client, endpoint):
                        if end.fileno() >= 0:
                            end.close()
                link.record()

    def _connect(self, family: Family, gateway: Gateway, name: str) -> socket.socket:
        if family == "unix":
            client = socket.socket(socket.AF_UNIX)
            address: str | tuple[str, int] = f"{self._folder}/{name}"
        else:
            client = socket.socket(socket.AF_INET6 if family == "tcp6" else socket.AF_INET)
            address = HOSTS[family], gateway.port(name)
        _small_buffers(client)
        client.settimeout(PATIENCE)
        client.connect(address)
        return client


def _host(family: Family) -> str:
    return f"[{HOSTS[family]}]" if family == "tcp6" else HOSTS[family]


def _small_buffers(end: socket.socket) -> None:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        end.setsockopt(socket.SOL_SOCKET, option, SMALL_BUFFER)


def _listener(family: Family, path: Path) -> socket.socket:
    if family == "unix":
        listener = socket.socket(socket.AF_UNIX)
        address: str | tuple[str, int] = str(path)
    else:
        listener = socket.socket(socket.AF_INET6 if family == "tcp6" else socket.AF_INET)
        address = HOSTS[family], 0
    _small_buffers(listener)  # its clients inherit them
    listener.bind(address)
    listener.listen()
    listener.settimeout(PATIENCE)
    return listener


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"
