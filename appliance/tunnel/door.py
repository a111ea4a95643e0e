"""The tunnel's port: who connects there is a stranger until a certificate and a first message say otherwise.

    PEEK --not for this worker--> passed on to the one that is meant
      |--TLS--> HANDSHAKE --> FIRST --Hello or Attach--> the gateway's
      +--PWT1--> FIRST

All of it has PATIENCE seconds, and there are MOST_STRANGERS at a time: the one that has been here the longest
makes room. An agent is through in a few round trips, so whoever has been here the longest is none; a flood
has to replace all of them within that time to keep agents out.
"""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from appliance.net.handshake import Handshake
from appliance.net.reactor import IN
from appliance.net.sockets import (
    DONTWAIT,
    AcceptError,
    Socket,
    abort_on_close,
    classify_accept,
    peer_text,
    resume_soon,
)
from appliance.net.tls import TlsSocket
from appliance.observe.log import wall_clock
from appliance.outcome import Refusal
from appliance.tunnel.credentials import ALPN, has_expired, peer_of, refusal_of, why
from appliance.tunnel.messages import ClosedError, Messages
from appliance.wire.client_hello import LONGEST, ClientHello, Needs, look
from appliance.wire.messages import FIRST, Attach, Limit, MessageError, Refused
from appliance.wire.plain import PRELUDE_BYTES, could_be_plain, worker_of
from appliance.wire.server_name import worker_meant

if TYPE_CHECKING:
    from appliance.tunnel.gateway import Gateway

PATIENCE: Final = 5.0
"""Seconds until a stranger has to have said who it is."""

MOST_STRANGERS: Final = 1024
BURST: Final = 64

EACH_TURN: Final = 8
"""Strangers that are looked at in one turn of the loop, at 0.1 ms each: heartbeats of who is here come in
between, and the steps of their handshakes are queued (`Reactor.queue`)."""

RETRY: Final = 0.1


class Door:
    """Accepts at one of the tunnel's addresses."""

    __slots__ = ("_gateway", "_is_watched", "_socket")

    def __init__(self, gateway: "Gateway", bound: socket.socket) -> None:
        self._gateway = gateway
        self._socket = bound
        resume_soon(bound)
        self._watch()

    def _watch(self) -> None:
        self._gateway.reactor.watch(self._socket.fileno(), IN, self)
        self._is_watched = True

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all it is watched for
        """Accept who waits, up to a burst."""
        for _ in range(BURST):
            try:
                fd, peer = self._socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001  see `net.sockets`
            except OSError as error:
                found = classify_accept(error.errno)
                if found is AcceptError.CLIENT_GONE:
                    continue
                if found is AcceptError.EXHAUSTED:
                    self._pause()
                return
            connection = Socket(int(self._socket.family), int(socket.SOCK_STREAM), 0, fd)
            self._gateway.strangers.admit(connection, peer_text(peer))

    def _pause(self) -> None:
        self._gateway.strangers.make_room(Refusal.FULL)
        self._is_watched = False
        self._gateway.reactor.unwatch(self._socket.fileno())
        self._gateway.reactor.arm(self._gateway.reactor.now + RETRY, self)

    def on_deadline(self, now: float) -> None:
        """Try again."""
        if self._socket.fileno() < 0:
            return
        try:
            self._watch()
        except OSError:
            self._gateway.reactor.arm(now + RETRY, self)

    def close(self) -> None:
        """Accept no more."""
        if self._is_watched:
            self._gateway.reactor.unwatch(self._socket.fileno())
        self._gateway.reactor.forget(self._socket.fileno(), self._socket.close)

    def on_fault(self) -> None:
        """A bug in accepting has been reported; the others still want to be accepted."""


