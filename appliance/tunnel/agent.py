"""The agent's end of the tunnels, in one worker: a way to accept sessions that came in at a gateway.

Theory of operation
-------------------
Each worker dials by itself and carries what is opened on its data channels; workers share nothing but the
join file. An Open makes an ordinary `Session` whose client is the data channel: dialled, relayed, logged and
ended like one that a listener accepted.
"""

import secrets
from collections.abc import Sequence
from typing import Final, Protocol

from appliance.net.contact import DatagramUpstream
from appliance.net.dial import Upstream
from appliance.net.flow import ClientAddress, Flow
from appliance.net.flow_route import Datagrams, FlowRoute
from appliance.net.introduction import introduction
from appliance.net.reactor import Reactor
from appliance.net.relay import Relay
from appliance.net.resolve import Resolver
from appliance.net.session import Route, Sessions
from appliance.net.sockets import Socket
from appliance.net.transparency import Transparency
from appliance.outcome import Cause
from appliance.policy.flow_table import RuleFlows
from appliance.ruleset import ProxyProtocol
from appliance.tunnel.carried import CarriedSession, Returns
from appliance.tunnel.carried_flow import ChannelFront
from appliance.tunnel.datagram_channel import DatagramChannel, Phase
from appliance.tunnel.dialout import Target
from appliance.tunnel.home import Home
from appliance.tunnel.identity import Identity
from appliance.tunnel.reach import Reach
from appliance.values import AllowedTarget, Misread, TargetAddress
from appliance.wire.messages import Open, Welcome

MOST_ROUTES: Final = 4096

BETWEEN: Final = 0.01
"""Seconds from one gateway's first dial to the next one's: a control channel and its data channels take 4 ms
of CPU. 200 at once, on a busy machine, had some handshakes take longer than they may."""

_NOWHERE: Final = TargetAddress("127.0.0.1", 1, 1)
"""In the place of what is no target."""

CHANNEL_IDLE: Final = 10.0
"""Seconds by which a session may be idle longer here than at the gateway, whose time-out is the rule's."""

FLOW_IDLE: Final = 10.0
"""As above, for a flow."""

RECEIVE_BUFFER: Final = 4 << 20
"""Bytes that the kernel may hold of what an endpoint sends to a flow, where it sends much."""


class Journal(Protocol):
    """Who writes down how an agent fares."""

    def tunnel_up(self, home: Home, peer: str, welcome: Welcome) -> None:
        """There is a control channel."""

    def tunnel_down(self, home: Home, why: str, pause: float, *, in_order: bool) -> None:
        """A control channel has ended, or could not be made."""

    def certificate_renewed(self, agent: str, serial: str) -> None:
        """There is a new certificate."""

    def trouble(self, message: str, error: str) -> None:
        """Something an operator should know."""


