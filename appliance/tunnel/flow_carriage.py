"""A flow's way to its endpoint through an agent: as `net.contact`, on a data channel of its own.

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
from appliance.tunnel.carriage import MOST_TRIES, SLACK
from appliance.tunnel.crew import Crew
from appliance.tunnel.datagram_channel import DatagramChannel
from appliance.tunnel.link import Ready
from appliance.tunnel.messages import ClosedError, Messages
from appliance.wire.messages import ANSWER, Failed, Limit, MessageError, Open, Opened, cause_of

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
        buffer: bytearray,
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


class FlowCarriage:
    """One flow's walk through the endpoints; the handler of the channel's fd until it is opened."""

    __slots__ = (
        "_cause",
        "_flow",
        "_left",
        "_messages",
        "_ready",
        "_to",
        "_tries",
        "_upstream",
        "_waits",
        "attempts",
        "deadline",
    )

    def __init__(self, upstream: FlowsViaAgent, flow: Flow, targets: tuple[str, ...]) -> None:
        self._upstream = upstream
        self._flow = flow
        self._left = targets
        self._to = ""
        self._cause = Cause.AGENT_OFFLINE
        self._tries = 0
        self._messages: Messages | None = None
        self._ready: Ready | None = None
        self._waits = False
        self.attempts = 0
        self.deadline = 0.0

    # -- as the flow calls it -------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Whether there is another endpoint to go to."""
        return bool(self._left)

    @property
    def waits(self) -> bool:
        """Whether a channel, or the agent's answer, is waited for."""
        return self._waits

    def go(self) -> None:
        """Go to the next endpoint; the flow is told, perhaps at once."""
        if not self._left:
            self._waits = False
            self._flow.unreached(self._cause)
            return
        self._to, self._left = self._left[0], self._left[1:]
        self._request()

    def _request(self) -> None:
        self._waits = True
        self.deadline = self._upstream.reactor.now + self._upstream.connect_timeout
        if not self._upstream.crew.request(self):
            self._waits = False
            self._flow.unreached(Cause.AGENT_OFFLINE)

    def timed_out(self) -> None:
        """There was no channel, or no answer."""
        had_channel = self._messages is not None
        self.abandon()
        if had_channel:
            self._cause = Cause.DIAL_TIMEOUT
            self.go()
        else:
            self._flow.unreached(Cause.AGENT_OFFLINE)

    def abandon(self) -> None:
        """The flow has ended, or will wait no longer: leave nothing behind."""
        self._waits = False
        self._upstream.crew.withdraw(self)
        if self._ready is not None:
            self._ready.link.flows.discard(self._flow)
        if self._messages is not None:
            connection = self._messages.connection
            self._upstream.reactor.forget(connection.fileno(), connection.close)
            self._messages = None

    def eject(self, endpoint: Endpoint) -> None:
        """Note nothing: which endpoints are there is the agent's to know."""

    def answered(self, endpoint: Endpoint) -> None:
        """Note nothing, as above."""

    # -- as the crew calls it -------------------------------------------------------------------------

    def take(self, channel: Ready) -> None:
        """Open the flow on a channel."""
        upstream, flow = self._upstream, self._flow
        self._ready = channel
        self._messages = messages = Messages(upstream.reactor, channel.connection, Limit.DATA)
        upstream.reactor.hand_over(channel.connection.fileno(), self)
        self.attempts += 1
        self.deadline = upstream.reactor.now + upstream.connect_timeout + SLACK
        flow.id = flow.id or upstream.next_id(flow.opened)
        rule, route = upstream.rule, flow.route
        order = Open(
            session=flow.id,
            rule=rule.name,
            protocol="udp",
            to=self._to,
            client=peer_text(flow.client),
            local=route.listener,
            connect_timeout=rule.connect_timeout,
            idle_timeout=rule.flow_idle_timeout,
            responses=rule.responses or 0,
            source="client" if rule.is_transparent else "",
        )
        try:
            messages.say_whole(order)
        except OSError:
            self.try_again()

    def try_again(self) -> None:
        """The link, or the channel, was lost before there was an answer: take another one."""
        self.abandon()
        self.attempts -= 1
        self._tries += 1
        if self._tries < MOST_TRIES:
            self._request()
        else:
            self._flow.unreached(Cause.AGENT_OFFLINE)

    # -- the channel ----------------------------------------------------------------------------------

    def on_event(self, events: int) -> None:  # noqa: ARG002  what there is, reading tells
        """Take the agent's answer."""
        assert self._messages is not None
        try:
            answer = self._messages.take(ANSWER)
        except (ClosedError, MessageError, OSError):
            self.try_again()
            return
        if isinstance(answer, Opened):
            self._opened(answer, self._messages.connection)
        elif isinstance(answer, Failed):
            self.abandon()
            self._cause = cause_of(answer)
            self.go()

    def _opened(self, answer: Opened, connection: Socket) -> None:
        upstream, ready = self._upstream, self._ready
        assert ready is not None
        self._waits = False
        self._messages = None
        upstream.crew.withdraw(self)
        ready.link.flows.add(self._flow)
        # The flow watches its socket by itself.
        upstream.reactor.unwatch(connection.fileno())
        channel = DatagramChannel(upstream.reactor, connection, upstream.buffer)
        self._flow.reached(cast("Socket", channel), Endpoint(0, answer.endpoint, answer.endpoint))
        channel.look()

    def on_fault(self) -> None:
        """End the flow: its dialling raised."""
        self._flow.on_fault()
