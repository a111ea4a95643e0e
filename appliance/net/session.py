"""One TCP client, from accept to record.

    listener --accept--> ADMIT -> DIAL -> RELAY -> end: close both sockets, write the record

`stage` is the one variable that says where a session is, and the field its record carries. Every session ends
through `end`, once: it stops what the stage had going, hands both sockets to the deferred close and has the
record written. Whoever asks a second time is too late, and does nothing.

The deadline is one, armed at accept and looked at when it fires (`timers`): while dialling it is that of the
endpoint being tried, afterwards idle_timeout after the last byte. Usually connect_timeout is the shorter one,
and the deadline of the dial is left armed to be the first look at idleness.
"""

from collections.abc import Callable
from socket import AF_UNIX, IPPROTO_TCP, TCP_NODELAY
from typing import Final, Protocol

from appliance.net.dial import Dialer, Dialling
from appliance.net.reactor import IN
from appliance.net.relay import Direction, Relay
from appliance.net.sealed import Opening, Sealing
from appliance.net.sockets import (
    DONTWAIT,
    Endpoint,
    Sealed,
    Socket,
    abort_on_close,
    keep_alive,
    peer_text,
)
from appliance.outcome import Cause, Stage

# Constants, because looking a member up in an Enum costs 0.1 us (CPython 3.11: through a descriptor).
ADMIT: Final = Stage.ADMIT
DIAL: Final = Stage.DIAL
RELAY: Final = Stage.RELAY
CLIENT_EOF: Final = Cause.CLIENT_EOF
ENDPOINT_EOF: Final = Cause.ENDPOINT_EOF
UNIX: Final = int(AF_UNIX)

LONGEST_WAIT: Final = 60.0
"""Seconds between two looks at a deadline: each 1/16 s ahead that has one costs a set, 47 MB for an hour."""


class Carrier(Protocol):
    """What brings sessions to their endpoints through connections of its own."""

    sessions: "set[Session]"
    """Those that it carries."""

    def takes_back(self, connection: Socket) -> bool:
        """Take a connection whose session has ended in order, which is in the epoll set; or leave it."""


class Sessions:
    """The live sessions of one worker: how many it takes, who hears of their end, who gives them ids."""

    __slots__ = ("live", "most", "next_id", "on_end")

    def __init__(
        self,
        most: int,
        on_end: Callable[["Session"], None],
        next_id: Callable[[float], str] = lambda _: "",
    ) -> None:
        """`next_id` makes the id of a session that was accepted at that moment (monotonic seconds)."""
        self.live: set[Session] = set()
        self.most = most
        self.on_end = on_end
        self.next_id = next_id

    def cut(self, cause: Cause) -> None:
        """End all of them."""
        for session in tuple(self.live):
            session.end(cause)


class Route:
    """A rule at one of its listeners: what every session accepted there has in common."""

    __slots__ = ("agent", "dialer", "header", "idle_timeout", "listener", "relay", "rule", "sessions")

    def __init__(
        self,
        rule: str,
        listener: str,
        dialer: Dialer,
        idle_timeout: float,
        relay: Relay,
        sessions: Sessions,
        agent: str = "",
        header: Callable[["Session"], bytes] | None = None,
    ) -> None:
        """`agent` is the name of the one that carries the sessions, where one does."""
        self.rule = rule
        self.listener = listener
        self.dialer = dialer
        self.idle_timeout = idle_timeout
        self.relay = relay
        self.sessions = sessions
        self.agent = agent
        self.header = header
        """Makes what an endpoint is sent before the client's first byte (`introduction`)."""


