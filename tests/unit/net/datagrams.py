"""A listener of datagrams under test, with its clients and endpoints in the test's hands."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

from appliance.net.contact import DatagramUpstream
from appliance.net.datagram import DatagramListener
from appliance.net.datagram_sockets import datagram_socket
from appliance.net.flow import Flow
from appliance.net.flow_route import Datagrams, FlowRoute
from appliance.net.reactor import IN, Reactor
from appliance.net.resolve import Name, Resolver
from appliance.net.sockets import Endpoint, endpoint_of
from appliance.outcome import LEGAL, Cause, Drop, Stage
from appliance.policy.flow_table import FlowTable
from appliance.policy.tally import Tally, tally_bytes
from appliance.values import ListenAddress, TargetAddress
from tests.unit.net.loop import Loop, loop

IDLE = 30.0
CONNECT_TIMEOUT = 5.0
BUFFER = 1 << 20

Address = tuple[str, int]


def endpoint(port: int, host: str = "127.0.0.1") -> Endpoint:
    return endpoint_of(TargetAddress.parse(f"{host}:{port}"))


def datagrams_at(host: str = "127.0.0.1") -> socket.socket:
    """Make a socket of a client, or of an endpoint, that never waits."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind((host, 0))
    made.setblocking(False)
    return made


def port_of(bound: socket.socket) -> int:
    port = bound.getsockname()[1]
    assert isinstance(port, int)
    return port


@contextmanager
def nobody_at(host: str = "127.0.0.1") -> Iterator[str]:
    """Hold a port at which nobody is, as a target: its host says so to whoever sends there.

    Bound, for a port that was merely free a moment ago is one the kernel may give to the next client or flow
    (one run in seventy, with 200 of each); connected to itself, so that nothing of others arrives (udp(7)).
    """
    with datagrams_at(host) as held:
        held.connect(held.getsockname())
        yield f"[{host}]:{port_of(held)}" if ":" in host else f"{host}:{port_of(held)}"


def waiting(receiver: socket.socket) -> list[bytes]:
    """Give what a socket has received and not read."""
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(receiver.recv(1 << 16, socket.MSG_DONTWAIT))
    return found


@dataclass(eq=False)
class Names:
    """A resolver that answers when the test wants it to."""

    known: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    asking: list[tuple[str, "Asker"]] = field(default_factory=list)

    def resolve(self, name: Name, asker: "Asker") -> tuple[Endpoint, ...] | None:
        if name[0] in self.known:
            return self.known[name[0]]
        self.asking.append((name[0], asker))
        return None

    def withdraw(self, name: Name, asker: "Asker") -> None:
        self.asking.remove((name[0], asker))

    def answer(self, *endpoints: Endpoint) -> None:
        """Answer whoever has asked first."""
        _, asker = self.asking.pop(0)
        asker.resolved(endpoints)


class Asker:
    """Who waits for a name."""

    def resolved(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Take the endpoints."""


def upstream_of(
    reactor: Reactor, targets: Sequence[str], names: Names, connect_timeout: float = CONNECT_TIMEOUT
) -> DatagramUpstream:
    parsed = [TargetAddress.parse(target) for target in targets]
    return DatagramUpstream(reactor, cast("Resolver", names), parsed, connect_timeout)


@dataclass
class Ended:
    """What a record is made of, as it was when the flow ended."""

    stage: Stage
    cause: Cause | None
    up: int
    down: int
    drops: dict[Drop, int]


@dataclass(eq=False)
class Ends:
    """What the flows of a listener came to."""

    told: list[Ended] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)

    def on_end(self, flow: Flow) -> None:
        assert flow not in self.flows
        assert flow.cause is not None
        assert flow.cause in LEGAL[flow.stage]
        self.flows.append(flow)
        self.told.append(Ended(flow.stage, flow.cause, flow.up, flow.down, dict(flow.drops or {})))


@dataclass(eq=False)
class Rig:
    """A listener and its flows."""

    at: Loop
    bound: socket.socket
    listener: DatagramListener
    upstream: DatagramUpstream
    names: Names
    table: "FlowTable[Flow]"
    datagrams: Datagrams
    ends: Ends

    @property
    def where(self) -> Address:
        """Where clients send to."""
        host, port = self.bound.getsockname()[:2]
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port

    @property
    def flow(self) -> Flow:
        """The only flow there is."""
        (flow,) = self.listener.flows.values()
        return flow

    def take(self) -> None:
        """Have the listener take what has come, up to a burst."""
        self.listener.on_event(IN)

    def until(self, condition: Callable[[], object]) -> None:
        self.at.until(condition)

    def relayed(self, client: socket.socket, server: socket.socket, data: bytes) -> object:
        """Send a datagram to the endpoint; give the address it came from."""
        client.sendto(data, self.where)
        self.until(lambda: readable(server))
        came, sender = server.recvfrom(1 << 16)
        assert came == data
        return sender

    def answered(self, client: socket.socket, server: socket.socket, data: bytes, to: object) -> None:
        """Send a datagram back to the client."""
        assert isinstance(to, tuple)
        server.sendto(data, to)
        self.until(lambda: readable(client))
        came, sender = client.recvfrom(1 << 16)
        assert (came, sender[:2]) == (data, self.where)

    def only_end(self) -> Ended:
        (ended,) = self.ends.told
        return ended


def readable(receiver: socket.socket) -> bool:
    try:
        receiver.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True


@contextmanager
def rig(
    *targets: str,
    listen: str = "127.0.0.1:0",
    bound: socket.socket | None = None,
    responses: int = 0,
    idle_timeout: float = IDLE,
    connect_timeout: float = CONNECT_TIMEOUT,
    most: int = 1000,
    most_per_rule: int | None = None,
    most_per_client: int | None = None,
    spare_fds: int = 128,
) -> Iterator[Rig]:
    """Make a listener; whatever the test leaves is cut, and nothing of it must be left then."""
    with loop() as at:
        table: FlowTable[Flow] = FlowTable(most, Tally(memoryview(bytearray(tally_bytes(1, 256))), 1, 0))
        ends = Ends()
        datagrams = Datagrams(at.reactor, table, ends.on_end, spare_fds)
        names = Names()
        upstream = upstream_of(at.reactor, targets, names, connect_timeout)
        flows = table.rule("rule", most_per_rule, most_per_client)
        route = FlowRoute("rule", listen, upstream, idle_timeout, responses, BUFFER, flows, datagrams)
        bound = bound or datagram_socket(
            endpoint_of(ListenAddress.parse(listen)), reuse_port=True, receive_buffer=BUFFER
        )
        made = Rig(at, bound, DatagramListener(bound, route), upstream, names, table, datagrams, ends)
        try:
            yield made
        finally:
            close(made)
        check_nothing_left(made)


def close(made: Rig) -> None:
    """End what lives."""
    made.datagrams.cut(Cause.DRAIN)
    made.listener.close()
    made.at.turn()


def check_nothing_left(made: Rig) -> None:
    """Hold that the flows and their listener are gone without a trace."""
    assert not made.listener.flows
    assert not made.table.count
    assert not made.names.asking
    assert not len(made.at.reactor.timers)
    assert not len(made.at.reactor)
    assert made.bound.fileno() == -1
    assert all(flow.connection is None for flow in made.ends.flows)
