"""A link: one agent's control channel to this worker, and the data channels that it keeps ready.

How many are kept ready follows demand. A session that finds none waits for the next one and doubles the
number; while half of them are never used, the number falls by a quarter every CALM seconds. The agent makes
up for each one that is used by itself, so that the gateway only tells how many it wants.

A channel with TLS comes back from its session, and is ready again once the agent has delivered everything and
says so. What comes back is kept beside the number that is wanted, and closed when it was not needed for CALM
seconds: so sessions that come and go, however many at once, cost no handshakes.
"""

import hashlib
import hmac
from typing import TYPE_CHECKING, Final, Protocol

from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.sockets import Sealed, Socket
from appliance.outcome import Cause
from appliance.tunnel.messages import ClosedError, Messages
from appliance.tunnel.returning import Delivering, Returning, has_more
from appliance.wire.messages import (
    FROM_AGENT,
    Attach,
    Bye,
    Hello,
    MessageError,
    Ping,
    Pong,
    Renew,
    Renewed,
    Want,
    Welcome,
)

if TYPE_CHECKING:
    from appliance.net.session import Session
    from appliance.tunnel.crew import Crew

FIRST_READY: Final = 2
MOST_READY: Final = 256
"""Data channels kept ready for one link."""

MOST_SPARE: Final = 64
"""Channels taken beside those that are wanted: the agent may have been making them when the number fell."""

CALM: Final = 10.0
"""Seconds after which a number of ready channels that was not needed falls."""

OLDEST: Final = 600.0
"""Seconds that a ready channel is kept: a NAT on the way forgets one that is silent."""


def proof_of(secret: str, link: str, number: int) -> str:
    """Show that a data channel belongs to a link (HMAC-SHA256, RFC 2104)."""
    text = f"attach {link} {number}".encode()
    return hmac.new(bytes.fromhex(secret), text, hashlib.sha256).hexdigest()


class Carried(Protocol):
    """A flow that a link carries."""

    def end(self, cause: Cause) -> None:
        """End it."""


class Reports(Protocol):
    """Who is told of links."""

    def lost(self, link: "Link", why: str, *, in_order: bool) -> None:
        """A link has ended."""

    def renew(self, link: "Link", request: str) -> None:
        """An agent wants a new certificate."""


class Ready:
    """A data channel on which nothing has been opened yet."""

    __slots__ = ("connection", "is_new", "link", "made")

    def __init__(self, link: "Link", connection: Socket, *, is_new: bool) -> None:
        self.link = link
        self.connection = connection
        self.is_new = is_new
        """Nothing was opened on it ever. The others the agent does not count among those that are wanted."""
        self.made = link.reactor.now

    def on_event(self, events: int) -> None:  # noqa: ARG002  the agent has nothing to say: any event is its end
        """The agent, or something on the way, has closed it."""
        self.link.ready.remove(self)
        self.close()

    def on_fault(self) -> None:
        """Close it: a handler raised."""
        self.close()

    def close(self) -> None:
        """Close it."""
        self.link.reactor.forget(self.connection.fileno(), self.connection.close)


