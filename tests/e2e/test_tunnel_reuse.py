"""Data channels that serve one session after the other: each has what is its own, and few connections do."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e import needs
from tests.e2e.gateway import PATIENCE, rule, wait_for
from tests.e2e.peers import (
    SMALL_BUFFER,
    Endpoint,
    Sending,
    blackhole,
    clog,
    connect,
    digest,
    finish,
    payload,
    read_exactly,
    read_to_end,
    read_to_reset,
    refusing,
    reset,
    turned_away,
)
from tests.e2e.tunnel import Tunnel, tunnel
from tests.program import program

SIZES = (0, 1, 300, 16_382, 16_384, 65_534, 65_535, 100_000)
"""Of uploads: none, and round the limits of pieces and records. A download has another one."""

UPLOAD = 16 << 20
"""Bytes that no row of socket buffers takes while an endpoint reads nothing."""

ESTABLISHED, SYN_SENT = "01", "02"

LEAST = 2
"""Connections while there is one session: its channel, and the control channel."""

CROWD = 20

MOST_FOR_A_CROWD = 1 + 4 * CROWD
"""The control channel, a channel for each session, twice as many as had to wait that are kept ready; and some
that are made anew, on a machine that stands still for longer than a pool takes to fall."""

ANEW = 3
"""Connections that one session at a time may cost there."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Give a server in the intranet."""
    with Endpoint() as listening:
        yield listening


def connections(world: Tunnel) -> set[str]:
    """Give the agent's connections to the tunnel's port, by the inodes of its sockets (proc_pid_net(5))."""
    there = f"0100007F:{world.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[2] == there and row[3] in (ESTABLISHED, SYN_SENT)}


def at_rest(world: Tunnel, but: int = 0) -> set[str]:
    """Wait until every channel, but for so many, is ready at the gateway; give all connections."""
    found: set[str] = set()

    def rests() -> bool:
        links = world.links()
        found.clear()
        found.update(connections(world))
        return bool(links) and sum(link.ready for link in links) + len(links) == len(found) - but

    wait_for("all channels to be ready", rests)
    return found


def talk(address: tuple[str, int], endpoint: Endpoint, number: int) -> None:
    """Hold the session of that number: bytes of its own both ways, and the one or the other ends first."""
    with connect(address) as client, endpoint.accept() as server:
        exchange(client, server, number)


def exchange(client: socket.socket, server: socket.socket, number: int) -> None:
    up = payload(SIZES[number % len(SIZES)], number)
    down = payload(SIZES[-number % len(SIZES)], -number)
    ways = [(client, server, up), (server, client, down)]
    for one, other, data in ways if number % 2 else reversed(ways):
        Sending(one, data, finish).done()
        assert digest(read_to_end(other)) == digest(data), number


def await_records(world: Tunnel, count: int) -> None:
    """Wait until so many sessions are over at both ends."""
    world.gateway.sessions(count)
    wait_for("the agents' records", lambda: sum(len(one.events("session")) for one in world.agents) >= count)


def test_sessions_one_after_the_other_cost_no_connections(endpoint: Endpoint) -> None:
    """A hundred sessions of two rules pass on the channels that the first one left, each with its bytes."""
    with Endpoint() as other:
        rules = [rule("web", endpoint.to, via="office"), rule("ssh", other.to, via="office")]
        with tunnel(*rules) as world:
            ways = [(world.gateway.address("web"), endpoint), (world.gateway.address("ssh"), other)]
            talk(*ways[0], 0)
            await_records(world, 1)
            grown = at_rest(world)
            seen = set(grown)
            for number in range(1, 101):
                talk(*ways[number % 3 % 2], number)
                await_records(world, number + 1)
                seen |= connections(world)
            assert len(seen) <= len(grown) + ANEW
            records = world.gateway.sessions(101)
    assert {record["cause"] for record in records} == {"client_eof", "endpoint_eof"}


