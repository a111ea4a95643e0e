"""Flows through an agent: as `net.contact`, on a data channel for each.

The client's datagrams are held by the flow until the agent has answered Opened: one round trip, in which a
dial that fails can still go to another endpoint or agent.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from appliance.net.flow import Flow
from appliance.net.reactor import Reactor
from appliance.net.sockets import Endpoint, Socket, peer_text
from appliance.outcome import Cause
from appliance.policy.balance import RoundRobin
from appliance.ruleset import Rule
from appliance.tunnel.crew import Crew
from appliance.tunnel.datagram_channel import DatagramChannel, Phase
from appliance.tunnel.link import Link
from appliance.tunnel.opening import Opening
from appliance.wire.messages import Open

if TYPE_CHECKING:
    from appliance.net.contact import Caller


class FlowsViaAgent:
    """A rule's endpoints, as flows reach them through the agents of one name: a `DatagramUpstream`."""

    __slots__ = ("_balance", "buffer", "connect_timeout", "crew", "next_id", "only", "reactor", "rule")

    def __init__(
        self,
        reactor: Reactor,
        crew: Crew,
        rule: Rule,
        offset: int,
        next_id: Callable[[float], str],
        buffer: memoryview,
    ) -> None:
        """`offset` is which port of the rule's range is dialled; `buffer` is what channels read into."""
        self.reactor = reactor
        self.crew = crew
        self.rule = rule
        self.next_id = next_id
        self.buffer = buffer
        self.connect_timeout = rule.connect_timeout
        self.only: Endpoint | None = None
        """There is no address that a flow could be connected to from here."""
        self._balance = RoundRobin([str(to.at(offset)) for to in rule.to])

    def contact(self, caller: "Caller") -> "FlowCarriage":
        """Begin a flow's way with the endpoint whose turn it is."""
        assert isinstance(caller, Flow)
        return FlowCarriage(self, caller, self._balance.order())


class FlowCarriage(Opening):
    """One flow's walk through the endpoints: a `net.contact.Way`."""

    __slots__ = ("_flow", "_upstream")

    def __init__(self, upstream: FlowsViaAgent, flow: Flow, targets: tuple[str, ...]) -> None:
        super().__init__(upstream.reactor, upstream.crew, upstream.connect_timeout, targets)
        self._upstream = upstream
        self._flow = flow

    def order(self, to: str) -> Open:
        """Give what the agent is told of the flow."""
        rule, flow = self._upstream.rule, self._flow
        flow.id = flow.id or self._upstream.next_id(flow.opened)
        return Open(
            session=flow.id,
            rule=rule.name,
            protocol="udp",
            to=to,
            client=peer_text(flow.client),
            local=flow.route.listener,
            connect_timeout=rule.connect_timeout,
            idle_timeout=rule.flow_idle_timeout,
            responses=rule.responses or 0,
            source="client" if rule.is_transparent else "",
        )

    def opened(self, link: Link, connection: Socket, endpoint: Endpoint) -> None:
        """Give the flow what it takes for a datagram socket."""
        reactor = self._upstream.reactor
        link.flows.add(self._flow)
        reactor.unwatch(connection.fileno())  # the flow watches its socket by itself
        channel = DatagramChannel(reactor, connection, self._upstream.buffer, link, Phase.OPEN)
        self._flow.reached(cast("Socket", channel), endpoint)
        channel.look()

    def failed(self, cause: Cause) -> None:
        """End the flow."""
        self._flow.unreached(cause)

    def go(self) -> None:
        """Go to the next endpoint, perhaps on another link."""
        self._leave_link()
        super().go()

    def abandon(self) -> None:
        """The flow has ended, or will wait no longer: leave nothing behind."""
        super().abandon()
        self._leave_link()

    def _leave_link(self) -> None:
        if self.link is not None:
            self.link.flows.discard(self._flow)

    def eject(self, endpoint: Endpoint) -> None:
        """Note nothing: which endpoints are there is the agent's to know."""

    def answered(self, endpoint: Endpoint) -> None:
        """Note nothing, as above."""

    def on_fault(self) -> None:
        """End the flow: its dialling raised."""
        self._flow.on_fault()