class Agent:
    """The tunnels of one worker of an agent."""

    def __init__(
        self,
        reactor: Reactor,
        resolver: Resolver,
        relay: Relay,
        sessions: Sessions,
        datagrams: Datagrams,
        identities: Sequence[Identity],
        allow_to: Sequence[AllowedTarget] | None,
        journal: Journal,
        transparency: Transparency,
        *,
        instance: str,
        worker: int,
        workers: int,
    ) -> None:
        """`allow_to` is what this host's operator lets it reach, beside what the join files say."""
        self.reactor = reactor
        self.resolver = resolver
        self.journal = journal
        self._transparency = transparency
        self.instance = instance
        self.worker = worker
        self.workers = workers
        self._relay = relay
        self._sessions = sessions
        self._datagrams = datagrams
        self._allow_to = allow_to
        self._generation = 0
        self._routes: dict[tuple[object, ...], Route] = {}
        self._homes = [
            Home(self, identity, Target(gateway, identity.proxy))
            for identity in identities
            for gateway in identity.gateways
        ]
        for identity in identities:
            identity.serve(self, [home for home in self._homes if home.identity is identity])

    def start(self) -> None:
        """Dial every gateway, one after the other."""
        for number, home in enumerate(self._homes):
            home.start(number * BETWEEN)

    def next_generation(self) -> int:
        """Count a control channel."""
        self._generation += 1
        return self._generation

    def carry(self, order: Open, connection: Socket, welcome: Welcome, home: Home, returns: Returns) -> None:
        """Carry a session or flow that was opened on a data channel, whose fd is in the epoll set.

        `returns` may have the channel back.
        """
        target, reach = _target(order.to, order.protocol), None
        if target is not None:
            bounds = [self._allow_to, home.identity.allow_to, _allowed(welcome.allow_to)]
            reach = Reach(target, bounds)
        if order.protocol == "udp":
            self._carry_flow(order, connection, target, reach, home, returns)
            return
        route = self._route(order, target, reach, home)
        self.reactor.unwatch(connection.fileno())
        session = CarriedSession(route, connection, order, returns)
        if reach is None or reach.is_denied:
            session.refuse(Cause.AGENT_DENIED)
        else:
            session.start()

    def _route(self, order: Open, target: TargetAddress | None, reach: Reach | None, home: Home) -> Route:
        key = (
            order.rule,
            order.to,
            order.connect_timeout,
            order.idle_timeout,
            order.source,
            order.proxy_protocol,
            home,
            reach is None or reach.is_settled,
        )
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= MOST_ROUTES:
                self._routes.clear()
            targets = [_NOWHERE if target is None else target]  # not dialled where it is none
            upstream = Upstream(
                self.reactor, self.resolver, targets, order.connect_timeout, self._transparency_of(order)
            )
            route = Route(
                order.rule,
                str(home.target.gateway),
                upstream,
                order.idle_timeout + CHANNEL_IDLE,
                self._relay,
                self._sessions,
                home.identity.name,
                introduction(_version(order.proxy_protocol)),
            )
            if reach is not None and not reach.is_settled:
                upstream.permits = reach.permits
            else:
                self._routes[key] = route
        return route

    def _carry_flow(
        self,
        order: Open,
        connection: Socket,
        target: TargetAddress | None,
        reach: Reach | None,
        home: Home,
        returns: Returns,
    ) -> None:
        targets = [_NOWHERE if target is None else target]  # not dialled where it is none
        upstream = DatagramUpstream(
            self.reactor, self.resolver, targets, order.connect_timeout, self._transparency_of(order)
        )
        if reach is not None and not reach.is_settled:
            upstream.permits = reach.permits
        route = FlowRoute(
            order.rule,
            str(home.target.gateway),
            upstream,
            order.idle_timeout + FLOW_IDLE,
            order.responses,
            RECEIVE_BUFFER,
            self._flows_of(order.rule),
            self._datagrams,
            home.identity.name,
        )
        channel = DatagramChannel(self.reactor, connection, self._relay.view, returns, Phase.DIALLING)
        refusal = Cause.AGENT_DENIED if reach is None or reach.is_denied else None
        ChannelFront(route, channel).begin(order, _client(order.client), connection, refusal)

    def _flows_of(self, rule: str) -> RuleFlows[Flow]:
        """Give a rule's flows; those of rules beyond MOST_ROUTES are one rule's."""
        table = self._datagrams.table
        return table.rule(rule if rule in table.rules or len(table.rules) < MOST_ROUTES else "")

    def _transparency_of(self, order: Open) -> Transparency | None:
        return self._transparency if order.source == "client" else None

    def drain(self) -> None:
        """Serve what there is, and nothing new."""
        for home in self._homes:
            home.close()


def _client(text: str) -> ClientAddress:
    """Take a client's address apart, as recvfrom(2) would have given it; anything else stays as it is."""
    host, _, port = text.rpartition(":")
    number = int(port) if port.isdecimal() else 0
    return (host[1:-1], number, 0, 0) if host.startswith("[") else (host or text, number)


def _version(text: str) -> ProxyProtocol | None:
    return next((version for version in ProxyProtocol if version == text), None)


def _target(text: str, protocol: str) -> TargetAddress | None:
    try:
        target = TargetAddress.parse(text)
    except Misread:
        return None
    is_reached = not target.is_unix or protocol == "tcp"
    return target if is_reached and target.port_count == 1 else None


def _allowed(texts: list[str] | None) -> list[AllowedTarget] | None:
    """Read the gateway's list; what cannot be read allows nothing."""
    if texts is None:
        return None
    allowed = []
    for text in texts:
        try:
            allowed.append(AllowedTarget.parse(text))
        except Misread:
            continue
    return allowed


def new_instance() -> str:
    """Name this process."""
    return secrets.token_hex(16)
