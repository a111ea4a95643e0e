"""One UDP flow: a client of a listener, and the socket of its own that its endpoint sees.

Theory of operation
-------------------
UDP has no connections: a flow is what a client (address and port) sends to a listener, and what comes back.
Its endpoint socket is connected, so the kernel hands it only what that endpoint sends to it, tells it of ICMP
errors, and its fd finds the flow without a look-up. What comes from the client arrives at the listener's
socket, which all its clients share; the listener finds the flow by the client's address (`net.datagram`).

    client --> listener's socket --up--> the flow's socket --> endpoint
    client <-- listener's socket <-down-- the flow's socket <-- endpoint

Nothing is held: a datagram is received and sent in one go, or dropped and counted by its cause. What the
kernel holds in the receive buffers is all there is to smooth a burst, and it drops when they are full, which
is how UDP pushes back. The one exception is a flow whose endpoint's name is being resolved.

A flow ends when nothing has passed either way for its idle time-out; when it has had its answers
(`responses`); when it is the least recently used one and there is no room; or when its endpoint is gone, as
far as that can be told. An error that ICMP brings belongs to an earlier datagram: the kernel reports it at
the next system call on the socket, which may be the sending of a datagram that has nothing to do with it, and
does not send that one. While a flow has had no answer, and its rule has another endpoint, it goes on there
and sends its last datagram again; otherwise it ends, and the datagram at hand begins a new one.
"""

from collections.abc import Callable, Hashable
from typing import Final, Protocol

from appliance.net.burst import Burst
from appliance.net.contact import Way, connected
from appliance.net.datagram_sockets import (
    drop_cause,
    endpoint_lost,
    grow_receive_buffer,
    kernel_drops,
    queued_errors,
    receive_buffer_of,
)
from appliance.net.flow_route import FlowRoute
from appliance.net.flow_trains import take_trains
from appliance.net.reactor import IN
from appliance.net.sockets import Endpoint, Socket
from appliance.net.source import Source
from appliance.net.trains import RUN, Sense
from appliance.outcome import Cause, Drop, Stage

ClientAddress = tuple[str, int] | tuple[str, int, int, int]
"""As recvfrom(2) gives it."""

# Constants, because looking a member up in an Enum costs 0.1 us (CPython 3.11: through a descriptor).
DIAL: Final = Stage.DIAL
RELAY: Final = Stage.RELAY
ANSWERED: Final = Cause.ANSWERED

_ONCE: Final = range(1)

MOST_READS: Final = 32
"""Datagrams of one flow in a turn at the most: the others want their turn, too."""

STEADY: Final = 4
"""So many answers make it worth to find out how often to read at an event (`net.burst`). Where a number of
them ends the flow, each event is read once, so that the last one is known."""

BUSY: Final = 8
LARGE: Final = 8192
"""A flow that has so many datagrams to read at once, or one of so many bytes, gets the receive buffer that
its rule asks for."""

LONGEST_WAIT: Final = 60.0
"""Seconds between two looks at a deadline, as for sessions (`net.session`)."""

MOST_HELD: Final = 1 << 16
"""Bytes a flow holds while its endpoint's name is being resolved: one datagram of any size, or several."""

MOST_HELD_DATAGRAMS: Final = 64

MOST_HELD_BY_ALL: Final = 16 << 20
"""Bytes that all flows of a worker hold: a name server that is down must not cost memory for each client."""


class Front(Protocol):
    """A flow's listener, as the flow sees it."""

    route: FlowRoute
    flows: "dict[Hashable, Flow]"

    def looks_for(self, flow: "Flow") -> bool:
        """Have the flow `look` for its answer at the end of this burst; False: it is to wait for it."""

    def again(self, flow: "Flow", datagram: bytes) -> None:
        """Take a datagram of a client whose flow has ended over it as the first of a new one."""