class Link:
    """The gateway's side of a control channel; the handler of its fd."""

    def __init__(
        self,
        reactor: Reactor,
        crew: "Crew",
        hello: Hello,
        serial: str,
        peer: str,
        messages: Messages,
        heartbeat: float,
        reports: Reports,
        *,
        name: str,
        secret: str,
    ) -> None:
        self.reactor = reactor
        self.crew = crew
        self.hello = hello
        self.serial = serial
        """Of the certificate that the agent has shown."""
        self.peer = peer
        self.name = name
        """`Welcome.link`."""
        self.secret = secret
        self.since = self.heard = reactor.now
        """`heard`: when it answered last. That it can be heard shows one direction, its answers show both."""
        self.rtt: float | None = None
        self.ready: list[Ready] = []
        self._returning: set[Returning] = set()
        self.sessions: set[Session] = set()
        """Those that it carries."""
        self.flows: set[Carried] = set()
        self.want = FIRST_READY
        self.used = 0.0
        """When a channel was taken last: of links that are loaded alike, the one that was left out longest
        is next."""
        self.is_over = False
        self.is_leaving = False
        """The agent has said Bye: it serves what it has, and nothing new."""
        self._messages = messages
        self._heartbeat = heartbeat
        self._reports = reports
        self._numbers: set[int] = set()
        self._lowest_number = 0
        self._ping = 0
        self._ping_sent = 0.0
        self._least_ready = 0
        self._calm_since = reactor.now
        self._slot = reactor.arm(reactor.now + heartbeat, self)

    @property
    def load(self) -> int:
        """How many sessions and flows it carries."""
        return len(self.sessions) + len(self.flows)

    @property
    def is_fresh(self) -> bool:
        """Whether it was heard of lately enough to be given sessions before others."""
        return self.reactor.now - self.heard < 1.5 * self._heartbeat

    @property
    def is_full(self) -> bool:
        """Whether more channels are ready than an agent that does as it is told could have."""
        return sum(channel.is_new for channel in self.ready) >= self.want + MOST_SPARE

    # -- the control channel --------------------------------------------------------------------------

    def say(self, message: Want | Pong | Ping | Bye | Renewed | Welcome) -> None:
        """Send a message; a connection that is broken ends the link."""
        try:
            self._messages.say(message)
        except OSError as error:
            self.end(str(error))

    def on_event(self, events: int) -> None:
        """Take what the agent says."""
        try:
            if events & OUT:
                self._messages.on_room()
            if events & ~OUT:
                for message in self._messages.some(FROM_AGENT, self):
                    self._heard(message)
        except ClosedError:
            self.end("the agent closed", in_order=self.is_leaving)
        except MessageError as wrong:
            self.end(f"protocol: {wrong}")
        except OSError as error:  # a process that ends says no goodbye of TLS's
            self.end(error.strerror or str(error), in_order=self.is_leaving)

    def _heard(self, message: object) -> None:
        match message:
            case Ping(number=number):
                self.say(Pong(number))
            case Pong(number=number):
                self.heard = self.reactor.now
                if number == self._ping:
                    self.rtt = self.reactor.now - self._ping_sent
            case Bye():
                self.is_leaving = True
            case Renew(request=request):
                self._reports.renew(self, request)
            case _:
                raise MessageError("a second Hello")

    def on_deadline(self, now: float) -> None:
        """Send the next Ping, or give up on an agent that answers none."""
        if self.is_over:
            return
        if self._is_silent(now):
            self.on_event(IN)  # where this worker is behind with its events, the answer may be there
        if self._is_silent(now):
            self.end("no heartbeat")
        if self._has_ended():
            return
        self._ping += 1
        self._ping_sent = now
        self.say(Ping(self._ping))
        self._look_at_pool(now)
        if not self._has_ended():
            silent_at = self.heard + 2 * self._heartbeat
            self._slot = self.reactor.arm(min(now + self._heartbeat, silent_at), self)

    def _is_silent(self, now: float) -> bool:
        return now >= self.heard + 2 * self._heartbeat

    def _has_ended(self) -> bool:
        return self.is_over

    def on_fault(self) -> None:
        """End: a handler of this link raised."""
        self.end("internal")

    def end(self, why: str, *, in_order: bool = False) -> None:
        """Close the control channel and what is ready; sessions go on."""
        if self.is_over:
            return
        self.is_over = True
        self.reactor.timers.cancel(self._slot, self)
        self.reactor.forget(self._messages.connection.fileno(), self._messages.connection.close)
        for channel in self.ready:
            channel.close()
        for returning in self._returning:
            returning.give_up()
        self.ready.clear()
        self._returning.clear()
        self._reports.lost(self, why, in_order=in_order)
        self.crew.lost(self)

    # -- data channels --------------------------------------------------------------------------------

    def admits(self, attach: Attach) -> bool:
        """Say whether a data channel is this link's, and new."""
        if self.is_over or not hmac.compare_digest(
            proof_of(self.secret, self.name, attach.number), attach.proof
        ):
            return False
        if attach.number < self._lowest_number or attach.number in self._numbers:
            return False
        self._numbers.add(attach.number)
        if len(self._numbers) > 4 * MOST_READY:
            self._lowest_number = sorted(self._numbers)[2 * MOST_READY]
            self._numbers = {number for number in self._numbers if number >= self._lowest_number}
        return True

    def attach(self, connection: Socket, *, is_new: bool = True) -> None:
        """Take a data channel, which is in the epoll set, into the pool; or use it at once."""
        channel = Ready(self, connection, is_new=is_new)
        self.reactor.hand_over(connection.fileno(), channel)
        if not self.crew.has_use_for(channel):
            self.ready.append(channel)

    def takes_back(self, connection: Socket) -> bool:
        """Take a channel whose session has ended in order here; False: it is of no use any more."""
        return Delivering(self.reactor, connection, self).start()

    def keeps(self, connection: Socket) -> bool:
        """Take a channel on which the agent could open nothing; False: it is of no use any more."""
        if not isinstance(connection, Sealed) or has_more(connection) or not self._has_room():
            return False
        self.attach(connection, is_new=False)
        return True

    def awaits(self, returning: Returning) -> bool:
        """Say whether a channel is wanted back (`returning.Returns`)."""
        if not self._has_room():
            return False
        self._returning.add(returning)
        return True

    def came_back(self, returning: Returning, connection: Socket) -> None:
        """Have a channel again."""
        self._returning.discard(returning)
        self.attach(connection, is_new=False)

    def went(self, returning: Returning) -> None:
        """Wait for a channel no longer."""
        self._returning.discard(returning)

    def _has_room(self) -> bool:
        return not (self.is_over or self.is_leaving) and len(self.ready) + len(self._returning) < MOST_READY

    def take(self) -> Ready | None:
        """Give the youngest channel that came back; else the youngest one, which the agent makes up for."""
        if not self.ready:
            return None
        channel = next((each for each in reversed(self.ready) if not each.is_new), self.ready[-1])
        self.ready.remove(channel)
        self.used = self.reactor.now
        self._least_ready = min(self._least_ready, len(self.ready))
        return channel

    def ask_for(self, waiting: int) -> None:
        """Ask for more: somebody had to wait."""
        self._calm_since = self.reactor.now
        self._least_ready = 0
        want = min(MOST_READY, max(2 * self.want, self.want + waiting))
        if self.want < waiting + len(self.ready) and want != self.want:
            self.want = want
            self.say(Want(want))

    def _look_at_pool(self, now: float) -> None:
        while self.ready and now - self.ready[0].made > OLDEST:
            self.ready.pop(0).close()
        if now - self._calm_since < CALM:
            return
        self._calm_since = now
        if self.want > FIRST_READY and self._least_ready > self.want // 2:
            self.want = max(FIRST_READY, self.want * 3 // 4)
            self.say(Want(self.want))
        # Some may have closed by themselves since.
        self._close_spare(min(self._least_ready, len(self.ready)) - self.want)
        self._least_ready = len(self.ready)

    def _close_spare(self, count: int) -> None:
        """Close so many, the oldest first of those that came back: the others the agent makes up for."""
        for channel in sorted(self.ready, key=lambda channel: channel.is_new)[: max(count, 0)]:
            self.ready.remove(channel)
            channel.close()
