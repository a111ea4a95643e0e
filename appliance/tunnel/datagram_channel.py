"""A data channel that carries one flow's datagrams, and looks to `net.flow` like a datagram socket.

A stream takes a part of what it is given where a datagram socket takes all or nothing. What it did not take
is kept here, at most one datagram, and goes out before anything else; until then other datagrams are refused
as by a full send buffer, which drops and counts them. So one flow that is not read blocks nobody, and a
datagram arrives whole or not at all. An encrypted stream has sealed a datagram when it says that there is no
room, and must be given the same one again (`net.tls`): that one counts as taken.

A read may bring several datagrams, and part of one more (`wire.datagrams`). `net.flow` reads one at a time:
what is left over is kept, and read in another turn, since epoll does not know of it.
"""

import errno
import socket
from collections import deque
from contextlib import suppress
from typing import Final

from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.sockets import DONTWAIT, Sealed, Socket
from appliance.wire.datagrams import DatagramReader, framed

READ_BYTES: Final = 1 << 16


class DatagramChannel:
    """One flow's channel."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_is_closed",
        "_is_nudged",
        "_reactor",
        "_reader",
        "_unsent",
        "_waiting",
    )

    def __init__(self, reactor: Reactor, connection: Socket, buffer: bytearray) -> None:
        """`buffer` is one that all channels of a worker read into, of READ_BYTES."""
        self._reactor = reactor
        self._connection = connection
        self._buffer = buffer
        self._reader = DatagramReader()
        self._waiting: deque[bytes] = deque()
        self._unsent = b""
        self._is_nudged = self._is_closed = False

    def fileno(self) -> int:
        """Give the fd."""
        return self._connection.fileno()

    # -- sending --------------------------------------------------------------------------------------

    def send(self, datagram: memoryview | bytes) -> int:
        """Send a datagram. Raises BlockingIOError while one before it waits for room, and OSError."""
        if self._unsent and not self._flush():
            raise BlockingIOError(errno.EAGAIN, "a datagram waits for room")
        whole = framed(datagram)
        try:
            sent = self._connection.send(whole, DONTWAIT)
        except BlockingIOError:
            if not isinstance(self._connection, Sealed):
                raise
            sent = 0
        except OSError as error:
            raise self._ended(error) from error
        if sent < len(whole):
            self._unsent = whole[sent:]
            self._reactor.rewatch(self.fileno(), IN | OUT)
        return len(datagram)

    def sendto(self, datagram: memoryview | bytes, client: object, /) -> int:  # noqa: ARG002  there is one
        """Do as `send`: the other end is the client's."""
        return self.send(datagram)

    def _flush(self) -> bool:
        """Send what is left of a datagram; True when all of it is out. Raises OSError."""
        try:
            sent = self._connection.send(self._unsent, DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._ended(error) from error
        self._unsent = self._unsent[sent:]
        if self._unsent:
            return False
        self._reactor.rewatch(self.fileno(), IN)
        return True

    def _ended(self, error: OSError) -> OSError:
        """Say how it ended, where sending fails: an end in order is there to read."""
        try:
            while True:  # what is unread comes before the end
                self._receive()
        except ConnectionRefusedError as in_order:
            return in_order
        except OSError:
            pass
        return _lost(error)

    def sendmsg(self, *_: object) -> int:
        """Refuse a train: its datagrams are sent one by one (`net.trains`)."""
        raise OSError(errno.EOPNOTSUPP, "a stream has no trains")

    def sendmsg_to(
        self, parts: tuple[memoryview], controls: list[tuple[int, int, bytes]], flags: int, client: object, /
    ) -> int:
        """Do as `send`; refuse a train, as above."""
        del flags, client
        if controls:
            raise OSError(errno.EOPNOTSUPP, "a stream has no trains")
        return self.send(parts[0])

    # -- receiving ------------------------------------------------------------------------------------

    def recv_into(self, buffer: bytearray | memoryview, /) -> int:
        """Give the next datagram; `buffer` has room for any.

        Raises BlockingIOError for none yet, ConnectionRefusedError where the other end has closed in order,
        and OSError.
        """
        if self._unsent:
            self._flush()
        if not self._waiting:
            self._read()
        datagram = self._waiting.popleft()
        buffer[: len(datagram)] = datagram
        if self._waiting and not self._is_nudged:
            self._is_nudged = True
            self._reactor.defer(self._nudge)
        return len(datagram)

    def _read(self) -> None:
        while not self._waiting:
            self._receive()
        self.look()

    def _receive(self) -> None:
        """Take what one read gives. Raises as `recv_into` does."""
        try:
            count = self._connection.recv_into(self._buffer, READ_BYTES, DONTWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            raise _lost(error) from error
        if not count:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the other end has ended the flow")
        self._waiting.extend(map(bytes, self._reader.feed(memoryview(self._buffer)[:count])))

    def look(self) -> None:
        """Have what came together with the agent's answer read, of which epoll knows nothing."""
        if isinstance(self._connection, Sealed) and self._connection.pending() and not self._is_nudged:
            self._is_nudged = True
            self._reactor.defer(self._nudge)

    def _nudge(self) -> None:
        self._is_nudged = False
        if not self._is_closed:
            self._reactor.nudge(self.fileno())

    # -- as a socket ----------------------------------------------------------------------------------

    def getsockopt(self, level: int, option: int, length: int = 0, /) -> bytes | int:
        """Tell nothing of a socket's: what the kernel drops is none of a stream's."""
        del level, option
        return b"" if length else 1 << 30

    def setsockopt(self, *_: object) -> None:
        """Refuse what is for datagram sockets."""
        raise OSError(errno.ENOPROTOOPT, "not a datagram socket")

    def recvmsg(self, *_: object) -> None:
        """Have no queue of errors."""
        raise BlockingIOError(errno.EAGAIN, "a stream queues no errors")

    def close(self) -> None:
        """Close it in order: with something unread, a close alone would be a reset."""
        self._is_closed = True
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        self._connection.close()

    def forget(self) -> None:
        """Have it closed at the end of the turn, where no handler of its own sees to it."""
        self._is_closed = True
        self._reactor.forget(self.fileno(), self.close)


def _lost(error: OSError) -> OSError:
    """Make of a connection's error the one by which a datagram socket says that its endpoint is gone."""
    return OSError(errno.EHOSTUNREACH, error.strerror or str(error))
