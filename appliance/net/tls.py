"""TLS connections that the relay moves like any other socket.

Theory of operation
-------------------
A `TlsSocket` takes over the fd of a connected socket and puts OpenSSL's record layer in front of it. It is a
`Socket`: what concerns the connection itself (options, names, close) is the kernel's, what concerns its bytes
is here. It uses the C objects under `ssl.SSLSocket` (`SSLContext._wrap_socket`, `read`, `write`), for the
reason `sockets` gives for `Socket`, and because that class closes its fd when it cannot be made, at a moment
that is not the reactor's. OpenSSL reads and writes the fd itself: a record each time, without reading ahead,
so what is not asked for stays in the kernel, where epoll sees it, and an idle connection has no buffers
(CPython sets SSL_MODE_RELEASE_BUFFERS).

Errors are those of a socket. Nothing to read, no room to write: BlockingIOError. The peer's close_notify: 0
bytes. Anything else is a ConnectionResetError with OpenSSL's as its cause: an end without close_notify, which
whoever cuts the wire could have made (RFC 8446, 6.1), a bad record, an alert. For a session
either is a stream that was cut, and passed on as a reset (`sealed`).

One read gives one record, 16 KiB at the most, so a full one is followed by another read while there is room
for it. That one may find the end, or an error, which has left the kernel then: it is kept for the next read,
and `pending` says that there is one. So does it when a record did not fit into what the caller offered.

A write that would block has sealed a record already: the next one must bring the same bytes again
(SSL_write(3): there may be more of them, and elsewhere, but never fewer than were offered). The relay's held
bytes do.

Only the whole connection ends here. A half-close would be a close_notify; but CPython's `shutdown` calls
SSL_shutdown(3) twice, and the second one reads the peer's: where it finds data instead the connection is
broken ("application data after close notify"). So what a connection carries has its ends said within
(`sealed`), and it is closed without a close_notify: there is nothing left then that could be truncated.
"""

import errno
import socket
import ssl
from typing import Final, NoReturn, Protocol, cast

from appliance.net.sockets import DONTWAIT, Sealed, Socket

RECORD: Final = 1 << 14
"""Bytes in a full record (RFC 8446, 5.1)."""

DRAINED: Final = 1 << 16
"""Bytes of a failed handshake that are read before it is closed."""

WOULD_BLOCK: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Records(Protocol):
    """`_ssl._SSLSocket`, as far as it is used here."""

    context: ssl.SSLContext
    session: ssl.SSLSession | None
    session_reused: bool

    def do_handshake(self) -> None: ...
    def read(self, count: int, buffer: bytearray | memoryview, /) -> int: ...
    def write(self, data: bytes | memoryview, /) -> int: ...
    def pending(self) -> int: ...
    def getpeercert(self, der: bool, /) -> bytes | dict[str, object] | None: ...
    def selected_alpn_protocol(self) -> str | None: ...


