"""Under a service manager: sockets it passes (sd_listen_fds(3)), and what it is told (sd_notify(3))."""

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e import needs
from tests.e2e.gateway import PATIENCE, Gateway, rule, ruleset, state, wait_for
from tests.e2e.peers import Echo, Endpoint, assert_idle, connect, echoes

ENVIRONMENT = 'export LISTEN_PID=$$ LISTEN_FDS={count}; exec "$0" "$@"'
"""What a service manager does last (sd_listen_fds(3)): the pid is that of the program itself."""


def inherit(*sockets: socket.socket) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Pass sockets as fds 3 and up: give the wrapping command and the fds it needs."""
    moves = " ".join(f"{3 + n}<&{one.fileno()}" for n, one in enumerate(sockets))
    script = f"exec {moves}; " + ENVIRONMENT.format(count=len(sockets))
    return ("bash", "-c", script), tuple(one.fileno() for one in sockets)


def high(listening: socket.socket) -> socket.socket:
    """Move a socket to an fd that is none of those it will be passed as."""
    with listening:
        return socket.socket(fileno=fcntl.fcntl(listening, fcntl.F_DUPFD_CLOEXEC, 100))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_inherited_socket_is_used(workers: int) -> None:
    """A socket that the service manager passed is the rule's listener, and outlives the gateway."""
    with Echo() as echo, high(socket.create_server(("127.0.0.1", 0), backlog=128)) as passed:
        port = passed.getsockname()[1]
        wrap, fds = inherit(passed)
        text = ruleset(rule("way", echo.port, listen=f"127.0.0.1:{port}"), workers=workers)
        for _ in range(2):
            with Gateway.start(text, wrap=wrap, pass_fds=fds) as gateway, ExitStack() as ends:
                clients = [ends.enter_context(connect(("127.0.0.1", port))) for _ in range(20)]
                assert all(map(echoes, clients))
                for pid in gateway.workers:
                    assert_idle(pid)


def test_an_inherited_socket_of_both_families() -> None:
    """A passed socket of both families serves ":port", and an IPv4 client keeps its IPv4 address."""
    needs.ipv6()
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    with Echo() as echo, high(both) as passed:
        port = passed.getsockname()[1]
        wrap, fds = inherit(passed)
        with Gateway.start(
            ruleset(rule("way", echo.port, listen=f":{port}")), wrap=wrap, pass_fds=fds
        ) as gateway:
            assert len(gateway.events("listening")) == 1
            for address in (("127.0.0.1", port), ("::1", port)):
                with connect(address) as client:
                    assert echoes(client)
            clients = sorted(record["client"].rpartition(":")[0] for record in gateway.sessions(2))
        assert clients == ["127.0.0.1", "[::1]"]


def test_an_inherited_unix_socket(tmp_path: Path) -> None:
    """A passed unix socket is used, and its file, which is not the gateway's, stays."""
    path = tmp_path / "front"
    with Echo() as echo, high(Endpoint(str(path)).socket) as passed:
        wrap, fds = inherit(passed)
        text = ruleset(rule("way", echo.port, listen=f"unix:{path}"))
        with Gateway.start(text, wrap=wrap, pass_fds=fds), connect(str(path)) as client:
            assert echoes(client)
        assert path.is_socket()


def test_an_inherited_socket_that_no_rule_wants() -> None:
    """A passed socket that no rule asks for is named and let go; what is no listener at all does no harm."""
    with Echo() as echo, high(socket.create_server(("127.0.0.1", 0))) as passed, high(socket.socket()) as odd:
        port = passed.getsockname()[1]
        wrap, fds = inherit(passed, odd)
        with Gateway.start(ruleset(rule("way", echo.port)), wrap=wrap, pass_fds=fds) as gateway:
            assert str(port) in gateway.stderr
            with connect(gateway.address("way")) as client:
                assert echoes(client)


