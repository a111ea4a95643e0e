"""`portway agents`: what is enrolled beside what is connected."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from appliance.__main__ import main
from appliance.supervisor.status import AgentLink, Agents
from appliance.tunnel.state import Record, State

ONE, TWO, THREE = "1" * 32, "2" * 32, "3" * 32
FAR = 4e9

RULESET = """
[gateway]
admin = "{folder}/s"
[[rule]]
name = "ssh"
listen = ":22"
to = "10.0.0.1:22"
via = "office"
[tunnel]
listen = ":7443"
state = "{folder}/state"
[[agent]]
name = "office"
"""


def link(serial: str = TWO, peer: str = "203.0.113.9:4000", **extra: object) -> AgentLink:
    fields: dict[str, object] = {
        "agent": "office",
        "serial": serial,
        "peer": peer,
        "since": "2026-11-28T16:00:00Z",
        "worker": 0,
        "ready": 4,
        "sessions": 1,
        "rtt_ms": 12.34,
        "version": "0.1.0",
    }
    return msgspec.convert(fields | extra, AgentLink)


@contextmanager
def replying(path: str, reply: bytes) -> Iterator[None]:
    """Stand in for a gateway that replies so."""

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            assert peer.recv(100) == b'{"verb":"agents"}\n'
            peer.sendall(reply)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        server = threading.Thread(target=serve)
        server.start()
        yield
        server.join()


@pytest.fixture
def ruleset(tmp_path: Path) -> Path:
    path = tmp_path / "edge.toml"
    path.write_text(RULESET.format(folder=tmp_path))
    state = State(f"{tmp_path}/state")
    with state.locked():
        pass
    for serial, replaces, expires in ((ONE, "", FAR), (TWO, ONE, FAR), (THREE, "", 2.0)):
        state.record(Record(name="office", serial=serial, issued=1e9, expires=expires, replaces=replaces))
    state.note_seen(TWO, 1.5e9, "203.0.113.9:4000", "0.1.0")
    return path


def run(ruleset: Path, *links: AgentLink, words: tuple[str, ...] = ()) -> Result:
    with replying(f"{ruleset.parent}/s", msgspec.json.encode(Agents(links)) + b"\n"):
        return CliRunner().invoke(main, ["agents", str(ruleset), *words])


def test_what_is_connected(ruleset: Path) -> None:
    """A line for each process, its links summed up; certificates that nobody will show are left out."""
    found = run(ruleset, link(), link(peer="203.0.113.9:4001", rtt_ms=9.0), link(peer="[::1]:5", rtt_ms=None))
    enrolled, empty, *connected = found.output.splitlines()
    seen = "seen 2017-07-14T02:40:00Z from 203.0.113.9:4000"
    assert enrolled == f"office  222222222222  issued 2001-09-09  until 2096-10-02  {seen}"
    assert empty == ""
    since = "since 2026-11-28T16:00:00Z"
    assert connected == [
        f"office  222222222222  from 203.0.113.9  {since}  2 links  2 sessions  8 ready  rtt 9.0 ms  0.1.0",
        f"office  222222222222  from [::1]        {since}  1 link   1 session   4 ready              0.1.0",
    ]


def test_nobody_is_connected(ruleset: Path) -> None:
    """It is said."""
    assert run(ruleset).output.splitlines()[-1] == "nobody is connected"


def test_json(ruleset: Path) -> None:
    """All certificates, old ones too, and each link as the gateway told it."""
    told = json.loads(run(ruleset, link(), words=("--json",)).output)
    assert (told["trouble"], told["links"][0]["rtt_ms"]) == (None, 12.34)
    (agent,) = told["agents"]
    found = [(one["serial"], one["expired"], one["replaces"]) for one in agent["certificates"]]
    assert found == [(ONE, False, None), (TWO, False, ONE), (THREE, True, None)]
    assert agent["certificates"][1]["seen"] == {
        "at": "2017-07-14T02:40:00Z",
        "from": "203.0.113.9:4000",
        "version": "0.1.0",
    }


def test_what_a_gateway_says_does_not_steer_the_terminal(ruleset: Path) -> None:
    """An agent says its version itself."""
    assert "\x1b" not in run(ruleset, link(version="\x1b[2J")).output