class TlsSocket(Sealed, Socket):
    """One TLS connection, non-blocking. Before `do_handshake` has succeeded nothing else may be called."""

    __slots__ = (
        "__weakref__",
        "_ended",
        "_failure",
        "_read",
        "_records",
        "_write",
    )

    def __init__(
        self,
        connected: Socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Take over the fd of `connected`, which is left without one.

        Raises ValueError for a server's name that is none, or missing, and for a session of another
        context, OSError when OpenSSL has no memory; then `connected` still owns its fd.
        """
        if context.check_hostname and not server_hostname:
            raise ValueError("check_hostname requires server_hostname")
        super().__init__(connected.family, connected.type, connected.proto, connected.fileno())
        try:
            self.setblocking(False)
            if self.family != socket.AF_UNIX:
                self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrap = context._wrap_socket  # type: ignore[attr-defined]  # noqa: SLF001  see the theory
            self._records = cast("_Records", wrap(self, server_side, server_hostname, session=session))
        except BaseException:
            self.detach()
            raise
        connected.detach()
        self._read = self._records.read
        self._write = self._records.write
        self._failure: OSError | None = None
        """What a read ran into after it had got something; the next one says it."""
        self._ended = False
        """The peer's close_notify was read."""

    # -- handshake ------------------------------------------------------------------------------------

    def do_handshake(self) -> None:
        """Go as far as the peer lets us. Raises SSLWantReadError, SSLWantWriteError; what else is final."""
        self._records.do_handshake()

    @property
    def context(self) -> ssl.SSLContext:
        """What it was made with."""
        return self._records.context

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session as it is now; a client's can be resumed once a read has met the server's ticket."""
        return self._records.session

    @property
    def session_reused(self) -> bool:
        """Whether the handshake resumed a session."""
        return self._records.session_reused

    @property
    def protocol(self) -> str | None:
        """The application protocol agreed on (ALPN)."""
        return self._records.selected_alpn_protocol()

    def getpeercert(self) -> dict[str, object]:
        """Give the peer's certificate, as `ssl.SSLSocket` does."""
        found = self._records.getpeercert(False)
        return found if isinstance(found, dict) else {}

    # -- bytes ----------------------------------------------------------------------------------------

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0, /) -> int:  # type: ignore[override]  # noqa: ARG002
        """Read up to `nbytes` (0: as many as fit); 0 is the peer's close_notify.

        `flags` are not looked at: a read never waits, and peeking is not offered.
        """
        room = nbytes or len(buffer)
        if self._failure is not None:
            raise self._failure
        try:
            got = self._read(room, buffer)
        except OSError as error:
            _raise(error)
        if not got:
            self._ended = True
        elif got == RECORD:
            got += self._read_on(memoryview(buffer)[got:room])
        return got

    def _read_on(self, view: memoryview) -> int:
        """Read more, after a full record."""
        got, count = 0, RECORD
        while count == RECORD and len(view) - got >= RECORD:
            try:
                count = self._read(len(view) - got, view[got:])
            except WOULD_BLOCK:
                break
            except OSError as error:
                self._failure = _as_of_a_socket(error)
                break
            self._ended = not count
            got += count
        return got

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Read up to `bufsize` bytes, as `recv_into` does."""
        buffer = bytearray(bufsize)
        return bytes(buffer[: self.recv_into(buffer, bufsize, flags)])

    def pending(self) -> bool:
        """Say whether there is something to read, be it the end, that epoll knows nothing of.

        It is never so after a handshake: OpenSSL reads no further than the record it needs. After a read
        it is when that gave as many bytes as there was room for, or full records and then met the end.
        """
        return self._ended or self._failure is not None or self._records.pending() > 0

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:  # type: ignore[override]  # noqa: ARG002
        """Write as much as there is room for; what was not taken must be offered again.

        A record at a time: OpenSSL would write the records of a larger piece, and say nothing of those that
        went out until all of them have (CPython does not set SSL_MODE_ENABLE_PARTIAL_WRITE).
        """
        size = len(data)
        if not size:
            return 0
        view = data if size <= RECORD else memoryview(data)
        sent = 0
        try:
            while sent < size:
                sent += self._write(view[sent : sent + RECORD] if size > RECORD else view)
        except OSError as error:
            if not sent:
                _raise(error)  # else one that is no matter of room comes again with the next write
        return sent

    # -- the end --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Throw away what the kernel holds unread: a close(2) with bytes unread is an RST, which overtakes.

        For a handshake that failed, so that the alert that says why has a chance to be read.
        """
        try:
            Socket.recv(self, DRAINED, DONTWAIT)
        except OSError:
            return


def _raise(error: OSError) -> NoReturn:
    """Raise what a socket would have, in the place of OpenSSL's error."""
    raise _as_of_a_socket(error)


def _as_of_a_socket(error: OSError) -> OSError:
    """Make of OpenSSL's error the one a socket would have."""
    if isinstance(error, WOULD_BLOCK):
        return BlockingIOError(errno.EAGAIN, "no whole record, or no room for one")
    if isinstance(error, ssl.SSLError):
        reset = ConnectionResetError(errno.ECONNRESET, error.reason or str(error))
        reset.__cause__ = error
        return reset
    return error
