"""Flows over the kernel of dice, and a shadow that knows what every one of them must look like."""

import errno
import random
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, Final, Protocol, cast

from appliance.net.contact import DatagramUpstream
from appliance.net.datagram import DatagramListener
from appliance.net.flow import Flow
from appliance.net.flow_route import Datagrams, FlowRoute
from appliance.net.reactor import Reactor
from appliance.net.resolve import Name, Resolver
from appliance.net.sockets import Endpoint, endpoint_of
from appliance.net.timers import SLOTS_PER_SECOND
from appliance.outcome import LEGAL, Cause, Drop, Stage
from appliance.policy.flow_table import FlowTable
from appliance.policy.tally import Tally, tally_bytes
from appliance.values import TargetAddress
from tests.sim.datagram_kernel import Address, Connected, Item, Kernel, Listening, Parts, Port
from tests.sim.flow_shadow import LOST, Place, Talk, Way

if TYPE_CHECKING:
    import select
    import socket

TURN: Final = 1e-6
"""Seconds that a turn takes: no two begin at the same moment."""

LATE: Final = 1 / SLOTS_PER_SECOND + TURN
"""A deadline is kept so late at the most."""

TURNS: Final = 3000
"""More than a world needs to come to rest."""

MOST_HELD: Final = 5
"""MOST_HELD_DATAGRAMS of a simulation."""

ENDPOINTS: Final = ("10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53")
TARGETS: Final = (
    ENDPOINTS[:1],
    ENDPOINTS[:1],
    ENDPOINTS[:2],
    ENDPOINTS,
    ("[2001:db8::1]:53",),
    ("soon.example:53",),
    ("soon.example:53", ENDPOINTS[0]),
    ("never.example:53", "soon.example:53"),
    (ENDPOINTS[2], "never.example:53", "soon.example:53"),
)
NAMES: Final = {"soon.example": ENDPOINTS[1:], "never.example": ()}

HEADER: Final = struct.Struct("=HI")
"""Who says it, and the how manieth it is."""

SIZES: Final = (0, 1, 20, 20, 20, 59, 61, 200)
SURE_SIZES: Final = (20, 20, 59, 61, 200)
"""Long enough for the header: no two datagrams are equal."""

BOUND: Final[tuple[tuple[int, Address], ...]] = (
    (AF_INET, ("0.0.0.0", 53)),
    (AF_INET, ("127.0.0.1", 53)),
    (AF_INET6, ("::", 53, 0, 0)),
    (AF_INET, ("192.0.2.1", 5353)),
)
HOSTS: Final = {AF_INET: ("203.0.113.1", "203.0.113.2"), AF_INET6: ("2001:db8::8", "2001:db8::9")}
LOCALS: Final = {AF_INET: ("192.0.2.1", "192.0.2.2"), AF_INET6: ("2001:db8::1", "2001:db8::2")}


