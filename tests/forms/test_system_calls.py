"""What the frozen program asks of the kernel is within what the unit allows.

A system call that the unit forbids fails there, and the program may well go on without a word, but slower.
So a gateway is traced through everything a ruleset can ask for, and each of its calls looked up in the unit.
"""

import re
import subprocess
from functools import cache

import pytest

from appliance.host.unit import UNIT_TEXT
from tests.e2e import needs
from tests.e2e.datagram_peers import Answering, Peer, asks
from tests.e2e.gateway import Gateway, rule, ruleset, wait_for
from tests.e2e.peers import (
    Echo,
    Endpoint,
    Sending,
    connect,
    digest,
    echoes,
    finish,
    payload,
    read_to_end,
    turned_away,
)
from tests.program import program

CALL = re.compile(r"^\d+ +(\w+)\((.*)$", re.MULTILINE)
SIZE = 8 << 20


def directive(name: str) -> list[str]:
    """The words of a directive of the unit, one list of all its lines."""
    return [word for line in re.findall(rf"^{name}=(.*)$", UNIT_TEXT, re.MULTILINE) for word in line.split()]


@cache
def members(group: str) -> frozenset[str]:
    """The system calls of a group, with those of the groups in it."""
    analyze = needs.program("systemd-analyze")
    done = subprocess.run([analyze, "syscall-filter", group], capture_output=True, text=True, check=True)
    words = [line.strip() for line in done.stdout.splitlines()[1:] if line.strip() and "#" not in line]
    return frozenset().union(*(members(word) if word.startswith("@") else {word} for word in words))


def allowed() -> frozenset[str]:
    """The system calls that the unit allows: a list that begins with ~ takes away."""
    found: frozenset[str] = frozenset()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT_TEXT, re.MULTILINE):
        named = frozenset().union(*(members(word) for word in line.removeprefix("~").split()))
        found = found - named if line.startswith("~") else found | named
    return found


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Name and arguments of each system call of a gateway that does everything, from its start to its end."""
    strace = needs.program("strace")
    folder = tmp_path_factory.mktemp("trace")
    log = folder / "trace"
    front, admin = folder / "front", folder / "admin"
    with Echo() as echo, Endpoint() as endpoint, Answering() as answering:
        text = ruleset(
            rule("small", echo.port, listen=":0"),
            rule("bulk", endpoint.port),
            rule("named", f"localhost:{echo.port}"),
            rule("unix", echo.port, listen=f"unix:{front}"),
            rule("gone", f"unix:{folder}/gone"),
            rule("datagrams", answering.port, protocol="udp", idle_timeout="1s"),
            rule("named-datagrams", f"localhost:{answering.port}", protocol="udp", responses=1),
            workers=2,
        )
        wrap = (
            strace,
            "-D",
            "--follow-forks",
            "--quiet=attach,thread-execve",
            "--string-limit=0",
            "-o",
            str(log),
        )
        env = {"PORTWAY_ADMIN": str(admin)}
        with Gateway.start(text, form="folder", wrap=wrap, env=env) as gateway:
            use(gateway, endpoint, str(front))
            ask = subprocess.run(
                [*program("folder"), "status", "--admin", admin], capture_output=True, text=True, check=False
            )
            assert ask.returncode == 0, ask.stderr
    # strace pads a process id to five places.
    end = re.compile(rf"^{gateway.process.pid} +\+\+\+ exited", re.MULTILINE)
    wait_for("the end of the trace", lambda: end.search(log.read_text()))
    return CALL.findall(log.read_text())


def use(gateway: Gateway, endpoint: Endpoint, front: str) -> None:
    """Have sessions and flows of every kind."""
    for where in (gateway.address("small"), gateway.address("named"), front):
        with connect(where) as client:
            assert echoes(client)
    data = payload(SIZE)
    with connect(gateway.address("bulk")) as client, endpoint.accept() as server:
        Sending(client, data, finish)
        assert digest(read_to_end(server)) == digest(data)
        finish(server)
    assert turned_away(gateway.address("gone"))
    for name in ("datagrams", "named-datagrams"):
        with Peer() as peer:
            assert asks(peer, gateway.address(name))
    gateway.sessions(7)


def test_each_system_call_is_allowed(trace: list[tuple[str, str]]) -> None:
    """None is outside of SystemCallFilter=."""
    made = {name for name, _ in trace}
    assert {"epoll_wait", "splice", "accept4", "recvmsg"} <= made  # it was traced, at work
    assert "chown" not in allowed()  # @system-service has it, ~@privileged takes it away
    assert sorted(made - allowed()) == []


def test_each_socket_is_allowed(trace: list[tuple[str, str]]) -> None:
    """None is of a family outside of RestrictAddressFamilies=."""
    made = {arguments.partition(",")[0] for name, arguments in trace if name in {"socket", "socketpair"}}
    assert {"AF_INET", "AF_INET6", "AF_UNIX"} <= made
    assert made <= set(directive("RestrictAddressFamilies"))


def test_no_memory_is_both_written_and_run(trace: list[tuple[str, str]]) -> None:
    """Nothing is mapped writable and executable, or made executable later (MemoryDenyWriteExecute=)."""
    assert directive("MemoryDenyWriteExecute") == ["yes"]
    mapped = [arguments for name, arguments in trace if name == "mmap" and "PROT_EXEC" in arguments]
    assert mapped  # libraries are
    assert [arguments for arguments in mapped if "PROT_WRITE" in arguments] == []
    assert [arguments for name, arguments in trace if name == "mprotect" and "PROT_EXEC" in arguments] == []
