"""The TLS handshake of one connection, of either side, without waiting for it.

A `Handshake` takes a connected socket over, with its fd. Once told to `go` it calls exactly one of its
caller's `secured` and `not_secured`, perhaps at once, unless it is abandoned. It is the handler of the fd
meanwhile. Its steps are queued (`Reactor.queue`): however many strangers shake hands, sessions have their
turn.

In TLS 1.3 a client is done before the server has looked at its certificate. So a client's `secured` says that
the server is the right one, not that the server accepts us: its refusal is an alert, which the first read
meets (ConnectionResetError, with OpenSSL's error as its cause). Application data may be waiting behind either
handshake; none of it has been read by then (`TlsSocket.pending`), and epoll reports it.
"""

import ssl
from typing import Protocol

from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.sockets import Socket
from appliance.net.tls import TlsSocket


class Caller(Protocol):
    """Whoever wants the connection secured."""

    def secured(self, tls: TlsSocket) -> None:
        """Take the connection: it is watched for IN, and to be handed over (`Reactor.hand_over`)."""

    def not_secured(self, error: OSError) -> None:
        """The handshake failed, and the socket is closed. TimeoutError: it took too long."""

    def on_fault(self) -> None:
        """The handshake, or what was made of its outcome, raised."""


class Handshake:
    """One handshake; the handler of its socket's fd."""

    __slots__ = (
        "_caller",
        "_context",
        "_deadline",
        "_interest",
        "_is_late",
        "_over",
        "_reactor",
        "_server_hostname",
        "_server_side",
        "_session",
        "_slot",
        "_socket",
        "_tls",
        "_watched",
    )

    def __init__(
        self,
        reactor: Reactor,
        sock: Socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None,
        caller: Caller,
        deadline: float,
        watched: bool,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Prepare it. `deadline`: of the reactor's clock; `watched`: the fd is in the epoll set already.

        `session`: one of the same context, to be resumed; the server may decline.
        """
        self._reactor = reactor
        self._socket: Socket = sock
        self._context = context
        self._server_side = server_side
        self._server_hostname = server_hostname
        self._caller = caller
        self._deadline = deadline
        self._watched = watched
        self._session = session
        self._tls: TlsSocket | None = None
        self._interest = 0
        self._slot: int | None = None
        self._over = False
        self._is_late = False
        """The deadline has passed: the step that is queued is the last."""

    def go(self) -> None:
        """Start."""
        try:
            self._tls = self._socket = TlsSocket(
                self._socket,
                self._context,
                server_side=self._server_side,
                server_hostname=self._server_hostname,
                session=self._session,
            )
            if self._watched:
                self._reactor.hand_over(self._socket.fileno(), self)
        except OSError as error:
            self._fail(error)
            return
        except ValueError as error:
            self._fail(OSError(str(error)))
            return
        self._slot = self._reactor.arm(self._deadline, self)
        self._reactor.queue(self)

    def on_event(self, events: int) -> None:  # noqa: ARG002  what the fd is ready for is what OpenSSL asked for
        """Go on; an error of the connection is met by that, too. Until then the event is reported again."""
        self._reactor.queue(self)

    def do(self) -> None:
        """Take a step."""
        if self._tls is not None:
            self._step(self._tls)
        if self._is_late and not self._over:
            self._fail(TimeoutError("the TLS handshake took too long"))

    def _step(self, tls: TlsSocket) -> None:
        try:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._want(IN)
                return
            except ssl.SSLWantWriteError:
                self._want(OUT)
                return
            self._want(IN)
        except OSError as error:
            tls.drain()
            self._fail(error)
            return
        self._stop()
        self._caller.secured(tls)

    def _want(self, interest: int) -> None:
        fd = self._socket.fileno()
        if not self._watched:
            self._reactor.watch(fd, interest, self)
            self._watched = True
        elif interest != self._interest:
            self._reactor.rewatch(fd, interest)
        self._interest = interest

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  as the timers call it
        """It took too long, unless what it waited for is there, and our loop is late."""
        self._slot = None
        self._is_late = True
        if not self._over:
            self._reactor.queue(self)  # a deadline is often that of hundreds

    def abandon(self) -> None:
        """Nobody wants it any more: close the socket and tell nobody. Too late is no error."""
        if not self._over:
            self._close()

    def on_fault(self) -> None:
        """A handler of ours raised, or `secured` did, before somebody else had the fd."""
        if not self._over:
            self._close()
        self._caller.on_fault()

    def _fail(self, error: OSError) -> None:
        self._close()
        self._caller.not_secured(error)

    def _close(self) -> None:
        self._stop()
        self._reactor.forget(self._socket.fileno(), self._socket.close)

    def _stop(self) -> None:
        self._over = True
        self._reactor.unqueue(self)
        if self._slot is not None:
            self._reactor.timers.cancel(self._slot, self)
            self._slot = None
