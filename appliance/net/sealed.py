"""A direction of a session of which one side, or both, is sealed (`sockets.Sealed`, in practice `tls`).

It differs from `relay.Direction` in three things. It never splices: the bytes pass through OpenSSL. It
asks a sealed source for what has left the kernel already, which epoll does not know. And a sealed
sink is told of an EOF even when that ends the session, since a stream that stops without a close_notify is a
truncated one (RFC 8446, 6.1), which the other end takes for a reset. Where the session ends because the
source was reset, a reset is what it must get: an EOF that is read once the error was met by a write is none.
"""

from socket import SHUT_WR

from appliance.net.reactor import IN
from appliance.net.relay import Direction, Relay, Relayed
from appliance.net.sockets import Sealed, Socket


class SealedDirection(Direction):
    """One way of a session with TLS on either side."""

    __slots__ = ("_is_sink_lost", "_sealed_sink", "_sealed_source")

    back: "SealedDirection"

    def __init__(self, relay: Relay, session: Relayed, source: Socket, sink: Socket) -> None:
        super().__init__(relay, session, source, sink)
        self._sealed_source = source if isinstance(source, Sealed) else None
        self._sealed_sink = isinstance(sink, Sealed)
        self._is_sink_lost = False

    def _start_splicing(self) -> None:
        """Go on copying."""

    def _copy(self) -> None:
        """Move what one read gives, and what the source has taken from the kernel beyond it."""
        super()._copy()
        source = self._sealed_source
        while source is not None and source.pending() and self._can_read():
            super()._copy()

    def _can_read(self) -> bool:
        return not (self.held or self.over or self.ended or self.ending)

    def _end(self) -> None:
        """EOF of the source, and everything before it is delivered: pass it on."""
        if not self.back.ended or (self._sealed_sink and not self.back._is_sink_lost):  # noqa: SLF001  its twin
            try:
                self.sink.shutdown(SHUT_WR)
            except BlockingIOError:
                self.ending = True
                self._hold(0)
                return
            except OSError:
                self._sink_reset()
                return
        self.ending = False
        self.ended = True
        if self.back.ended:
            self.session.relay_ended(self)
        else:
            self.want(self.interest & ~IN)

    def _sink_reset(self) -> None:
        self._is_sink_lost = True
        super()._sink_reset()