class Strangers:
    """Those of one worker, the one that came first in front."""

    __slots__ = ("_begun", "_gateway", "_here", "_turn")

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._turn = 0.0
        self._begun = 0
        self._here: dict[Stranger, None] = {}

    def admit(self, connection: Socket, peer: str, *, is_meant: bool = False) -> None:
        """Begin with one; `is_meant`: another worker has passed it on to this one."""
        if len(self._here) >= MOST_STRANGERS:
            self.make_room(Refusal.CROWDED)
        stranger = Stranger(self._gateway, connection, peer, is_meant=is_meant)
        self._here[stranger] = None
        stranger.start()

    def make_room(self, why: Refusal) -> None:
        """Refuse the one that has been here the longest."""
        if self._here:
            next(iter(self._here)).refuse(why)

    def may_begin(self) -> bool:
        """Say whether another one is looked at in this turn; if not, its event comes again in the next."""
        if self._turn != self._gateway.reactor.now:
            self._turn = self._gateway.reactor.now
            self._begun = 0
        self._begun += 1
        return self._begun <= EACH_TURN

    def leave(self, stranger: "Stranger") -> None:
        """Forget one: it is known now, or gone."""
        self._here.pop(stranger, None)

    def close(self) -> None:
        """Turn all of them away: this worker drains."""
        for stranger in tuple(self._here):
            stranger.turn_away()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._here)