class Asker(Protocol):
    """Who waits for a name."""

    def resolved(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Take the endpoints."""


@dataclass(eq=False)
class Question:
    name: Name
    asker: Asker
    since: float


@dataclass(eq=False)
class Names:
    """A resolver that answers when the world wants it to."""

    kernel: Kernel
    patience: float
    questions: list[Question] = field(default_factory=list)
    known: set[Name] = field(default_factory=set)
    answering: list[Asker] = field(default_factory=list)
    given_up: int = 0
    """Questions withdrawn before their time was over: their flows have to end."""

    def resolve(self, name: Name, asker: Asker) -> tuple[Endpoint, ...] | None:
        if name in self.known:
            return endpoints_of(name)
        self.questions.append(Question(name, asker, self.kernel.now))
        return None

    def withdraw(self, name: Name, asker: Asker) -> None:
        if asker in self.answering and not any(
            each.asker is asker for each in self.questions
        ):  # told all the same, as the resolver does
            return
        (question,) = [each for each in self.questions if each.asker is asker]
        assert question.name == name
        self.questions.remove(question)
        self.given_up += self.kernel.now < question.since + self.patience

    def answer(self, name: Name, *, fails: bool) -> None:
        """Tell everybody who asks."""
        if not fails:
            self.known.add(name)
        asking = [each for each in self.questions if each.name == name]
        self.questions = [each for each in self.questions if each.name != name]
        self.answering = [each.asker for each in asking]
        for each in asking:
            each.asker.resolved(() if fails else endpoints_of(name))
        self.answering = []

    def check(self) -> None:
        assert not self.given_up, "a name was given up too early"
        for each in self.questions:
            assert self.kernel.now < each.since + self.patience + LATE, "a name may take for ever"


def endpoints_of(name: Name) -> tuple[Endpoint, ...]:
    return tuple(endpoint_of(TargetAddress.parse(each)) for each in NAMES[name[0]])


class World:
    """Some listeners, and everybody who talks there."""

    def __init__(self, seed: int) -> None:
        dice = self.dice = random.Random(seed)
        self.kernel = Kernel(dice, self)
        self.kernel.hesitation = dice.choice((0.0, 0.05, 0.3))
        self.kernel.failing = dice.choice((0.0, 0.0, 0.03, 0.2))
        self.kernel.exhaustion = dice.choice((0.0, 0.0, 0.02, 0.2))
        self.kernel.has_gro = dice.random() < 0.9
        self.faults: list[BaseException] = []
        self.reactor = Reactor(self.faults.append, lambda: self.kernel.now)
        self.reactor._epoll.close()
        self.reactor._epoll = cast("select.epoll", self.kernel)
        tally = Tally(memoryview(bytearray(tally_bytes(1, 64))), 1, 0)
        self.table: FlowTable[Flow] = FlowTable(dice.choice((3, 6, 1000)), tally)
        self.spare_fds = dice.choice((1, 2, 5, 128))
        self.datagrams = Datagrams(self.reactor, self.table, self.on_end, self.spare_fds)
        self.evicted = 0
        """Flows that made room for others in this turn."""
        self.patience = dice.choice((3.0, 20.0))
        self.names = Names(self.kernel, self.patience)
        self.dead: set[Address] = set()
        """Endpoints where nobody is: their hosts say so."""
        self.ways: dict[Connected, Way] = {}
        self.moved: dict[Flow, float] = {}
        """When a datagram last passed."""
        self.blamed: dict[Flow, set[Cause]] = {}
        """What flows were told of their endpoints."""
        self.refusals = 0
        """Sockets, ports and watches that were refused in this turn."""
        self.ends: Counter[tuple[Stage, Cause]] = Counter()
        self.drops: Counter[Drop] = Counter()
        self.serial = 0
        self.places: list[Place] = []
        for number, (family, name) in enumerate(dice.sample(BOUND, k=dice.randint(1, 3))):
            self._listen(number, family, name)

    # -- listeners ------------------------------------------------------------------------------------

    def _listen(self, number: int, family: int, name: Address) -> None:
        """Make a listener; the third one's rule is that of the first."""
        rule, dice = f"rule-{number % 2}", self.dice
        if rule in self.table.rules:
            first = self.places[0].listener.route
            upstream, responses, idle = first.upstream, first.responses, first.idle_timeout
        else:
            upstream = self._upstream(dice.choice(TARGETS))
            responses, idle = dice.choice((0, 0, 1, 2)), dice.choice((2.0, 30.0, 150.0))
        flows = self.table.rule(rule, dice.choice((None, 1, 4)), dice.choice((None, 1, 3)))
        route = FlowRoute(rule, str(number), upstream, idle, responses, 1 << 20, flows, self.datagrams)
        port = Listening(self.kernel, family, name)
        mine = tuple(inet_pton(family, each) for each in LOCALS[AF_INET if family == AF_INET else AF_INET6])
        listener = DatagramListener(cast("socket.socket", port), route)
        self.places.append(Place(port, listener, mine, has_spare=upstream.only is None))

    def _upstream(self, targets: Sequence[str]) -> DatagramUpstream:
        resolver = cast("Resolver", self.names)
        parsed = [TargetAddress.parse(target) for target in targets]
        return DatagramUpstream(self.reactor, resolver, parsed, self.patience)

    def place_of(self, port: Listening) -> Place:
        (place,) = [place for place in self.places if place.port is port]
        return place

    def live(self) -> list[Flow]:
        """Give every flow there is."""
        return [flow for place in self.places for flow in place.listener.flows.values()]

    def talk_of(self, flow: Flow) -> Talk:
        place = self.places[int(flow.route.listener)]
        if not place.port.is_wildcard:
            return place.talk(flow.client, b"")
        (talk,) = [talk for (client, _), talk in place.talks.items() if flow.key == (client, talk.local)]
        return talk

    def way_of(self, port: Connected) -> Way:
        """Give the way that a socket belongs to, for good."""
        if port not in self.ways:
            (flow,) = [flow for flow in self.live() if cast("object", flow.connection) is port]
            talk = self.talk_of(flow)
            talk.begins(flow)
            way = self.ways[port] = Way(talk, flow, port)
            talk.ways.append(way)
        return self.ways[port]

    # -- the witness ----------------------------------------------------------------------------------

    def taken(self, port: Listening, item: Item, *, cut: bool) -> None:
        assert item.client is not None
        self.place_of(port).talk(item.client, item.local).took(item.parts, cut=cut)

    def may_cut(self, port: Listening, item: Item) -> bool:
        assert item.client is not None
        live = self.place_of(port).talk(item.client, item.local).live
        return len(item.parts) == 1 and live is not None and live.stage is Stage.RELAY

    def sent(self, port: Connected, parts: Parts) -> None:
        way = self.way_of(port)
        way.talk.sent_on(port, parts)
        self.moved[way.flow] = self.kernel.now
        if port.peer in self.dead and self.dice.random() < 0.6:
            port.icmp(errno.ECONNREFUSED, lasts=True)

    def not_sent(self, port: Connected, parts: Parts, number: int) -> None:
        self.way_of(port).talk.dropped(parts, number)

    def read(self, port: Connected, parts: Parts) -> None:
        way = self.way_of(port)
        way.talk.read(way, parts)
        self.moved[way.flow] = self.kernel.now

    def answered(self, port: Listening, parts: Parts, to: Address, local: bytes) -> None:
        self.place_of(port).talk(to, local).sent_back(parts)

    def not_answered(self, port: Listening, parts: Parts, to: Address, local: bytes, number: int) -> None:
        self.place_of(port).talk(to, local).dropped(parts, number)

    def told(self, port: Connected, number: int) -> None:
        if number in LOST:
            way = self.way_of(port)
            way.talk.lost += way.talk.place.has_spare
            self.blamed.setdefault(way.flow, set()).add(LOST[number])

    def refused(self, number: int) -> None:
        assert number
        self.refusals += 1

    def off(self, port: Port) -> None:
        """Let something arrive at the worst moment."""
        if self.dice.random() < 0.5:
            self._arrives(port)

    # -- ends -----------------------------------------------------------------------------------------

    def on_end(self, flow: Flow) -> None:
        """A flow has ended."""
        talk, cause = self.talk_of(flow), flow.cause
        assert flow not in talk.ended, "a second end"
        assert cause is not None
        assert cause in LEGAL[flow.stage], (flow.stage, cause)
        assert flow not in flow.route.flows.live
        talk.ends(flow)
        self.ends[flow.stage, cause] += 1
        self.drops.update(flow.drops or {})
        self._check_lost(talk, flow)
        if flow.stage is Stage.DIAL:
            self.names.given_up = max(0, self.names.given_up - 1)
        self._check_cause(flow, cause)

    def _check_lost(self, talk: Talk, flow: Flow) -> None:
        """Hold that a flow tells what the kernel dropped."""
        lost = (flow.drops or {}).get(Drop.RECEIVE_FULL, 0)
        if flow.stage is Stage.RELAY and (flow.cause is not Cause.ANSWERED or flow.down > 1):
            ways = [way for way in talk.ways if way.flow is flow]
            known = ways[-1].port.lost if ways else 0
            assert lost == known or (not lost and flow.attempts > len(ways)), "another socket was the last"
        else:
            assert not lost

    def _check_cause(self, flow: Flow, cause: Cause) -> None:
        """Hold that it ended for that reason."""
        moved, route = self.moved.get(flow, flow.opened), flow.route
        match cause:
            case Cause.IDLE_TIMEOUT:
                assert self.kernel.now >= moved + route.idle_timeout, "too early"
            case Cause.ENDPOINT_REFUSED | Cause.ENDPOINT_UNREACHABLE:
                assert cause in self.blamed.get(flow, set())
            case Cause.FD_LIMIT:
                assert self.refusals
            case Cause.ANSWERED:
                assert flow.down >= max(route.responses, flow.up) > 0
            case Cause.FLOW_LIMIT:
                self._check_eviction(flow, moved)
            case Cause.INTERNAL:
                assert self.kernel.bugs

    def _check_eviction(self, flow: Flow, moved: float) -> None:
        """Hold that it was the least recently used one under a cap that was reached."""
        rule = flow.route.flows
        (new,) = [each for each in self.live() if each not in each.route.flows.live]
        caps = []
        if new.route.flows is rule:
            caps.append((rule.most, list(rule.live)))
            if new.client[0] == flow.client[0]:
                same = [each for each in rule.live if each.client[0] == flow.client[0]]
                caps.append((rule.most_per_client, same))
        if len(rule.live) + 1 >= max(len(each.live) for each in self.table.rules.values()):
            others = self.table.count - len(rule.live)
            caps.append((self.table.most - others, list(rule.live)))
        assert any(
            len(others) + 1 >= most and all(moved <= self.moved.get(each, each.opened) for each in others)
            for most, others in caps
        ), "another one should have ended, or none"

    # -- what happens ---------------------------------------------------------------------------------

    def step(self) -> None:
        """Let something happen, anything."""
        acts: tuple[tuple[int, Callable[[], None]], ...] = (
            (50, self.turn),
            (30, self._client_speaks),
            (25, self._endpoint_speaks),
            (6, self._icmp),
            (6, self._time_passes),
            (4, self._name_is_told),
            (2, self._weather_turns),
            (2, self._rest),
            (1, self._curse),
        )
        weights, calls = zip(*acts, strict=True)
        (act,) = self.dice.choices(calls, weights)
        act()

    def _client_speaks(self) -> None:
        place = self.dice.choice(self.places)
        self._arrives(place.port, self._client(place), self.dice.choice(place.locals))

    def _client(self, place: Place) -> Address:
        family = AF_INET if place.port.family == AF_INET else AF_INET6
        host, port = self.dice.choice(HOSTS[family]), self.dice.choice((1000, 1001, 1002))
        return (host, port) if family == AF_INET else (host, port, 0, 0)

    def _endpoint_speaks(self) -> None:
        if talking := [port for port in self._connected() if port.heard and port.peer not in self.dead]:
            self._arrives(self.dice.choice(talking))

    def _connected(self) -> list[Connected]:
        return [port for port in self.kernel.ports.values() if isinstance(port, Connected)]

    def _arrives(self, port: Port, client: Address | None = None, local: bytes = b"") -> None:
        """Let a datagram arrive, or some, or a train."""
        sure = isinstance(port, Listening) and self.place_of(port).has_spare
        if isinstance(port, Listening) and client is None:
            client, local = self._client(self.place_of(port)), self.place_of(port).locals[0]
        size, count = self.dice.choice(SURE_SIZES if sure else SIZES), self.dice.choice((1, 1, 2, 6, 12))
        parts = [self._payload(size) for _ in range(count)]
        if self.dice.random() < 0.5 and size and count > 1:
            parts[-1] = parts[-1][: self.dice.randint(len(parts[-1]) if sure else 1, size)]
            port.arrive(parts, client, local)
        else:
            for part in parts:
                port.arrive([part], client, local)

    def _payload(self, size: int) -> bytes:
        self.serial += 1
        return HEADER.pack(0xFEED, self.serial)[:size].ljust(size, b".")

    def _icmp(self) -> None:
        if heard := [port for port in self._connected() if port.heard]:
            dead = [port for port in heard if port.peer in self.dead]
            number = self.dice.choice((*LOST, errno.EMSGSIZE, errno.EMSGSIZE, errno.EMSGSIZE))
            for port in dead or self.dice.sample(heard, k=1):
                for _ in range(self.dice.choice((1, 1, 3))):
                    port.icmp(number, lasts=number not in {errno.EHOSTUNREACH, errno.ENETUNREACH})

    def _time_passes(self) -> None:
        """Go on a little, to around a deadline, or far."""
        kernel, flows = self.kernel, self.live()
        soon = kernel.now + self.dice.uniform(0, 0.1)
        if flows and self.dice.random() < 0.6:
            flow = self.dice.choice(flows)
            idle_at = self.moved.get(flow, flow.opened) + flow.route.idle_timeout
            soon = idle_at + self.dice.choice((-0.05, 0.0, 0.05, 10.0))
        elif self.dice.random() < 0.3:
            soon = kernel.now + self.dice.uniform(0, self.patience)
        kernel.now = max(kernel.now, soon)

    def _name_is_told(self) -> None:
        if self.names.questions:
            name = self.dice.choice(self.names.questions).name
            if name[0] == "soon.example":
                fails = self.dice.random() < 0.3
                self.refusals = 0
                self.reactor.defer(partial(self.names.answer, name, fails=fails))
                self._turn()
                self._turn()
                self.check()
        elif self.dice.random() < 0.3:
            self.names.known.clear()

    def _weather_turns(self) -> None:
        """Endpoints go and come back."""
        where = endpoint_of(TargetAddress.parse(self.dice.choice((*ENDPOINTS, "[2001:db8::1]:53")))).sockaddr
        assert isinstance(where, tuple)
        {0: self.dead, 1: self.kernel.unroutable}[self.dice.randint(0, 1)].symmetric_difference_update(
            {where}
        )

    def _curse(self) -> None:
        if watched := [port for port in self._connected() if port.fd in self.kernel.watched]:
            self.kernel.cursed = self.dice.choice(watched) if self.dice.random() < 0.1 else None

    def turn(self) -> None:
        """Turn the loop once, and look at everything."""
        self.refusals = 0
        self._turn()
        self.check()

    def _turn(self) -> None:
        self.kernel.now += TURN
        self.evicted = 0
        self.reactor.turn(0.0)

    def _rest(self) -> None:
        """Turn until the loop would sleep: with peers that do nothing it must come to that."""
        kernel = self.kernel
        before, kernel.hesitation = kernel.hesitation, 0.0
        for _ in range(TURNS):
            if not any(kernel.ready()):
                break
            self.turn()
        else:
            raise AssertionError(f"the loop spins on {list(kernel.ready())}")
        kernel.hesitation = before

    def finish(self) -> None:
        """Drain, as a gateway does that stops, and end what does not end by itself."""
        self.kernel.failing = 0.0
        self._rest()
        for place in self.places:
            place.listener.drain()
            place.draining = True
        for _ in range(self.dice.choice((0, 30))):
            self.step()
        since = self.kernel.now - 2.0
        self.datagrams.cut(Cause.DRAIN, quiet_since=since)
        self.turn()
        assert all(self.moved.get(flow, flow.opened) > since for flow in self.live())
        self.datagrams.cut(Cause.DRAIN)
        self._rest()

    # -- the shadow -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Hold what is held after every turn."""
        for fault in self.faults:
            if not isinstance(fault, RuntimeError):
                raise fault
        assert len(self.faults) == self.kernel.bugs
        flows = self.live()
        assert self.table.count == len(flows) <= self.table.most
        assert len(self.reactor.timers) == len(flows), "a deadline of nobody, or nobody's deadline"
        for rule in self.table.rules.values():
            self._check_rule(list(rule.live), rule.most, rule.most_per_client)
        assert {flow for rule in self.table.rules.values() for flow in rule.live} == set(flows)
        for flow in flows:
            self._check_flow(flow)
        for place in self.places:
            for talk in place.talks.values():
                talk.check()
        self.names.check()
        open_ones = {cast("object", flow.connection) for flow in flows} - {None}
        assert open_ones == set(self._connected()), "a socket of nobody"

    def _check_rule(self, flows: list[Flow], most: int, most_per_client: int) -> None:
        assert len(flows) <= most
        assert all(count <= most_per_client for count in Counter(flow.client[0] for flow in flows).values())

    def _check_flow(self, flow: Flow) -> None:
        """Hold what is held of a flow that lives."""
        self.talk_of(flow).begins(flow)
        assert flow.cause is None
        if flow.stage is Stage.RELAY:
            assert flow.connection is not None
            assert flow.connection.fileno() in self.kernel.watched, "its answers would never be seen"
            idle_for = self.kernel.now - self.moved.get(flow, flow.opened)
            assert idle_for < flow.route.idle_timeout + LATE, "it should have ended"
            assert not flow.route.responses or flow.down < max(flow.route.responses, flow.up)

    def check_nothing_left(self) -> None:
        """Hold that the flows are gone without a trace."""
        assert not self.live()
        assert not self.table.count
        assert not self.names.questions
        assert not len(self.reactor.timers)
        for place in self.places:
            assert place.listener.newly_lost() == place.port.lost
            assert not place.port.queue
            place.listener.close()
        self.reactor.turn(0.0)
        assert not self.kernel.ports
        assert not self.kernel.watched
