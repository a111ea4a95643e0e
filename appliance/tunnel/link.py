"""A link: one agent's control channel to this worker, and the data channels that belong to it.

A data channel is ready (`pool`), carries a session or flow, or is on its way back from one (`returning`).
"""

import hashlib
import hmac
from typing import TYPE_CHECKING, Protocol

from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.sockets import Sealed, Socket
from appliance.outcome import Cause
from appliance.tunnel.messages import ClosedError, Messages
from appliance.tunnel.pool import MOST_READY, Pool, Ready
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
        self.pool = Pool(reactor.now)
        self._returning: set[Returning] = set()
        self.sessions: set[Session] = set()
        """Those that it carries."""
        self.flows: set[Carried] = set()
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
        self._slot = reactor.arm(reactor.now + heartbeat, self)

    @property
    def load(self) -> int:
        """How many sessions and flows it carries."""
        return len(self.sessions) + len(self.flows)

    @property
    def is_fresh(self) -> bool:
        """Whether it was heard of lately enough to be given sessions before others."""
        return self.reactor.now - self.heard < 1.5 * self._heartbeat

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
        if self.pool.look(now):
            self.say(Want(self.pool.want))
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
        self.pool.close()
        for returning in self._returning:
            returning.give_up()
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
            self.pool.put(channel)

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
        is_used = not (self.is_over or self.is_leaving)
        return is_used and len(self.pool.back) + len(self._returning) < MOST_READY

    def take(self) -> Ready | None:
        """Give a channel that is ready."""
        channel = self.pool.take()
        if channel is not None:
            self.used = self.reactor.now
        return channel

    def ask_for(self, waiting: int) -> None:
        """Ask for more: somebody had to wait."""
        if self.pool.wants_more(waiting, self.reactor.now):
            self.say(Want(self.pool.want))
