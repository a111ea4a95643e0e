"""Out through proxies that other people wrote: tinyproxy (HTTP CONNECT) and microsocks (SOCKS 5)."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.net.sockets import Socket
from appliance.net.via_proxy import Passage
from appliance.values import Proxy, TargetAddress
from tests.real import programs
from tests.real.programs import Address
from tests.unit.net.loop import PATIENCE, Loop, Watcher, loop


@contextmanager
def tinyproxy(folder: Path, credentials: str) -> Iterator[Address]:
    """Run one that lets CONNECT to any port through."""
    program = programs.find("tinyproxy")
    host, port = programs.free_address()
    lines = [f"Port {port}", f"Listen {host}", "Timeout 60", "Allow 127.0.0.0/8", "MaxClients 10"]
    if credentials:
        lines.append(f"BasicAuth {credentials.replace(':', ' ')}")
    config = folder / "tinyproxy.conf"
    config.write_text("\n".join((*lines, "")))
    with programs.running([program, "-d", "-c", str(config)], lambda: programs.answers((host, port)), folder):
        yield host, port


@contextmanager
def microsocks(folder: Path, credentials: str) -> Iterator[Address]:
    """Run one."""
    program = programs.find("microsocks")
    host, port = programs.free_address()
    command = [program, "-i", host, "-p", str(port)]
    if credentials:
        user, _, password = credentials.partition(":")
        command += ["-u", user, "-P", password]
    with programs.running(command, lambda: programs.answers((host, port)), folder):
        yield host, port


PROXIES = {"http": tinyproxy, "socks5": microsocks}


@dataclass(eq=False)
class Caller:
    """Who wants to get through."""

    at: Loop
    connection: Socket | None = None
    why: str = ""
    faults: list[str] = field(default_factory=list)

    def passed(self, connection: Socket) -> None:
        self.connection = connection
        self.at.reactor.hand_over(connection.fileno(), Watcher())

    def not_passed(self, why: str) -> None:
        self.why = why

    def on_fault(self) -> None:
        self.faults.append("fault")


def through(at: Loop, proxy: Proxy, target: str) -> Caller:
    """Try to get through."""
    caller = Caller(at)
    plain = socket.create_connection((proxy.address.host, proxy.address.first_port), PATIENCE)
    connection = Socket(fileno=plain.detach())
    passage = Passage(at.reactor, caller, connection, proxy, TargetAddress.parse(target), at.reactor.now + 9)
    passage.go(watched=False)
    at.until(lambda: caller.connection is not None or caller.why)
    assert caller.faults == []
    return caller


@pytest.mark.parametrize("credentials", ["", "me:sesame"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("scheme", PROXIES)
def test_a_proxy_lets_us_through(tmp_path: Path, scheme: str, host: str, credentials: str) -> None:
    """To an address and to a name, as nobody and by password; the first to speak may be the other side."""
    with (
        PROXIES[scheme](tmp_path, credentials) as (proxy_host, proxy_port),
        socket.create_server(("127.0.0.1", 0)) as server,
        loop() as at,
    ):
        at_sign = "@" if credentials else ""
        proxy = Proxy.parse(f"{scheme}://{credentials}{at_sign}{proxy_host}:{proxy_port}")
        caller = through(at, proxy, f"{host}:{server.getsockname()[1]}")
        assert caller.connection is not None, caller.why
        server.settimeout(PATIENCE)
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"first")
            caller.connection.settimeout(PATIENCE)
            heard = b""
            while len(heard) < 5:
                heard += caller.connection.recv(5)
            assert heard == b"first"
            caller.connection.send(b"second")
            accepted.settimeout(PATIENCE)
            assert accepted.recv(6) == b"second"
        at.reactor.forget(caller.connection.fileno(), caller.connection.close)
        at.turn()


@pytest.mark.parametrize(
    ("scheme", "credentials", "why"),
    [
        ("http", "", "the proxy wants a user and a password"),
        ("http", "me:wrong@", "the proxy refuses this user and password"),
        ("socks5", "", "the proxy wants a user and a password"),
        ("socks5", "me:wrong@", "the proxy refuses this user and password"),
    ],
)
def test_a_proxy_does_not_know_us(tmp_path: Path, scheme: str, credentials: str, why: str) -> None:
    """Without the password, or with a wrong one, the reason says so."""
    with PROXIES[scheme](tmp_path, "me:sesame") as (host, port), loop() as at:
        assert through(at, Proxy.parse(f"{scheme}://{credentials}{host}:{port}"), "127.0.0.1:9").why == why


@pytest.mark.parametrize("scheme", PROXIES)
def test_nobody_is_behind_it(tmp_path: Path, scheme: str) -> None:
    """A target that refuses is the proxy's refusal."""
    with PROXIES[scheme](tmp_path, "") as (host, port), loop() as at, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{bound.getsockname()[1]}"
        why = through(at, Proxy.parse(f"{scheme}://{host}:{port}"), target).why
        assert why.startswith(f"the proxy refuses to connect to {target}: ")