class Session:
    """A client and its endpoint."""

    __slots__ = (
        "_is_kept_alive",
        "_slot",
        "accepted",
        "attempts",
        "bytes_down",
        "bytes_up",
        "carrier",
        "cause",
        "client",
        "connect_seconds",
        "connection",
        "dialling",
        "down",
        "ended",
        "endpoint",
        "first_byte",
        "id",
        "lost",
        "peer",
        "route",
        "stage",
        "up",
    )

    def __init__(self, route: Route, client: Socket, peer: object) -> None:
        self.route = route
        self.client = client
        self.peer = peer
        """The client's address, as accept(2) gave it."""
        self.stage = ADMIT
        self.cause: Cause | None = None
        """Why it ended; None while it lives."""
        self.accepted = route.relay.reactor.now
        """Monotonic seconds, as are the others."""
        self.ended = 0.0
        self.bytes_up = 0
        self.bytes_down = 0
        """How many were moved; known at the end."""
        self.connect_seconds: float | None = None
        self.first_byte: float | None = None
        self.endpoint: Endpoint | None = None
        self.attempts = 0
        self.dialling: Dialling | None = None
        self.connection: Socket | None = None
        """The socket to the endpoint."""
        self.up: Direction | None = None
        self.down: Direction | None = None
        self._is_kept_alive = False
        self.id = ""
        """Given when somebody asks for it (`known_id`); the record does."""
        self.carrier: Carrier | None = None
        """The tunnel's link that it passes."""
        self.lost: Cause | None = None
        """A side was reset, and what it had sent before is still on its way to the other one."""
        sessions = route.sessions
        sessions.live.add(self)

    def start(self) -> None:
        """Leave ADMIT: dial the endpoint."""
        route = self.route
        self.stage = DIAL
        self.dialling = dialling = route.dialer.dial(self)
        self._arm(dialling.deadline)
        dialling.go()

    def known_id(self) -> str:
        """Give its id, which it gets now if nobody has asked before."""
        if not self.id:
            self.id = self.route.sessions.next_id(self.accepted)
        return self.id

    # -- the caller of a dial -------------------------------------------------------------------------

    def dialled(self, connection: Socket, endpoint: Endpoint, *, watched: bool) -> None:
        """Enter RELAY: the endpoint is connected."""
        route, dialling = self.route, self.dialling
        relay, reactor = route.relay, route.relay.reactor
        assert dialling is not None
        self.stage = RELAY
        self.connection = connection
        self.connect_seconds = reactor.now - dialling.started
        self._leave_dial(dialling)
        if reactor.now + route.idle_timeout < dialling.deadline:  # the first look would come too late
            reactor.timers.cancel(self._slot, self)
            self._arm(reactor.now + route.idle_timeout)
        client = self.client
        up_kind, down_kind = _kinds_of(client, connection)
        self.up = up = up_kind(relay, self, client, connection)
        self.down = down = down_kind(relay, self, connection, client)
        up.back, down.back = down, up
        if endpoint.family != UNIX:
            connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        if route.header is not None and not self._introduce(connection, route.header(self)):
            return
        try:
            if watched:
                reactor.hand_over(down.fd, down)
                reactor.rewatch(down.fd, IN)
            else:
                reactor.watch(down.fd, IN, down)
            reactor.watch(up.fd, IN, up)
        except OSError:  # ENOSPC, ENOMEM: fs.epoll.max_user_watches (epoll(7))
            self.end(Cause.FD_LIMIT)

    def _introduce(self, connection: Socket, header: bytes) -> bool:
        """Tell the endpoint who the client is; False: it was reset, and the session has ended."""
        try:
            sent = connection.send(header, DONTWAIT)
        except OSError:
            sent = 0
        if sent == len(header):  # the empty buffer of a fresh connection takes it as a whole
            return True
        self.end(Cause.ENDPOINT_RESET)
        return False

    def dial_failed(self, cause: Cause) -> None:
        """End: no endpoint could be reached."""
        self.end(cause)

    def _leave_dial(self, dialling: Dialling) -> None:
        self.attempts = dialling.attempts
        self.endpoint = dialling.endpoint
        self.dialling = None

    # -- what the directions tell ---------------------------------------------------------------------

    def first_bytes(self, direction: Direction) -> None:
        """Note when the endpoint's first byte came."""
        if direction is self.down and self.first_byte is None:
            self.first_byte = self.route.relay.reactor.now

    def relay_ended(self, last: Direction) -> None:
        """Both directions are done; `last` was the second to end."""
        self.end(ENDPOINT_EOF if last is self.up else CLIENT_EOF)

    def relay_reset(self, by: Direction, *, as_sink: bool) -> None:
        """A side was reset: so is the other one."""
        self.end(self._side_lost(by, as_sink=as_sink))

    def sink_lost(self, direction: Direction) -> None:
        """A side was reset; what it had sent before is being delivered."""
        self.lost = self._side_lost(direction, as_sink=True)

    def _side_lost(self, direction: Direction, *, as_sink: bool) -> Cause:
        return Cause.CLIENT_RESET if (direction is self.up) is not as_sink else Cause.ENDPOINT_RESET

    def client_text(self) -> str:
        """Write who the client is, as in the log."""
        return peer_text(self.peer)

    def local_text(self) -> str:
        """Write the address that the client reached; a wildcard listener's clients tell it apart."""
        return peer_text(self.client.getsockname())

    # -- time -----------------------------------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """A deadline armed earlier has passed; it may have moved meanwhile."""
        if self.dialling is not None and now >= self.dialling.deadline:
            self.dialling.timed_out()
        if self.dialling is not None:  # a later endpoint, or one that was begun later
            self._arm(self.dialling.deadline)
        elif self.up is not None and self.down is not None:
            self._watch_idle(now, self.up, self.down)

    def _watch_idle(self, now: float, up: Direction, down: Direction) -> None:
        idle_at = max(up.active, down.active) + self.route.idle_timeout
        if now >= idle_at:
            self.end(Cause.IDLE_TIMEOUT)
            return
        # The client's socket inherits keep-alive from its listener. The endpoint's gets it here, at the
        # first look after connect_timeout, rather than at connect: most sessions never come here, and
        # it would be four system calls for each of them.
        endpoint, connection = self.endpoint, self.connection
        if not self._is_kept_alive and endpoint is not None and connection is not None:
            self._is_kept_alive = True
            if endpoint.family != UNIX:
                keep_alive(connection)
        self._arm(idle_at)

    def _arm(self, deadline: float) -> None:
        reactor = self.route.relay.reactor
        self._slot = reactor.arm(min(deadline, reactor.now + LONGEST_WAIT), self)

    # -- end ------------------------------------------------------------------------------------------

    def on_fault(self) -> None:
        """End: a handler of this session raised."""
        self.end(Cause.INTERNAL)

    def end(self, cause: Cause) -> None:
        """End the session, whatever it is doing."""
        if self.cause is not None:
            return
        self.cause = cause = self.lost or cause
        reactor = self.route.relay.reactor
        self.ended = reactor.now
        reactor.timers.cancel(self._slot, self)
        if self.dialling is not None:
            self.dialling.abandon()
            self._leave_dial(self.dialling)
        sessions = self.route.sessions
        sessions.live.discard(self)
        if self.carrier is not None:
            self.carrier.sessions.discard(self)
        in_order = cause is CLIENT_EOF or cause is ENDPOINT_EOF
        self.leave_client(in_order=in_order)
        if self.connection is not None:
            self._leave_endpoint(self.connection, in_order=in_order)
        up, down = self.up, self.down
        if up is not None and down is not None:
            self.bytes_up = up.stop()
            self.bytes_down = down.stop()
            self.up = self.down = None
        sessions.on_end(self)

    def leave_client(self, *, in_order: bool) -> None:
        """Close the client's socket; where not all is well, by a reset."""
        client = self.client
        if not in_order:
            abort_on_close(client)
        self.route.relay.reactor.forget(client.fileno(), client.close)

    def _leave_endpoint(self, connection: Socket, *, in_order: bool) -> None:
        """Close the socket to the endpoint, or have its carrier take it back."""
        if not in_order:
            abort_on_close(connection)
        elif self._is_taken_back(connection):
            return
        self.route.relay.reactor.forget(connection.fileno(), connection.close)

    def _is_taken_back(self, connection: Socket) -> bool:
        carrier, down = self.carrier, self.down
        if carrier is None or down is None or not isinstance(connection, Sealed):
            return False
        return down.hand_back() and carrier.takes_back(connection)


def _kinds_of(client: Socket, connection: Socket) -> tuple[type[Direction], type[Direction]]:
    """Say what the way up is, and the way down. One side at the most is sealed."""
    if isinstance(connection, Sealed):
        return Sealing, Opening
    if isinstance(client, Sealed):
        return Opening, Sealing
    return Direction, Direction