def test_crowds_share_the_connections_of_the_first_one(endpoint: Endpoint) -> None:
    """Ten times twenty sessions at a time need as many connections as twenty do, not as two hundred."""
    with tunnel(rule("web", endpoint.to, via="office")) as world:
        seen: set[str] = set()
        for crowd in range(10):
            hold(world, endpoint, crowd * CROWD)
            await_records(world, (crowd + 1) * CROWD)
            seen |= at_rest(world)
        assert len(seen) <= MOST_FOR_A_CROWD


def hold(world: Tunnel, endpoint: Endpoint, first: int) -> None:
    """Hold a crowd of sessions, numbered from `first`: all of them are there before one goes on."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(world.gateway.address("web"))) for _ in range(CROWD)]
        for number, client in enumerate(clients):
            client.sendall(bytes([number]))
        servers = {}
        for _ in clients:
            server = stack.enter_context(endpoint.accept())
            servers[server.recv(1)[0]] = server
        for number, client in enumerate(clients):
            exchange(client, servers[number], first + number)


@contextmanager
def bad_end(how: str, endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    """Give the rule for sessions that end so, and the cause that they have at the gateway."""
    where: int | str = endpoint.to
    with ExitStack() as stack:
        if how == "refused":
            where = stack.enter_context(refusing())
        elif how == "dial_timeout":
            where = stack.enter_context(blackhole())
        limits = {"connect_timeout": "300ms"} if how == "dial_timeout" else {}
        limits |= {"idle_timeout": "300ms"} if how == "idle" else {}
        causes = {"refused": "dial_refused", "idle": "idle_timeout"}
        yield rule("bad", where, via="office", **limits), causes.get(how, how)


def end_badly(how: str, address: tuple[str, int], endpoint: Endpoint) -> None:
    """Hold a session that ends so, where there is one with bytes on their way."""
    if how in {"refused", "dial_timeout"}:
        assert turned_away(address)
        return
    with connect(address) as client, endpoint.accept() as server:
        client.sendall(b"up")
        server.sendall(b"down")
        assert (read_exactly(server, 2), read_exactly(client, 4)) == (b"up", b"down")
        one, other = (client, server) if how != "endpoint_reset" else (server, client)
        if how != "idle":
            clog(one, looks=2)
            reset(one)
        read_to_reset(other)


@pytest.mark.parametrize("how", ["client_reset", "endpoint_reset", "idle", "refused", "dial_timeout"])
def test_the_next_ones_know_nothing_of_a_bad_end(endpoint: Endpoint, how: str) -> None:
    """After a session that was reset, timed out or found nobody, the next ones have all that is theirs."""
    with (
        bad_end(how, endpoint) as (bad, cause),
        tunnel(bad, rule("good", endpoint.to, via="office")) as world,
    ):
        for turn in range(3):
            end_badly(how, world.gateway.address("bad"), endpoint)
            for number in range(4):
                talk(world.gateway.address("good"), endpoint, 4 * turn + number)
        records = world.gateway.sessions(15)
    assert {record["cause"] for record in records if record["rule"] == "bad"} == {cause}
    ends = {record["cause"] for record in records if record["rule"] == "good"}
    assert ends == {"client_eof", "endpoint_eof"}


@pytest.mark.parametrize("why", ["refused", "denied"])
def test_an_endpoint_that_is_not_to_be_had_costs_no_channel(endpoint: Endpoint, why: str) -> None:
    """Dials that fail at the agent, several of a session, pass on the same channels again and again."""
    with refusing() as one, refusing() as other:
        port, allow_to = (endpoint.port, ("192.0.2.0/24:*",)) if why == "denied" else (other, ())
        rules = rule("web", [f"127.0.0.1:{one}", f"127.0.0.1:{port}"], via="office")
        with tunnel(rules, allow_to=allow_to) as world:
            fail(world)
            await_records(world, 1)
            grown = at_rest(world)
            seen = set(grown)
            for number in range(30):
                fail(world)
                await_records(world, number + 2)
                seen |= connections(world)
            assert len(seen) <= len(grown) + ANEW
            records = world.gateway.sessions(31)
    assert {(record["stage"], record["attempts"]) for record in records} == {("dial", 2)}


def fail(world: Tunnel) -> None:
    """Be a client whose endpoints are not to be had."""
    assert turned_away(world.gateway.address("web"))


@pytest.mark.parametrize("encryption", ["tls", "none"])
def test_an_upload_that_outlasts_its_session_is_alone_on_its_channel(encryption: str) -> None:
    """An endpoint that ended early, and reads slowly, gets all of it; others have channels of their own."""
    with Endpoint(receive=SMALL_BUFFER) as slow, Endpoint() as quick:
        rules = [rule("slow", slow.to, via="office"), rule("quick", quick.to, via="office")]
        with tunnel(*rules, encryption=encryption) as world:
            with connect(world.gateway.address("slow")) as client, slow.accept() as server:
                finish(server)
                assert read_to_end(client) == b""
                upload = Sending(client, payload(UPLOAD), finish)
                others(world, quick, range(10))
                got = read_until_the_gateway_is_through(world, server)
                others(world, quick, range(10, 30))
                at_rest(world, but=1 if encryption == "tls" else 0)
                got += read_to_end(server)
                upload.done()
            assert digest(got) == digest(upload.data)
            await_records(world, 31)
            others(world, quick, range(30, 40))


def others(world: Tunnel, endpoint: Endpoint, numbers: range) -> None:
    for number in numbers:
        talk(world.gateway.address("quick"), endpoint, number)


def read_until_the_gateway_is_through(world: Tunnel, server: socket.socket) -> bytes:
    """Read as little as lets the gateway's session end: the agent goes on with it."""
    got = bytearray()
    while sum(link.sessions for link in world.links()):
        got += server.recv(1 << 14)
    return bytes(got)