class Flow:
    """A client and its endpoint; the handler of the endpoint's socket."""

    __slots__ = (
        "_at_hand",
        "_contact",
        "_datagrams",
        "_held",
        "_last",
        "_receive",
        "_sendto",
        "_slot",
        "_watched",
        "active",
        "burst",
        "bytes_down",
        "bytes_up",
        "cause",
        "client",
        "connection",
        "down",
        "drops",
        "ended",
        "endpoint",
        "first_answer",
        "front",
        "id",
        "key",
        "opened",
        "route",
        "segments",
        "send",
        "sense",
        "source",
        "stage",
        "up",
    )

    def __init__(self, front: Front, key: Hashable, client: ClientAddress, source: Source) -> None:
        """`key` finds it among its listener's flows; `source` is where its answers leave from."""
        self.front = front
        self.route = front.route
        self._datagrams = datagrams = front.route.datagrams
        self.key = key
        self.client = client
        self.source = source
        self._sendto = source.sendto
        self.stage = DIAL
        self.cause: Cause | None = None
        """Why it ended; None while it lives."""
        self.opened = self.active = now = datagrams.reactor.now
        """Monotonic seconds, as are the others. `active`: when a datagram last passed."""
        self.ended = 0.0
        self.first_answer: float | None = None
        self.up = self.down = 0
        """Datagrams that were sent on."""
        self.bytes_up = self.bytes_down = 0
        self.drops: dict[Drop, int] | None = None
        self.endpoint: Endpoint | None = None
        self.connection: Socket | None = None
        self.send: Callable[[memoryview], int] | None = None
        """Sends to the endpoint; None while there is none."""
        self.id = ""
        self.burst: Burst | None = None
        self.segments = True
        """No way on has refused a train yet."""
        self.sense: Sense | None = None
        self._at_hand = 0
        self._contact: Way | None = None
        self._held: list[bytes] | None = None
        self._last: bytes | None = None
        """The last datagram sent, while it may have to be sent again to another endpoint."""
        self._slot = datagrams.reactor.arm(now + min(front.route.idle_timeout, LONGEST_WAIT), self)

    # -- dial -----------------------------------------------------------------------------------------

    def start(self, at_hand: int) -> None:
        """Get an endpoint: at once, unless its name is to be resolved first.

        `at_hand` is how many datagrams there are to be sent then: those of a train, or one.
        """
        self._at_hand = at_hand
        upstream = self.route.upstream
        if (only := upstream.only) is None:
            self._contact = contact = upstream.contact(self)
            self._go(contact)
            self._at_hand = 0  # what comes of them is known from here on
            return
        found = connected(only)
        if isinstance(found, Cause):
            self.endpoint = only
            self.unreached(found)
        else:
            self.reached(found, only)

    def _go(self, contact: Way) -> None:
        contact.go()
        if contact.waits:
            self._rearm(contact.deadline)

    def reached(self, connection: Socket, endpoint: Endpoint) -> None:
        """Enter RELAY: there is an endpoint, as far as that can be told."""
        self.endpoint = endpoint
        self.connection = connection
        self.stage = RELAY
        self._receive = connection.recv_into
        self._watched = False
        contact = self._contact
        self.send = connection.send if contact is None or not contact.has_more else self._send_and_keep
        if not self.route.responses or not self.front.looks_for(self):
            try:
                self._watch(connection)
            except OSError:
                self.unreached(Cause.FD_LIMIT)
                return
        if self._held is not None:
            self._rearm(self.active + self.route.idle_timeout)
            self._send_held()

    def _send_held(self) -> None:
        """Send what was held; over one of them the flow may end, or go on elsewhere with the rest."""
        while self._held and self.send is not None:
            datagram = self._held.pop(0)
            self._datagrams.held -= len(datagram)
            self.forward(memoryview(datagram))
        if self.send is not None:
            self._held = None

    def _watch(self, connection: Socket) -> None:
        """Wait for what the endpoint sends. Raises OSError: ENOSPC, ENOMEM of epoll_ctl(2)."""
        self._datagrams.reactor.watch(connection.fileno(), IN, self)
        self._watched = True

    def look(self) -> bool:
        """Take the answer if it is there already, and wait for what comes after it; say whether it was."""
        connection = self.connection
        if connection is not None and not self._watched:
            self.on_event(IN)
            if self.connection is connection:
                try:
                    self._watch(connection)
                except OSError:
                    self.end(Cause.FD_LIMIT)
        return self.down > 0

    def unreached(self, cause: Cause) -> None:
        """End: no endpoint can be had."""
        if self._held is None and self._at_hand:
            self.dropped(Drop.UNSENT, self._at_hand)
        self.end(cause)

    @property
    def attempts(self) -> int:
        """How many endpoints it went to."""
        return self._contact.attempts if self._contact is not None else 1

    def hold(self, datagram: memoryview) -> None:
        """Keep a datagram that came while the endpoint's name is being resolved."""
        held = self._held = self._held if self._held is not None else []
        size = len(datagram)
        if (
            len(held) == MOST_HELD_DATAGRAMS
            or sum(map(len, held)) + size > MOST_HELD
            or self._datagrams.held + size > MOST_HELD_BY_ALL
        ):
            self.dropped(Drop.DIALLING)
        else:
            held.append(bytes(datagram))
            self._datagrams.held += size

    # -- up -------------------------------------------------------------------------------------------

    def forward(self, datagram: memoryview) -> None:
        """Send a datagram of the client on. The listener does the same, inlined (0.1 us)."""
        if self.send is None:
            self.hold(datagram)
            return
        try:
            self.send(datagram)
        except OSError as error:
            self.not_sent(error, datagram)
        else:
            self.up += 1
            self.bytes_up += len(datagram)
            self.active = self._datagrams.reactor.now

    def _send_and_keep(self, datagram: memoryview) -> int:
        """Send, and keep the datagram for the next endpoint."""
        assert self.connection is not None
        sent = self.connection.send(datagram)
        self._last = bytes(datagram)
        return sent

    def not_sent(self, error: OSError, datagram: memoryview) -> None:
        """Judge why a datagram was not sent to the endpoint."""
        lost = endpoint_lost(error.errno)
        if lost is None:
            self.dropped(drop_cause(error.errno))
            return
        if self.may_go_on:
            self._lose_endpoint(lost, bytes(datagram))
        elif self.up:  # the error is that of an earlier datagram
            copy = bytes(datagram)
            self._lose_endpoint(lost)
            self.front.again(self, copy)
        else:
            self.dropped(Drop.SEND_FAILED)
            self._lose_endpoint(lost)

    @property
    def may_go_on(self) -> bool:
        """Whether it goes to another endpoint when this one is gone, with the last datagram sent."""
        contact = self._contact
        return contact is not None and contact.has_more and self.first_answer is None

    def _lose_endpoint(self, cause: Cause, unsent: bytes | None = None) -> None:
        """Go on with another endpoint, and with what the lost one did not get, or end."""
        contact = self._contact
        if contact is not None and self.endpoint is not None:
            contact.eject(self.endpoint)
        if contact is None or not self.may_go_on:
            self.end(cause)
            return
        self._forget_connection()
        self.stage = DIAL
        again = [] if unsent is None else [unsent]
        if self._last is not None:
            self.up -= 1
            self.bytes_up -= len(self._last)
            again.insert(0, self._last)
            self._last = None
        self._datagrams.held += sum(map(len, again))
        self._held = again + (self._held or [])
        self._go(contact)

    def _forget_connection(self) -> None:
        if self.connection is not None:
            self._datagrams.reactor.forget(self.connection.fileno(), self.connection.close)
            self.connection = self.send = None

    # -- down -----------------------------------------------------------------------------------------

    def on_event(self, events: int) -> None:  # noqa: C901, PLR0912  hot: a call costs 0.1 us of 4.5
        """Send on what the endpoint has sent."""
        sense, burst = self.sense, self.burst
        if events != IN and self._contact is not None and self._take_errors():
            return
        if sense is not None and sense.asks:
            take_trains(self, sense)
            return
        datagrams, client, sendto = self._datagrams, self.client, self._sendto
        receive, buffer, view = self._receive, datagrams.buffer, datagrams.view
        taken = count = moved = 0
        failure: OSError | None = None
        try:
            for _ in _ONCE if burst is None else range(burst.size):
                count = receive(buffer)
                taken += 1
                try:
                    if sendto is not None:
                        sendto(view[:count], client)
                    else:
                        self.source.sendmsg((view[:count],), self.source.controls, 0, client)
                except OSError as error:
                    self.dropped(drop_cause(error.errno))
                else:
                    self.down += 1
                    moved += count
        except BlockingIOError:
            if burst is not None:
                burst.emptied(taken)
        except OSError as error:
            failure = error
        else:
            if burst is not None:
                if burst.credit > 1:
                    burst.credit -= 1
                elif burst.filled() and burst.size == BUSY:
                    self._grow()
        if taken >= RUN or burst is None:
            self.took(taken, count, moved)
        elif taken:
            self.bytes_down += moved
            self.active = datagrams.reactor.now
        if failure is not None:
            self.failed(failure.errno)

    def took(self, taken: int, count: int, moved: int) -> None:
        """Count what an event brought: `moved` bytes, of which the last datagram has `count`."""
        if not taken:
            return
        self.bytes_down += moved
        self.active = now = self._datagrams.reactor.now
        if self.first_answer is None:
            self._first_answer(now)
        if count >= LARGE and self.burst is None:
            self._grow()
        if responses := self.route.responses:
            if self.down >= responses and self.down >= self.up:
                self.end(ANSWERED)
        elif self.burst is None and self.down >= STEADY:
            self.burst = Burst(MOST_READS)
        if taken >= RUN and moved == taken * count:
            self._run_came()

    def _first_answer(self, now: float) -> None:
        """There is somebody at the endpoint: the flow stays with it."""
        self.first_answer = now
        if self._contact is not None and self.connection is not None and self.endpoint is not None:
            self._contact.answered(self.endpoint)
            self.send = self.connection.send
            self._last = None

    def _grow(self) -> None:
        """There is much to read: let the kernel hold as much of it as the rule allows."""
        connection, wanted = self.connection, self.route.receive_buffer
        if connection is not None and receive_buffer_of(connection) < wanted:
            grow_receive_buffer(connection, wanted)

    def _run_came(self) -> None:
        if self.sense is None and self.connection is not None:
            self.sense = Sense(self.connection)
            self._grow()
        if self.sense is not None:
            self.sense.run_came()

    def failed(self, number: int | None) -> None:
        """Judge an error that reading told: that of a datagram sent before."""
        lost = endpoint_lost(number)
        if lost is not None and self.cause is None:
            self._lose_endpoint(lost)

    def _take_errors(self) -> bool:
        """Judge what waits in the error queue, which is an event until it is taken; False: nothing did."""
        connection = self.connection
        assert connection is not None
        errors = queued_errors(connection)
        for number in errors:
            if self.connection is connection:  # the first one may have taken the flow elsewhere
                self.failed(number)
        return bool(errors)

    # -- end ------------------------------------------------------------------------------------------

    def dropped(self, cause: Drop, count: int = 1) -> None:
        """Count datagrams that were dropped."""
        drops = self.drops = self.drops or {}
        drops[cause] = drops.get(cause, 0) + count

    def on_deadline(self, now: float) -> None:
        """A deadline armed earlier has passed; it may have moved meanwhile."""
        contact = self._contact
        if contact is not None and contact.waits:
            if now >= contact.deadline:
                contact.timed_out()
            if contact.waits:
                self._rearm(contact.deadline)
                return
        if self.cause is not None:
            return
        idle_at = self.active + self.route.idle_timeout
        if now >= idle_at:
            self.end(Cause.IDLE_TIMEOUT)
        else:
            self._rearm(idle_at)

    def _rearm(self, deadline: float) -> None:
        reactor = self._datagrams.reactor
        reactor.timers.cancel(self._slot, self)
        self._slot = reactor.arm(min(deadline, reactor.now + LONGEST_WAIT), self)

    def on_fault(self) -> None:
        """End: a handler of this flow raised."""
        self.end(Cause.INTERNAL)

    def end(self, cause: Cause) -> None:
        """End the flow, whatever it is doing."""
        if self.cause is not None:
            return
        self.cause = cause
        datagrams = self._datagrams
        reactor = datagrams.reactor
        self.ended = reactor.now
        reactor.timers.cancel(self._slot, self)
        if self._contact is not None:
            self._contact.abandon()
        if self._held:
            self.dropped(Drop.UNSENT, len(self._held))
            datagrams.held -= sum(map(len, self._held))
        connection = self.connection
        if connection is not None:
            # A question's one answer always had room.
            if (cause is not ANSWERED or self.down > 1) and (lost := kernel_drops(connection)):
                self.dropped(Drop.RECEIVE_FULL, lost)
            reactor.forget(connection.fileno(), connection.close)
            self.connection = self.send = None
        del self.front.flows[self.key]
        self.route.flows.remove(self, self.client[0])
        datagrams.on_end(self)