def test_inherited_fds_that_are_no_sockets() -> None:
    """A passed fd that is a file, or closed, is no reason to fail, let alone with a traceback."""
    with Echo() as echo:
        script = "exec 3</dev/null 4<&-; " + ENVIRONMENT.format(count=2)
        text = ruleset(rule("way", echo.port))
        with (
            Gateway.start(text, wrap=("bash", "-c", script)) as gateway,
            connect(gateway.address("way")) as client,
        ):
            assert echoes(client)


def test_fds_meant_for_another_process() -> None:
    """LISTEN_FDS of a parent's environment is not ours: fd 3 is left alone."""
    with Echo() as echo:
        env = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
        text = ruleset(rule("way", echo.port))
        with Gateway.start(text, env=env) as gateway, connect(gateway.address("way")) as client:
            assert echoes(client)


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(tmp_path: Path, *, abstract: bool) -> None:
    """NOTIFY_SOCKET gets READY=1 once clients are served, STOPPING=1 and the longest drain when it begins."""
    name = f"\0portway-test-{os.getpid()}" if abstract else f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, Echo() as echo:
        manager.bind(name)
        manager.settimeout(PATIENCE)
        env = {"NOTIFY_SOCKET": name.replace("\0", "@")}
        with Gateway.start(ruleset(rule("way", echo.port), workers=2), env=env) as gateway:
            assert b"READY=1" in manager.recv(4096)
            with connect(gateway.address("way")) as client:
                assert echoes(client)
            gateway.stop()
            assert manager.recv(4096) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=9000000"


@contextmanager
def manager(folder: Path) -> Iterator[socket.socket]:
    """A service manager, as far as it is told things."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(f"{folder}/notify")
        told.settimeout(PATIENCE)
        yield told


MEANT_FOR_US = ("bash", "-c", 'export WATCHDOG_PID=$$; exec "$0" "$@"')


@pytest.mark.parametrize("wrap", [(), MEANT_FOR_US], ids=["no-pid", "our-pid"])
def test_the_watchdog_hears_of_the_master(tmp_path: Path, wrap: tuple[str, ...]) -> None:
    """With WATCHDOG_USEC set it is told again and again, not while the master is stopped, and then again."""
    with manager(tmp_path) as told:
        env = {"NOTIFY_SOCKET": f"{tmp_path}/notify", "WATCHDOG_USEC": "400000"}
        with Gateway.start(ruleset(rule("way", 9)), env=env, wrap=wrap) as gateway:
            assert {told.recv(100) for _ in range(6)} == {b"WATCHDOG=1", b"READY=1"}
            gateway.process.send_signal(signal.SIGSTOP)
            wait_for("it is stopped", lambda: state(gateway.process.pid) == "T")
            told.settimeout(0.0)
            with suppress(BlockingIOError):
                while told.recv(100):
                    pass
            told.settimeout(1.2)
            with pytest.raises(TimeoutError):
                told.recv(100)
            told.settimeout(PATIENCE)
            gateway.process.send_signal(signal.SIGCONT)
            assert [told.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3


def test_the_watchdog_goes_on_while_it_drains(tmp_path: Path) -> None:
    """A drain that takes longer than the watchdog allows is no reason to kill the gateway."""
    with manager(tmp_path) as told, Echo() as echo:
        env = {"NOTIFY_SOCKET": f"{tmp_path}/notify", "WATCHDOG_USEC": "400000"}
        with (
            Gateway.start(ruleset(rule("way", echo.port)), env=env) as gateway,
            connect(gateway.address("way")) as client,
        ):
            assert echoes(client)
            gateway.process.send_signal(signal.SIGTERM)
            while b"STOPPING=1" not in told.recv(100):
                pass
            assert [told.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            assert echoes(client)


def test_a_watchdog_of_another_process(tmp_path: Path) -> None:
    """WATCHDOG_PID of a parent's environment is not ours: nothing but READY and STOPPING is told."""
    with manager(tmp_path) as told:
        env = {"NOTIFY_SOCKET": f"{tmp_path}/notify", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
        with Gateway.start(ruleset(rule("way", 9)), env=env) as gateway:
            gateway.stop()
        assert [told.recv(100).partition(b"\n")[0] for _ in range(2)] == [b"READY=1", b"STOPPING=1"]
