"""source = "client", on three hosts of our own: the server sees the client, and its answers arrive."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import needs
from tests.e2e.gateway import Gateway, ruleset
from tests.e2e.tunnel import LISTENERS, enroll, tunnel_ruleset
from tests.program import program
from tests.real.namespaces import Host, device_of, hosts, join
from tests.real.programs import find

HERE = Path(__file__).parents[2]
OUTSIDE = "198.18.1"
INSIDE = "198.18.2"
BETWEEN = "198.18.3"

GATEWAY = {4: f"{OUTSIDE}.1", 6: "fd00:1::1"}
GATEWAY_INSIDE = {4: f"{INSIDE}.1", 6: "fd00:2::1"}
CLIENT = {4: f"{OUTSIDE}.2", 6: "fd00:1::2"}
SERVER = {4: f"{INSIDE}.2", 6: "fd00:2::2"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}

PORT = 8053
"""The server's; each host is the test's own."""

WAYS = [(protocol, family) for protocol in ("tcp", "udp") for family in (4, 6)]


@dataclass
class Net:
    """client -- gateway -- server; the server's default route is the gateway, which forwards no packets."""

    client: Host
    gateway: Host
    server: Host

    def state(self) -> list[list[bytes]]:
        """What the gateway's kernel has been told; a first rule changes the order of its routes."""
        said = [
            self.gateway.run(*words).splitlines()
            for words in (
                (find("ip"), "rule"),
                (find("ip"), "-6", "rule"),
                (find("ip"), "-4", "route", "show", "table", "all"),
                (find("ip"), "-6", "route", "show", "table", "all"),
                (find("nft"), "list", "ruleset"),
            )
        ]
        # Link-local addresses come by themselves, some time after a device is up.
        return [sorted(line for line in lines if b"fe80::" not in line) for lines in said]

    def source(self, *words: str, status: int = 0) -> str:
        """Run `portway source` on the gateway."""
        command = self.gateway.command(*program(), "source", *words)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def apply(self, script: str) -> None:
        """Do on the gateway what it printed."""
        self.gateway.run("sh", "-ec", script)


@contextmanager
def net() -> Iterator[Net]:
    """Make the three hosts."""
    needs.ipv6()
    find("nft")
    with hosts("client", "gateway", "server") as (client, gateway, server):
        for network, other, number in ((OUTSIDE, client, 1), (INSIDE, server, 2)):
            join(gateway, other, network)
            for host, end in ((gateway, 1), (other, 2)):
                # nodad: an address may be used at once.
                host.ip("address", "add", f"fd00:{number}::{end}/64", "dev", device_of(network), "nodad")
        for family in (4, 6):
            server.ip(f"-{family}", "route", "add", "default", "via", GATEWAY_INSIDE[family])
        yield Net(client, gateway, server)


@contextmanager
def serving(host: Host, address: str) -> Iterator[None]:
    """Run an endpoint there that says whom it sees."""
    command = host.command(sys.executable, "-m", "tests.real.who", address, str(PORT))
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=HERE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            server.kill()


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def rules(to: dict[int, str], families: tuple[int, ...] = (4, 6), **more: str) -> str:
    """Write a rule for each family and protocol, named after them."""
    keys = "".join(f'{key} = "{value}"\n' for key, value in more.items())
    return ruleset(
        *(
            f'[[rule]]\nname = "{protocol}{family}"\nprotocol = "{protocol}"\nsource = "client"\n'
            f'listen = "{bracketed(GATEWAY[family])}:0"\nto = "{bracketed(to[family])}:{PORT}"\n{keys}\n'
            for protocol in ("tcp", "udp")
            for family in families
        )
    )


def asked(there: Net, gateway: Gateway, protocol: str, family: int) -> tuple[str, str]:
    """Have the client ask; give its own address, and the one that the server saw."""
    words = ("ask", protocol, GATEWAY[family], str(gateway.port(f"{protocol}{family}")))
    command = there.client.command(sys.executable, "-m", "tests.real.who", *words)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)
    own, seen = done.stdout.split()
    return own, seen


def test_a_server_behind_the_gateway(tmp_path: Path) -> None:
    """TCP and UDP, IPv4 and IPv6: it sees the client's address and port; and all of it can be taken back."""
    text = rules(SERVER)
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with net() as there:
        before = there.state()
        there.source("--check", str(path), status=1)
        there.apply(there.source(str(path)))
        there.source("--check", str(path))
        with (
            Gateway.start(text, wrap=there.gateway.wrap) as gateway,
            serving(there.server, SERVER[4]),
            serving(there.server, SERVER[6]),
        ):
            for protocol, family in WAYS:
                own, seen = asked(there, gateway, protocol, family)
                assert seen == own
                assert own.startswith(bracketed(CLIENT[family]))
            gateway.stop()
            records = gateway.events("session")
            assert len(records) == len(WAYS)
            assert {record["cause"] for record in records} <= {"endpoint_eof", "client_eof", "drain"}
            assert not gateway.events("warning")
        there.apply(there.source("--undo"))
        assert there.state() == before
        assert there.source("--undo") == ""
        there.source("--check", str(path), status=1)


