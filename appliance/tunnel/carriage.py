"""Dialling through an agent: a ready data channel, Open, and the agent's answer.

    WAIT --a channel--> OPENING --Opened--> the session's
      ^                    |
      +--link lost---------+--Failed--> the next endpoint, on another channel

Nothing of the client's is sent before Opened, so a session whose link is lost until then can go to another
one. How long an endpoint may take is the agent's to watch; here it has SLACK more, for the way.
"""

from typing import Final

from appliance.net.dial import Caller
from appliance.net.reactor import Reactor
from appliance.net.session import Session
from appliance.net.sockets import Endpoint, Sealed, peer_text
from appliance.outcome import Cause
from appliance.policy.balance import RoundRobin
from appliance.ruleset import Rule
from appliance.tunnel.crew import Crew
from appliance.tunnel.link import Link, Ready
from appliance.tunnel.messages import ClosedError, Messages
from appliance.wire.messages import ANSWER, Failed, Limit, MessageError, Open, Opened, cause_of

SLACK: Final = 1.0

MOST_TRIES: Final = 4
"""How many links may be lost under one session before it has an answer."""


class ViaAgent:
    """A rule's endpoints, reached through the agents of one name: a `net.dial.Dialer`."""

    __slots__ = ("_balance", "crew", "reactor", "rule")

    def __init__(self, reactor: Reactor, crew: Crew, rule: Rule, offset: int) -> None:
        """`offset` is which port of the rule's range is dialled."""
        self.reactor = reactor
        self.crew = crew
        self.rule = rule
        self._balance = RoundRobin([str(to.at(offset)) for to in rule.to])

    def dial(self, caller: Caller) -> "Carriage":
        """Make a dialling that begins with the endpoint whose turn it is."""
        assert isinstance(caller, Session)
        return Carriage(self, caller, self._balance.order())

    def open_message(self, session: Session, to: str) -> Open:
        """Make what an agent is told of a session."""
        rule, route = self.rule, session.route
        return Open(
            session=session.known_id(),
            rule=rule.name,
            protocol="tcp",
            to=to,
            client=peer_text(session.peer),
            local=_local(session) if rule.proxy_protocol or rule.is_transparent else route.listener,
            connect_timeout=rule.connect_timeout,
            idle_timeout=rule.idle_timeout,
            proxy_protocol=rule.proxy_protocol.value if rule.proxy_protocol else "",
            source="client" if rule.is_transparent else "",
        )


def _local(session: Session) -> str:
    return peer_text(session.client.getsockname())


class Carriage:
    """One session's way through an agent: a `net.dial.Dialling`, and the handler of the channel's fd."""

    __slots__ = (
        "_caller",
        "_cause",
        "_left",
        "_messages",
        "_to",
        "_tries",
        "_via",
        "attempts",
        "deadline",
        "endpoint",
        "link",
        "started",
    )

    def __init__(self, via: ViaAgent, caller: Session, targets: tuple[str, ...]) -> None:
        self._via = via
        self._caller = caller
        self._left = targets
        self._to = ""
        self._cause = Cause.AGENT_OFFLINE
        self._tries = 0
        self._messages: Messages | None = None
        self.link: Link | None = None
        self.attempts = 0
        self.endpoint: Endpoint | None = None
        self._restart()

    def _restart(self) -> None:
        self.started = self._via.reactor.now
        self.deadline = self.started + self._via.rule.connect_timeout

    # -- as the session calls it ----------------------------------------------------------------------

    def go(self) -> None:
        """Take the next endpoint."""
        if not self._left:
            self._caller.dial_failed(self._cause)
            return
        self._to, self._left = self._left[0], self._left[1:]
        self._request()

    def _request(self) -> None:
        self._restart()
        if not self._via.crew.request(self):
            self._caller.dial_failed(Cause.AGENT_OFFLINE)

    def timed_out(self) -> None:
        """The deadline has passed: there was no channel, or no answer."""
        if self._messages is None:
            self._via.crew.withdraw(self)
            self._caller.dial_failed(Cause.AGENT_OFFLINE)
            return
        self._give_up(Cause.DIAL_TIMEOUT)
        self.go()

    def abandon(self) -> None:
        """The session has ended: leave nothing behind."""
        self._give_up(self._cause)

    # -- as the crew calls it -------------------------------------------------------------------------

    def take(self, channel: Ready) -> None:
        """Open the session on a channel."""
        self.link = channel.link
        self._messages = messages = Messages(self._via.reactor, channel.connection, Limit.DATA)
        self._via.reactor.hand_over(channel.connection.fileno(), self)
        self.attempts += 1
        self.endpoint = Endpoint(0, self._to, self._to)
        self.started = self._via.reactor.now
        self.deadline = self.started + self._via.rule.connect_timeout + SLACK
        try:
            messages.say_whole(self._via.open_message(self._caller, self._to))
        except OSError:
            self.try_again()

    def try_again(self) -> None:
        """The link, or the channel, was lost before there was an answer: take another one."""
        self._give_up(Cause.AGENT_OFFLINE)
        self.attempts -= 1
        self._tries += 1
        if self._tries < MOST_TRIES:
            self._request()
        else:
            self._caller.dial_failed(Cause.AGENT_OFFLINE)

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
            self._opened(answer, self._messages)
        elif isinstance(answer, Failed):
            self._give_up(cause_of(answer))
            self.go()

    def _opened(self, answer: Opened, messages: Messages) -> None:
        link, session = self.link, self._caller
        assert link is not None
        self._via.crew.withdraw(self)
        self._messages = None
        self.endpoint = Endpoint(0, answer.endpoint, answer.endpoint)
        session.carrier = link.sessions
        link.sessions.add(session)
        connection = messages.connection
        session.dialled(connection, self.endpoint, watched=True)
        if isinstance(connection, Sealed) and connection.pending() and session.cause is None:
            self._via.reactor.nudge(connection.fileno())

    def _give_up(self, cause: Cause) -> None:
        """Close the channel; the agent gives up what it is doing for it."""
        self._cause = cause
        self._via.crew.withdraw(self)
        if self._messages is not None:
            connection = self._messages.connection
            self._via.reactor.forget(connection.fileno(), connection.close)
            self._messages = None

    def on_fault(self) -> None:
        """End the session: its dialling raised."""
        self._caller.on_fault()