@pytest.mark.parametrize("whose", ["agent", "gateway"])
def test_a_worker_killed_takes_the_channels_with_it(endpoint: Endpoint, whose: str) -> None:
    """Whichever end dies with channels in its pool, later sessions pass on new ones, with their own bytes."""
    with tunnel(rule("web", endpoint.to, via="office")) as world:
        hold(world, endpoint, 0)
        await_records(world, CROWD)
        former = at_rest(world)
        died = world.agent if whose == "agent" else world.gateway
        os.kill(died.workers[0], signal.SIGKILL)
        wait_for("the channels to be gone", lambda: not former & connections(world))
        world.agent.await_event("tunnel_up", 2)
        for number in range(CROWD):
            talk(world.gateway.address("web"), endpoint, number)
        await_records(world, 2 * CROWD)
        assert not at_rest(world) & former


def test_a_channel_without_encryption_serves_one_session(endpoint: Endpoint) -> None:
    """With `encryption = "none"` sessions have their own bytes, and a connection each."""
    with tunnel(rule("web", endpoint.to, via="office"), encryption="none") as world:
        pools = [at_rest(world)]
        for number in range(16):
            talk(world.gateway.address("web"), endpoint, number)
            await_records(world, number + 1)
            pools.append(at_rest(world))
        assert all(former - later for former, later in pairwise(pools))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_each_session_is_introduced_as_itself(endpoint: Endpoint, version: str) -> None:
    """The header that an endpoint is sent first is that of its session, whoever had the channel before."""
    with tunnel(rule("web", endpoint.to, via="office", proxy_protocol=version)) as world:
        reached = world.gateway.address("web")
        said = []
        for number in range(8):
            with connect(reached, source=f"127.0.0.{number + 2}") as client:
                host, port = client.getsockname()
                with endpoint.accept() as server:
                    finish(client)
                    said.append((host, port, read_to_end(server)))
            await_records(world, number + 1)
        records = {record["client"]: record["session"] for record in world.gateway.events("session")}
        assert len(at_rest(world)) < len(said)
    for host, port, header in said:
        if version == "v1":
            assert header == f"PROXY TCP4 {host} 127.0.0.1 {port} {reached[1]}\r\n".encode()
        else:
            assert socket.inet_aton(host) + socket.inet_aton("127.0.0.1") in header
            assert header.endswith(records[f"{host}:{port}"].encode())


