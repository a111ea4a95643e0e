"""A control channel's data channels, on the agent: some being made, some ready.

`want` of them are kept, MOST_READY at the most whatever the gateway asks for; one that is used is made up for
soon. Those that come back from their sessions are kept beside them, until the gateway closes what it has not
needed for a while. They do not count: while its client is slow to take the last bytes, a session goes on at
the gateway, which cannot use the channel yet. Those that cannot be made are tried again after a pause, while
the control channel lives.
"""

import random
from typing import TYPE_CHECKING, Final

from appliance.net.reactor import IN
from appliance.net.sealed import END
from appliance.net.sockets import DONTWAIT, Endpoint, Socket
from appliance.tunnel.backoff import Backoff
from appliance.tunnel.link import proof_of
from appliance.tunnel.messages import ClosedError, Messages
from appliance.tunnel.pool import MOST_READY
from appliance.tunnel.returning import Returning
from appliance.wire.messages import OPEN, VERSION, Attach, Limit, MessageError, Open, Welcome
from appliance.wire.plain import prelude

if TYPE_CHECKING:
    from appliance.tunnel.uplink import Uplink

MOST_AT_ONCE: Final = 64
"""Data channels that are made at the same time where somebody may be waiting for them."""

FEW_AT_ONCE: Final = 4
"""Where nobody is: the sessions that there are want their turn."""

LATER: Final = 0.05
"""Seconds after which a channel that was used is made up for, where there are others."""


class Supply:
    """The data channels of one control channel."""

    __slots__ = (
        "_at_once",
        "_back",
        "_backoff",
        "_is_over",
        "_is_pausing",
        "_making",
        "_number",
        "_ready",
        "_returning",
        "_slot",
        "_uplink",
        "_want",
        "_welcome",
    )

    def __init__(self, uplink: "Uplink", welcome: Welcome) -> None:
        self._uplink = uplink
        self._welcome = welcome
        self._want = min(welcome.ready, MOST_READY)
        self._making: set[Making] = set()
        self._ready: set[Waiting] = set()
        """Those that had no session yet."""
        self._returning: set[Returning] = set()
        self._back: set[Waiting] = set()
        """Those that had."""
        self._at_once = MOST_AT_ONCE
        self._number = 0
        self._is_over = False
        self._slot: int | None = None
        self._is_pausing = False
        """One could not be made, and the next try is not due yet."""
        self._backoff = Backoff(random.random)

    def want(self, ready: int) -> None:
        """Keep so many."""
        self._want = min(ready, MOST_READY)
        self._hurry()

    def _hurry(self) -> None:
        """Make what is missing, all of it at once: somebody may be waiting."""
        self._at_once = MOST_AT_ONCE
        self.fill()

    def fill(self) -> None:
        """Make what is missing."""
        while self._may_make():  # asked each time: one that is made, or fails, may be so at once
            making = Making(self)
            self._making.add(making)
            making.go()

    def _may_make(self) -> bool:
        if self._is_over or self._is_pausing or len(self._making) >= self._at_once:
            return False
        return len(self._ready) + len(self._making) < self._want

    # -- as those that are made call it ---------------------------------------------------------------

    def attach(self) -> Attach:
        """Make the first message of the next data channel."""
        self._number += 1
        proof = proof_of(self._welcome.secret, self._welcome.link, self._number)
        return Attach(version=VERSION, link=self._welcome.link, number=self._number, proof=proof)

    @property
    def uplink(self) -> "Uplink":
        """The control channel."""
        return self._uplink

    @property
    def is_encrypted(self) -> bool:
        """Whether data channels are."""
        return self._welcome.encryption != "none"

    @property
    def prelude(self) -> bytes:
        """What a data channel that is not encrypted begins with."""
        return prelude(self._welcome.worker)

    @property
    def worker(self) -> int:
        """Which of the gateway's workers they belong to."""
        return self._welcome.worker

    def made(self, making: "Making", connection: Socket) -> None:
        """One is ready."""
        self._making.discard(making)
        self._backoff.reset()
        self._take(connection, self._ready)
        self.fill()

    def not_made(self, making: "Making") -> None:
        """One could not be made: wait a while."""
        self._making.discard(making)
        self._pause()

    def _pause(self) -> None:
        if not self._is_over and not self._is_pausing:
            self._is_pausing = True
            self._disarm()  # it may be due after LATER
            self._fill_after(self._backoff.next())

    def _disarm(self) -> None:
        if self._slot is not None:
            self._uplink.reactor.timers.cancel(self._slot, self)
            self._slot = None

    def _fill_after(self, pause: float) -> None:
        if self._slot is None:
            reactor = self._uplink.reactor
            self._slot = reactor.arm(reactor.now + pause, self)

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  as the timers call it
        """Make what is missing, at leisure while there is one ready."""
        self._slot = None
        self._is_pausing = False
        self._at_once = FEW_AT_ONCE if self._ready else MOST_AT_ONCE
        self.fill()

    def opened(self, waiting: "Waiting", order: Open) -> None:
        """One is used."""
        is_first = waiting in self._ready
        self._forget(waiting)
        self._uplink.carry(order, waiting.messages.connection, self._welcome, self)
        if not is_first:
            return
        if len(self._ready) + len(self._making) <= self._want // 4:
            self._hurry()
        else:
            # A handshake takes a millisecond of both ends: not while this session's first bytes are due.
            self._fill_after(LATER)

    # -- as the sessions call it ----------------------------------------------------------------------

    def takes_back(self, connection: Socket) -> bool:
        """Take a channel whose session has ended, and tell the gateway; False: close it."""
        if not self._has_room():
            return False
        try:
            connection.send(END, DONTWAIT)
        except OSError:  # no room is none that a channel without a session should have to wait for
            return False
        self._take(connection, self._back)
        return True

    def keeps(self, connection: Socket) -> bool:
        """Take a channel on which nothing was opened, and that is not watched; False: close it."""
        if not self._has_room():
            return False
        waiting = Waiting(self, connection)
        try:
            self._uplink.reactor.watch(connection.fileno(), IN, waiting)
        except OSError:  # ENOSPC, ENOMEM: fs.epoll.max_user_watches (epoll(7))
            return False
        self._back.add(waiting)
        return True

    def awaits(self, returning: Returning) -> bool:
        """Say whether a flow's channel is wanted back (`returning.Returns`)."""
        if not self._has_room():
            return False
        self._returning.add(returning)
        return True

    def came_back(self, returning: Returning, connection: Socket) -> None:
        """Have a channel again."""
        self._returning.discard(returning)
        self._take(connection, self._back)

    def went(self, returning: Returning) -> None:
        """Wait for a channel no longer."""
        self._returning.discard(returning)

    def _has_room(self) -> bool:
        return not self._is_over and len(self._back) + len(self._returning) < MOST_READY

    def _take(self, connection: Socket, where: "set[Waiting]") -> None:
        waiting = Waiting(self, connection)
        where.add(waiting)
        self._uplink.reactor.hand_over(connection.fileno(), waiting)

    def _forget(self, waiting: "Waiting") -> None:
        self._ready.discard(waiting)
        self._back.discard(waiting)

    def closed(self, waiting: "Waiting") -> None:
        """The gateway, or something on the way, has closed one that was ready."""
        is_first = waiting in self._ready
        self._forget(waiting)
        if is_first and len(self._ready) + len(self._making) < self._want:
            self._pause()

    def leave(self) -> None:
        """Make no more; those that are ready may be used yet."""
        self._is_over = True
        for making in tuple(self._making):
            making.abandon()
        self._making.clear()
        for returning in self._returning:
            returning.give_up()
        self._returning.clear()

    def close(self) -> None:
        """Close those that are not used."""
        self.leave()
        self._disarm()
        for waiting in (*self._ready, *self._back):
            waiting.close()
        self._ready.clear()
        self._back.clear()

    def on_fault(self) -> None:
        """A fault has been reported; the next try may go well."""