@pytest.mark.parametrize("to", [LOOPBACK, GATEWAY_INSIDE], ids=["loopback", "own"])
def test_a_server_on_the_gateway_itself(to: dict[int, str], tmp_path: Path) -> None:
    """The same for a server on the same host, at the loopback address or another of its own."""
    text = rules(to)
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with net() as there:
        # Only where there is a way to the client at all is an answer sent; here there is one, by the cable.
        before = there.state()
        lines = there.source(str(path))
        assert "nft" not in lines
        there.apply(lines)
        there.source("--check", str(path))
        with (
            Gateway.start(text, wrap=there.gateway.wrap) as gateway,
            serving(there.gateway, to[4]),
            serving(there.gateway, to[6]),
        ):
            for protocol, family in WAYS:
                own, seen = asked(there, gateway, protocol, family)
                assert seen == own
        there.apply(there.source("--undo"))
        assert there.state() == before


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_server_behind_an_agent(protocol: str, tmp_path: Path) -> None:
    """The agent's host is the one that is set up: its server sees the client of the gateway."""
    with hosts("client", "gateway", "agent", "server") as (client, gateway, agent, server):
        join(gateway, client, OUTSIDE)
        join(gateway, agent, BETWEEN)
        join(agent, server, INSIDE)
        server.ip("route", "add", "default", "via", GATEWAY_INSIDE[4])
        there = Net(client, agent, server)
        there.apply(there.source("--to", f"{SERVER[4]}:{PORT}"))
        name = f"{protocol}4"
        rule = (
            f'[[rule]]\nname = "{name}"\nprotocol = "{protocol}"\nlisten = "{GATEWAY[4]}:0"\n'
            f'to = "{SERVER[4]}:{PORT}"\nvia = "office"\nsource = "client"\n'
        )
        text = tunnel_ruleset(rule, state=tmp_path / "state", listen=f"{BETWEEN}.1:0")
        with Gateway.start(text, wrap=gateway.wrap) as running, serving(server, SERVER[4]):
            path, at = tmp_path / "rules.toml", f"{BETWEEN}.1:{running.port(LISTENERS)}"
            path.write_text(text)
            verb = (
                "agent",
                "--join",
                str(enroll(path, "office", at, tmp_path / "office.join")),
                "--workers",
                "1",
            )
            with Gateway.start("", verb=verb, wrap=agent.wrap) as inside:
                running.await_event("agent_connected")
                own, seen = asked(there, running, protocol, 4)
                assert seen == own
                if protocol == "tcp":
                    assert inside.session()["client"] == own


def test_endpoints_named_one_by_one() -> None:
    """As on an agent's host, which has no ruleset: --to says the same as a ruleset would."""
    with net() as there:
        lines = there.source("--to", f"{SERVER[4]}:80", "--to", "[::1]:53", "--udp")
        assert "ip -6 rule add pref 5057 from ::1 iif lo ipproto udp sport 53 lookup 5057\n" in lines
        before = there.state()
        there.apply(lines)
        there.source("--check", "--to", f"{SERVER[4]}:80")
        there.source("--check", "--to", "[::1]:54", "--udp", status=1)
        there.apply(there.source("--undo"))
        assert there.state() == before


def test_without_the_right() -> None:
    """A process that may not do it says so at once, with what to do; its sessions end with that cause."""
    setpriv = (needs.program("setpriv"), "--bounding-set=-net_raw,-net_admin", "--inh-caps=-all")
    with net() as there:
        text = rules(SERVER, (4,))
        with Gateway.start(text, wrap=(*there.gateway.wrap, *setpriv)) as gateway:
            (warning,) = gateway.events("warning")
            assert "CAP_NET_RAW" in warning["message"]
            words = ("ask", "tcp", GATEWAY[4], str(gateway.port("tcp4")))
            there.client.succeeds(
                "sh", "-c", f"cd {HERE}; exec {sys.executable} -m tests.real.who {' '.join(words)} 2>&1"
            )
            record = gateway.session()
            assert (record["stage"], record["cause"], record["level"]) == (
                "dial",
                "source_unavailable",
                "warning",
            )
            assert len(gateway.events("warning")) == 1


def test_without_the_lines() -> None:
    """Answers that go astray are a dial that times out, and the log says where to look."""
    with net() as there, serving(there.server, SERVER[4]):
        text = rules(SERVER, (4,), connect_timeout="300ms").replace('protocol = "udp"', 'protocol = "tcp"')
        with Gateway.start(text, wrap=there.gateway.wrap) as gateway:
            words = ("ask", "tcp", GATEWAY[4], str(gateway.port("tcp4")))
            there.client.succeeds(
                "sh", "-c", f"cd {HERE}; exec {sys.executable} -m tests.real.who {' '.join(words)} 2>&1"
            )
            assert gateway.session()["cause"] == "dial_timeout"
            (warning,) = gateway.events("warning")
            assert "portway source --check" in warning["message"], json.dumps(warning)
