"""Opening a session or flow through an agent: a ready data channel, Open, and the agent's answer.

    WAIT --a channel--> OPENING --Opened--> the session's
      ^                    |
      +--link lost---------+--Failed--> the next endpoint

Nothing of the client's is sent before Opened, so who is opened on a link that is lost until then can go to
another one. How long an endpoint may take is the agent's to watch; here it has SLACK more, for the way.
"""

from typing import Final

from appliance.net.reactor import Reactor
from appliance.net.sockets import Endpoint, Socket
from appliance.outcome import Cause
from appliance.problem import printable
from appliance.tunnel.crew import Crew
from appliance.tunnel.link import Link
from appliance.tunnel.messages import ClosedError, Messages
from appliance.tunnel.pool import Ready
from appliance.wire.messages import ANSWER, Failed, Limit, MessageError, Open, Opened, cause_of

SLACK: Final = 1.0

MOST_TRIES: Final = 4
"""How many links may be lost under one session before it has an answer."""

LONGEST_ENDPOINT: Final = 320
"""Characters of an endpoint, as the agent names it, that go into the log."""


class Opening:
    """One session's or flow's walk through the endpoints; the handler of the channel's fd meanwhile.

    Who opens says what to send (`order`), and takes what comes of it: `opened` or `failed`, once.
    """

    __slots__ = (
        "_cause",
        "_connect_timeout",
        "_crew",
        "_left",
        "_messages",
        "_reactor",
        "_to",
        "_tries",
        "attempts",
        "deadline",
        "endpoint",
        "link",
        "started",
        "waits",
    )

    def __init__(
        self, reactor: Reactor, crew: Crew, connect_timeout: float, targets: tuple[str, ...]
    ) -> None:
        self._reactor = reactor
        self._crew = crew
        self._connect_timeout = connect_timeout
        self._left = targets
        self._to = ""
        self._cause = Cause.AGENT_OFFLINE
        self._tries = 0
        self._messages: Messages | None = None
        self.link: Link | None = None
        self.attempts = 0
        """How many endpoints were opened."""
        self.endpoint: Endpoint | None = None
        self.waits = False
        """Whether a channel, or the agent's answer, is waited for."""
        self.started = reactor.now
        self.deadline = self.started + connect_timeout

    # -- what a session and a flow do their own way ---------------------------------------------------

    def order(self, to: str) -> Open:
        """Give what the agent is told."""
        raise NotImplementedError

    def opened(self, link: Link, connection: Socket, endpoint: Endpoint) -> None:
        """Take the channel, which is in the epoll set for IN: it leads to the endpoint."""
        raise NotImplementedError

    def failed(self, cause: Cause) -> None:
        """End: there is no endpoint to be had."""
        raise NotImplementedError

    # -- as the session or flow calls it --------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Whether there is another endpoint to go to."""
        return bool(self._left)

    def go(self) -> None:
        """Go to the next endpoint."""
        if not self._left:
            self._fail(self._cause)
            return
        self._to, self._left = self._left[0], self._left[1:]
        self._request()

    def _request(self) -> None:
        self.waits = True
        self.started = self._reactor.now
        self.deadline = self.started + self._connect_timeout
        if not self._crew.request(self):
            self._fail(Cause.AGENT_OFFLINE)

    def _fail(self, cause: Cause) -> None:
        self.waits = False
        self.failed(cause)

    def timed_out(self) -> None:
        """The deadline has passed: there was no channel, or no answer."""
        had_channel = self._messages is not None
        self.abandon()
        if had_channel:
            self._cause = Cause.DIAL_TIMEOUT
            self.go()
        else:
            self._fail(Cause.AGENT_OFFLINE)

    def abandon(self) -> None:
        """Close the channel, if there is one, and want none: the agent gives up what it does for it."""
        self.waits = False
        self._crew.withdraw(self)
        if self._messages is not None:
            connection = self._messages.connection
            self._reactor.forget(connection.fileno(), connection.close)
            self._messages = None

    def _give_back(self) -> None:
        """Leave the channel, on which nothing was opened, to the link."""
        assert self.link is not None
        assert self._messages is not None
        connection, self._messages = self._messages.connection, None
        self.waits = False
        self._crew.withdraw(self)
        if not self.link.keeps(connection):
            self._reactor.forget(connection.fileno(), connection.close)

    # -- as the crew calls it -------------------------------------------------------------------------

    def take(self, channel: Ready) -> None:
        """Open on a channel."""
        self.link = channel.link
        self._messages = messages = Messages(self._reactor, channel.connection, Limit.DATA)
        self._reactor.hand_over(channel.connection.fileno(), self)
        self.attempts += 1
        self.endpoint = Endpoint(0, self._to, self._to)
        self.started = self._reactor.now
        self.deadline = self.started + self._connect_timeout + SLACK
        try:
            messages.say_whole(self.order(self._to))
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
            self._fail(Cause.AGENT_OFFLINE)

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
            self._take_over(answer, self._messages.connection)
        elif isinstance(answer, Failed):
            self._give_back()
            self._cause = cause_of(answer)
            self.go()

    def _take_over(self, answer: Opened, connection: Socket) -> None:
        assert self.link is not None
        self.waits = False
        self._messages = None
        self._crew.withdraw(self)
        text = printable(answer.endpoint)[:LONGEST_ENDPOINT]  # for the log: an agent may say anything
        self.endpoint = Endpoint(0, text, text)
        self.opened(self.link, connection, self.endpoint)

    def on_fault(self) -> None:
        """End what is opened: a handler of it raised."""
        raise NotImplementedError