class Making:
    """A data channel that is being made."""

    __slots__ = ("_dialout", "_supply")

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self._dialout = supply.uplink.dialout(
            self, supply.worker, prelude=None if supply.is_encrypted else supply.prelude
        )

    def go(self) -> None:
        """Begin."""
        self._dialout.go()

    def reached(self, connection: Socket, endpoint: Endpoint) -> None:  # noqa: ARG002  it is the uplink's
        """The gateway is there: say whose channel this is."""
        reactor = self._supply.uplink.reactor
        try:
            Messages(reactor, connection, Limit.DATA).say_whole(self._supply.attach())
        except OSError:
            reactor.forget(connection.fileno(), connection.close)
            self._supply.not_made(self)
            return
        self._supply.made(self, connection)

    def unreached(self, why: str) -> None:  # noqa: ARG002  the control channel's end will tell
        """It could not be made."""
        self._supply.not_made(self)

    def abandon(self) -> None:
        """Give it up."""
        self._dialout.abandon()


class Waiting:
    """A data channel that is ready; the handler of its fd."""

    __slots__ = ("_supply", "messages")

    def __init__(self, supply: Supply, connection: Socket) -> None:
        self._supply = supply
        self.messages = Messages(supply.uplink.reactor, connection, Limit.DATA)

    def on_event(self, events: int) -> None:  # noqa: ARG002  what there is, reading tells
        """Take the gateway's Open, or see that it has closed."""
        try:
            order = self.messages.take(OPEN)
        except (ClosedError, MessageError, OSError):
            self.on_fault()
            return
        if order is not None:
            self._supply.opened(self, order)
        else:  # all that a gateway may have sent is the ticket of this session
            self._supply.uplink.home.learn(self.messages.connection)

    def close(self) -> None:
        """Close it."""
        connection = self.messages.connection
        self._supply.uplink.reactor.forget(connection.fileno(), connection.close)

    def on_fault(self) -> None:
        """Close it, and have it made up for: it is of no use, or its handler raised."""
        self.close()
        self._supply.closed(self)