class Stranger:
    """One connection, until it is known."""

    __slots__ = (
        "_connection",
        "_gateway",
        "_handshake",
        "_is_meant",
        "_is_over",
        "_is_waiting",
        "_messages",
        "_name",
        "_peeked",
        "_serial",
        "_slot",
        "peer",
    )

    def __init__(self, gateway: "Gateway", connection: Socket, peer: str, *, is_meant: bool) -> None:
        self._gateway = gateway
        self._connection = connection
        self._is_meant = is_meant or gateway.workers == 1
        self._is_over = False
        self._handshake: Handshake | None = None
        self._messages: Messages | None = None
        self._name = self._serial = ""
        self._peeked = 0
        self._is_waiting = False
        self.peer = peer

    def start(self) -> None:
        """Wait for its first bytes."""
        reactor = self._gateway.reactor
        self._slot = reactor.arm(reactor.now + PATIENCE, self)
        try:
            reactor.watch(self._connection.fileno(), IN, self)
        except OSError:
            self._leave()
            self._connection.close()

    # -- what it shows --------------------------------------------------------------------------------

    def on_event(self, events: int) -> None:  # noqa: ARG002  what there is, reading tells
        """Take what it has sent."""
        if self._messages is not None:
            self._read_first(self._messages)
        elif self._gateway.strangers.may_begin():
            self._peek(self._connection)

    def _peek(self, connection: Socket) -> None:
        """Look at the first bytes, leaving them where they are, for whom they are meant."""
        try:
            data = connection.recv(LONGEST, socket.MSG_PEEK | DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.turn_away()
            return
        if not data:  # a port scan or a health check: it came, said nothing, and went
            self.turn_away()
            return
        if could_be_plain(data):
            self._plain(connection, data)
            return
        match look(data):
            case Needs(total=total):
                self._wait_for(connection, data, total)
            case ClientHello() as hello:
                self._tls(connection, hello)
            case not_tls:
                self.refuse(Refusal.GARBAGE, not_tls.why)

    def _wait_for(self, connection: Socket, data: bytes, total: int) -> None:
        """Wait for so many bytes: what is left unread is an event again and again (socket(7))."""
        if len(data) == self._peeked:  # an event, and nothing new: it has closed
            self.turn_away()
            return
        self._peeked = len(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, total)
        self._is_waiting = True

    def _stop_waiting(self, connection: Socket) -> None:
        if self._is_waiting:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _tls(self, connection: Socket, hello: ClientHello) -> None:
        meant = worker_meant(hello.server_name or "", self._gateway.workers)
        if self._passed_on(connection, meant):
            return
        self._stop_waiting(connection)
        # The connection that is made of the context next takes this over. A ticket costs as much as half of a
        # handshake that resumes; who has one that is no good comes without it the next time.
        self._gateway.context.num_tickets = 0 if hello.resumes else 1
        self._handshake = handshake = Handshake(
            self._gateway.reactor,
            connection,
            self._gateway.context,
            server_side=True,
            server_hostname=None,
            caller=self,
            deadline=self._gateway.reactor.now + PATIENCE,
            watched=True,
        )
        handshake.go()

    def _plain(self, connection: Socket, data: bytes) -> None:
        worker = worker_of(data)
        if worker is None:
            self._wait_for(connection, data, PRELUDE_BYTES)
            return
        if self._passed_on(connection, worker % self._gateway.workers):
            return
        self._stop_waiting(connection)
        connection.recv(PRELUDE_BYTES, DONTWAIT)
        self._begin_messages(connection)

    def _passed_on(self, connection: Socket, meant: int | None) -> bool:
        """Give the connection to the worker that is meant, unless it is this one."""
        if self._is_meant or meant is None or meant == self._gateway.worker:
            return False
        if not self._gateway.pass_on(connection, meant):
            self.refuse(Refusal.FULL)
            return True
        self._leave()
        self._gateway.reactor.unwatch(connection.fileno())
        self._gateway.reactor.forget(connection.fileno(), connection.close)
        return True

    # -- the handshake --------------------------------------------------------------------------------

    def secured(self, tls: TlsSocket) -> None:
        """It has shown a certificate of our CA."""
        self._handshake = None
        self._connection = tls
        try:
            self._name, self._serial = peer_of(tls)
        except ValueError as error:  # our CA has made no such certificate
            self.refuse(Refusal.HANDSHAKE_FAILED, str(error))
            return
        if has_expired(tls, wall_clock()):
            self.refuse(Refusal.EXPIRED, "this agent's certificate has expired")
        elif self._gateway.is_revoked(self._serial):
            self.refuse(Refusal.REVOKED, "this agent's certificate was revoked")
        elif self._name not in self._gateway.crews:
            self.refuse(Refusal.UNKNOWN_AGENT, f"the ruleset has no [[agent]] named {self._name}")
        else:
            self._gateway.reactor.hand_over(tls.fileno(), self)
            if tls.protocol != ALPN:
                self.refuse(Refusal.VERSION, f"this gateway speaks {ALPN}")
            else:
                self._begin_messages(tls)

    def not_secured(self, error: OSError) -> None:
        """The handshake failed; its socket is closed by now."""
        self._handshake = None
        self._leave()
        self._gateway.refused(self.peer, refusal_of(error), error=why(error))

    def _begin_messages(self, connection: Socket) -> None:
        self._messages = Messages(self._gateway.reactor, connection, Limit.STRANGER)
        self._read_first(self._messages)

    def _read_first(self, messages: Messages) -> None:
        try:
            first = messages.take(FIRST)
        except (ClosedError, OSError):
            self.turn_away()
            return
        except MessageError as wrong:
            self.refuse(Refusal.PROTOCOL, str(wrong))
            return
        if first is None:
            return
        if isinstance(first, Attach):
            refusal = self._gateway.attach(first, messages.connection, self._name)
            if refusal is None:
                self._leave()
            else:
                self.refuse(refusal)
        elif not self._name:
            self.refuse(Refusal.PROTOCOL, "a control channel is always encrypted")
        else:
            self._gateway.hello(self, first, messages, self._name, self._serial)

    # -- its end --------------------------------------------------------------------------------------

    def known(self) -> None:
        """It is somebody's now."""
        self._leave()

    def refuse(self, refusal: Refusal, message: str = "", *, retry: bool = False) -> None:
        """Close, and report why; who has shown a certificate is told."""
        if self._is_over:
            return
        self._gateway.refused(self.peer, refusal, self._name, message)
        if self._name and message:
            try:
                Messages(self._gateway.reactor, self._connection, Limit.STRANGER).say_whole(
                    Refused(str(refusal), message, retry)
                )
            except OSError:
                self.turn_away()
            else:
                self._leave()
                self._close(self._connection.close)
            return
        self.turn_away()

    def turn_away(self) -> None:
        """Close without a word."""
        if self._is_over:
            return
        self._leave()
        if self._handshake is not None:
            self._handshake.abandon()
            return
        abort_on_close(self._connection)
        self._close(self._connection.close)

    def _close(self, close: Callable[[], object]) -> None:
        self._gateway.reactor.forget(self._connection.fileno(), close)

    def _leave(self) -> None:
        self._is_over = True
        self._gateway.reactor.timers.cancel(self._slot, self)
        self._gateway.strangers.leave(self)

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  there is one deadline
        """It had its time."""
        self.refuse(Refusal.TIMEOUT)

    def on_fault(self) -> None:
        """Turn it away: its handler raised."""
        self.turn_away()
