"""UDP through a tunnel: datagrams whole, flows apart, ends in order."""

import random
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.e2e.gateway import PATIENCE, open_fds, rule, wait_for
from tests.e2e.tunnel import Tunnel, tunnel

SIZES = (0, 1, 2, 100, 1400, 9000, 65_507)
FLOWS = 2000


def datagram_socket(receive: int = 0) -> socket.socket:
    """Give a socket of a client or endpoint."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(PATIENCE)
    if receive:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    made.bind(("127.0.0.1", 0))
    return made


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


@pytest.fixture
def endpoint() -> Iterator[socket.socket]:
    """Give an endpoint that the test answers for."""
    with closing(datagram_socket(4 << 20)) as bound:
        yield bound


@pytest.mark.parametrize("encryption", ["tls", "none"])
@pytest.mark.parametrize(("workers", "agent_workers"), [(1, 1), (2, 2)])
def test_datagrams_arrive_whole(
    endpoint: socket.socket, encryption: str, workers: int, agent_workers: int
) -> None:
    """What a client sends is what the endpoint gets, and back, of any size; both logs have it."""
    rules = rule("dns", port_of(endpoint), via="office", protocol="udp", idle_timeout="1s")
    more = {"workers": workers, "agent_workers": agent_workers, "encryption": encryption}
    with tunnel(rules, **more) as world, closing(datagram_socket()) as client:  # type: ignore[arg-type]
        client.connect(world.gateway.address("dns"))
        for size in SIZES:
            sent = random.Random(size).randbytes(size)
            client.send(sent)
            got, flow = endpoint.recvfrom(65_536)
            assert got == sent
            endpoint.sendto(got[::-1], flow)
            assert client.recv(65_536) == sent[::-1]
        record, other = world.gateway.session(), world.agent.session()
    assert record["cause"] == "idle_timeout"
    assert other["cause"] == "client_eof"
    assert {"session", "client", "endpoint", "up", "down", "up_datagrams", "agent"} <= {
        key for key in record if record[key] == other.get(key)
    }
    assert record["up_datagrams"] == len(SIZES)
    assert record["up"] == sum(SIZES)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("encryption", ["tls", "none"])
def test_two_thousand_flows(endpoint: socket.socket, encryption: str) -> None:
    """Two thousand flows at once: each client gets its own answers; all of them end."""
    rules = rule("dns", port_of(endpoint), via="office", protocol="udp", idle_timeout="60s")
    with tunnel(rules, encryption=encryption) as world, ExitStack() as stack:
        workers = (*world.gateway.workers, *world.agent.workers)
        clients = [stack.enter_context(closing(datagram_socket())) for _ in range(FLOWS)]
        flows = [begin(world, endpoint, client, number) for number, client in enumerate(clients)]
        for number in random.Random(7).sample(range(FLOWS), FLOWS):
            endpoint.sendto(b"again %d" % number, flows[number])
            assert clients[number].recv(100) == b"again %d" % number
        assert sum(map(open_fds, workers)) > 3 * FLOWS
        # A worker that drains ends the flows that are quiet.
        world.gateway.process.terminate()
        records, others = world.gateway.sessions(FLOWS), world.agent.sessions(FLOWS)
    assert len(records) == len(others) == FLOWS
    assert {record["session"] for record in records} == {record["session"] for record in others}
    assert all(record["up_datagrams"] == 1 for record in records)
    assert all(record["down_datagrams"] == 2 for record in records)


def begin(world: Tunnel, endpoint: socket.socket, client: socket.socket, number: int) -> tuple[str, int]:
    """Begin a flow with a question and its answer; give its address at the endpoint."""
    client.connect(world.gateway.address("dns"))
    client.send(b"flow %d" % number)
    got, flow = endpoint.recvfrom(100)
    assert got == b"flow %d" % number
    endpoint.sendto(got, flow)
    assert client.recv(100) == got
    return str(flow[0]), int(flow[1])


def test_a_flow_that_is_flooded_blocks_no_other(endpoint: socket.socket) -> None:
    """A client that sends more than the way takes has datagrams dropped; another one's are not."""
    rules = rule("dns", port_of(endpoint), via="office", protocol="udp", idle_timeout="2s")
    with (
        tunnel(rules) as world,
        closing(datagram_socket()) as flooder,
        closing(datagram_socket()) as other,
    ):
        begin(world, endpoint, flooder, 1)
        flow = begin(world, endpoint, other, 2)
        for _ in range(3000):
            flooder.send(bytes(60_000))
        endpoint.sendto(b"through", flow)
        assert other.recv(100) == b"through"
        while select.select([endpoint], [], [], 0.5)[0]:
            got, _ = endpoint.recvfrom(65_536)
            assert len(got) in {60_000, 6}
        assert len(world.gateway.sessions(2)) == 2


def test_an_endpoint_that_is_not_there(endpoint: socket.socket) -> None:
    """ICMP at the agent ends the flow at the gateway, too; the client's next datagram begins another one."""
    port = port_of(endpoint)
    endpoint.close()
    rules = rule("dns", port, via="office", protocol="udp", idle_timeout="5s")
    with tunnel(rules) as world, closing(datagram_socket()) as client:
        client.connect(world.gateway.address("dns"))

        def has_ended() -> bool:
            client.send(b"?")
            return len(world.gateway.events("session")) >= 2

        wait_for("two flows to end", has_ended)
        records = world.gateway.sessions(2)
        assert {record["cause"] for record in records} == {"endpoint_refused"}


def test_no_agent(endpoint: socket.socket) -> None:
    """A flow that no agent carries ends as agent_offline, and an agent that comes back carries the next."""
    rules = rule("dns", port_of(endpoint), via="office", protocol="udp", connect_timeout="1s")
    with tunnel(rules, agents=0) as world, closing(datagram_socket()) as client:
        client.connect(world.gateway.address("dns"))
        client.send(b"anybody?")
        record = world.gateway.session()
    assert (record["stage"], record["cause"]) == ("dial", "agent_offline")
    assert record["drops"] == {"unsent": 1}