def test_each_session_has_the_address_of_its_client(endpoint: Endpoint) -> None:
    """With `source = "client"` the endpoint sees who it is, whoever had the channel before."""
    needs.root()
    with tunnel(rule("web", endpoint.to, via="office", source="client")) as world:
        for number in range(8):
            own = f"127.0.0.{number + 2}"
            with connect(world.gateway.address("web"), source=own) as client, endpoint.accept() as server:
                assert server.getpeername()[0] == own
                exchange(client, server, number)
            await_records(world, number + 1)
        assert len(at_rest(world)) < 8


def test_a_flow_may_have_the_channel_of_a_session(endpoint: Endpoint) -> None:
    """Datagrams pass on a channel that sessions have left, whole and apart; sessions go on beside them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as names, ExitStack() as stack:
        names.bind(("127.0.0.1", 0))
        names.settimeout(PATIENCE)
        rules = [
            rule("web", endpoint.to, via="office"),
            rule("dns", names.getsockname()[1], via="office", protocol="udp"),
        ]
        world = stack.enter_context(tunnel(*rules))
        hold(world, endpoint, 0)
        await_records(world, CROWD)
        former = at_rest(world)
        for number in range(CROWD):
            asking = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            asking.settimeout(PATIENCE)
            asking.connect(world.gateway.address("dns"))
            asking.send(payload(number, number))
            question, flow = names.recvfrom(1 << 16)
            names.sendto(question + b"!", flow)
            assert asking.recv(1 << 16) == payload(number, number) + b"!"
            talk(world.gateway.address("web"), endpoint, number)
        assert len(former & connections(world)) >= CROWD


@pytest.mark.parametrize("whose", ["agent", "gateway"])
def test_an_end_that_drains_ends_with_its_last_session(endpoint: Endpoint, whose: str) -> None:
    """No channel comes back to who serves nothing new, and none keeps it here."""
    with tunnel(rule("web", endpoint.to, via="office"), drain="20s") as world:
        with connect(world.gateway.address("web")) as client, endpoint.accept() as server:
            former = at_rest(world, but=1)
            draining = world.agent if whose == "agent" else world.gateway
            workers = draining.workers
            if whose == "agent":
                draining.process.send_signal(signal.SIGTERM)
                wait_for("the other channels to be closed", lambda: len(connections(world)) == LEAST)
            else:
                draining.process.send_signal(signal.SIGHUP)
                world.agent.await_event("tunnel_up", 2)
            exchange(client, server, 5)
        await_records(world, 1)
        wait_for("its end", lambda: not set(workers) & set(draining.workers))
        assert not former & connections(world)
        assert {record["cause"] for record in world.gateway.sessions()} <= {"client_eof", "endpoint_eof"}


def test_a_revoked_agent_has_no_channel_left(endpoint: Endpoint) -> None:
    """Revoking takes the channels that are ready, those of sessions, and those that have come back."""
    with tunnel(rule("web", endpoint.to, via="office")) as world:
        hold(world, endpoint, 0)
        await_records(world, CROWD)
        at_rest(world)
        with connect(world.gateway.address("web")) as client, endpoint.accept():
            rules = str(world.gateway.folder / "rules.toml")
            subprocess.run([*program(), "revoke", rules, "office"], check=True, capture_output=True)
            read_to_reset(client)
        world.gateway.await_event("agent_lost")
        wait_for("every channel to be gone", lambda: not connections(world))
