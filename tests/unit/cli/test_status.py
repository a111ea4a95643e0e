"""`portway status`: what is printed, and what is said when there is nothing to print."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from appliance.__main__ import main
from appliance.supervisor.status import RulesetStatus, State, WorkerState
from tests.unit.supervisor.test_status import GOOD, listener, worker

LINE = msgspec.json.encode(GOOD) + b"\n"


@contextmanager
def replying(path: str, reply: bytes) -> Iterator[None]:
    """Stand in for a gateway that replies so."""

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            assert peer.recv(100) == b'{"verb":"status"}\n'
            peer.sendall(reply)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        server = threading.Thread(target=serve)
        server.start()
        yield
        server.join()


def run(path: str, *arguments: str, reply: bytes = LINE) -> Result:
    with replying(path, reply):
        return CliRunner().invoke(main, ["status", "--admin", path, *arguments])


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"{tmp_path}/s"


def test_the_screen(path: str) -> None:
    """A line on the gateway, one on the ruleset, one for each listener and worker, in columns."""
    told = replace(
        GOOD,
        up=3 * 86400 + 4 * 3600 + 5 * 60 + 6.7,
        workers=(worker(0), worker(1, WorkerState.GONE)),
        listeners=(listener(), replace(listener(bound=False), rule="intranet-web")),
    )
    result = run(
        path,
        reply=msgspec.json.encode(replace(told, workers=(told.workers[0], replace(told.workers[1], pid=0)))),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert (
        result.stdout
        == f"""\
portway 0.1.0, pid 99: ready, up 3d 04:05:06, since 2026-11-24T16:00:00.000Z
ruleset edge.toml: 1 rule, sha256 {"0" * 64}
not healthy: 1 of 2 workers is not ready

web           tcp  0.0.0.0:80
intranet-web  tcp  0.0.0.0:80  not bound

worker 0  pid 100  ready  3 of 10 sessions
worker 1           gone
"""
    )


def test_an_agent(path: str) -> None:
    """An agent has neither ruleset nor listeners; what it joined by is told."""
    told = replace(GOOD, ruleset=RulesetStatus("office.join", "", 0), listeners=(), workers=(worker(0),))
    assert run(path, reply=msgspec.json.encode(told)).stdout.splitlines()[1:] == [
        "agent, joined by office.join",
        "",
        "worker 0  pid 100  ready  3 of 10 sessions",
    ]


def test_a_hostile_path_does_not_steer_the_terminal(path: str) -> None:
    """What is printed is printable, whatever the gateway says."""
    told = replace(GOOD, ruleset=replace(GOOD.ruleset, path="a\x1b[2J\nb"))
    result = run(path, reply=msgspec.json.encode(told))
    assert "ruleset a\\x1b[2J\\nb: 1 rule" in result.stdout


def test_json_is_the_reply(path: str) -> None:
    """As it came, with what this version may not know."""
    said = {**json.loads(LINE), "more": [1]}
    result = run(path, "--json", reply=json.dumps(said).encode())
    assert json.loads(result.stdout) == said


@pytest.mark.parametrize("options", [["--healthy"], ["--healthy", "--json"]])
def test_healthy_is_the_exit_status(path: str, options: list[str]) -> None:
    """0 and no word, or 1 and one sentence; with --json the reply is printed either way."""
    for number, (told, code) in enumerate(((GOOD, 0), (replace(GOOD, state=State.DRAINING), 1))):
        result = run(f"{path}{number}", *options, reply=msgspec.json.encode(told))
        assert result.exit_code == code
        assert result.stderr == ("portway: not healthy: the gateway is draining\n" if code else "")
        assert bool(result.stdout) == ("--json" in options)


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (b'{"error":"user 5 may not ask"}\n', "refuses: user 5 may not ask"),
        (b"", "no gateway of this version"),
        (LINE[:100], "no gateway of this version"),
        (b"220 smtp\r\n", "no gateway of this version"),
        (b"\xff\n", "no gateway of this version"),
        (b"{}\n", "no gateway of this version"),
    ],
)
@pytest.mark.parametrize("healthy", [False, True])
def test_a_reply_that_is_none(path: str, reply: bytes, what: str, *, healthy: bool) -> None:
    """A sentence and status 1, whatever it is that answers."""
    result = run(path, *["--healthy"] * healthy, reply=reply)
    assert result.exit_code == 1
    assert what in result.stderr
    assert result.stderr.startswith("portway: not healthy: " if healthy else "portway: ")
    assert not result.stdout


def test_nobody_there(tmp_path: Path) -> None:
    """No file, a file that is no socket, a path through a file: a sentence with a hint, status 1."""
    (tmp_path / "file").touch()
    for name, what in (
        ("absent", "no gateway listens at "),
        ("file", "no gateway"),
        ("file/s", "cannot ask"),
    ):
        result = CliRunner().invoke(main, ["status", "--admin", str(tmp_path / name)])
        assert result.exit_code == 1
        assert what in result.stderr
        assert "hint: " in result.stderr


@pytest.mark.parametrize("verb", [["status"], ["run", "x"], ["forward", ":80", "a:80"]])
def test_a_wrong_address_is_wrong_input(verb: list[str]) -> None:
    """Status 2 with what the ruleset's message would say, from the option and from the variable."""
    for arguments, env in ((["--admin", "@x"], {}), ([], {"PORTWAY_ADMIN": "@x"})):
        result = CliRunner().invoke(main, [*verb, *arguments], env=env)
        assert result.exit_code == 2
        assert '"@x" names an abstract socket; write "@" alone' in " ".join(result.stderr.split())


def test_what_it_imports() -> None:
    """A health check, which runs every few seconds, imports neither gateway, nor log, nor ruleset."""
    code = (
        "import sys; from appliance.__main__ import main;"
        "main(['status', '--admin', '/nonexistent'], standalone_mode=False);"
        "print(sorted(sys.modules))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = child.stdout
    assert "'appliance.supervisor.status'" in loaded
    for module in ("structlog", "asyncio", "tomllib", "tomlkit", "hashlib", "subprocess"):
        assert f"'{module}'" not in loaded, module
    for package in ("net", "observe", "policy", "ruleset", "supervisor.binding", "supervisor.master"):
        assert f"'appliance.{package}'" not in loaded, package
