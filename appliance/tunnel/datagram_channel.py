"""A data channel that carries one flow's datagrams, and looks to `net.flow` like a datagram socket.

A stream takes a part of what it is given where a datagram socket takes all or nothing. What it did not take
is kept here, at most one datagram, and goes out before anything else; until then other datagrams are refused
as by a full send buffer, which drops and counts them. So one flow that is not read blocks nobody, and a
datagram arrives whole or not at all. An encrypted stream has sealed a datagram when it says that there is no
room, and must be given the same one again (`net.tls`): that one counts as taken.

A read may bring several datagrams, and part of one more (`wire.datagrams`). `net.flow` reads one at a time:
what is left over is kept, and read in another turn, since epoll does not know of it.

The flow ends, at whichever end first, by `close`. On a plain stream that closes it. A sealed one outlives the
flow, as it does a session (`net.sealed`): the end is said within it, and once both sides have said it the
stream goes back to where it came from. What arrives before that is thrown away.
"""

import errno
import socket
from collections import deque
from contextlib import suppress
from enum import Enum, auto
from typing import Final

from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.sockets import DONTWAIT, Sealed, Socket
from appliance.tunnel.returning import Returns
from appliance.wire.datagrams import END, DatagramReader, framed

READ_BYTES: Final = 1 << 16


class Phase(Enum):
    """What the flow's end means to its stream."""

    DIALLING = auto()
    """The other end waits for an answer: a close is one."""
    OPEN = auto()
    """The other end is told."""
    UNUSED = auto()
    """The other end knows that nothing was opened."""


class DatagramChannel:
    """One flow's channel; the handler of its fd once the flow has ended."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_is_closed",
        "_is_nudged",
        "_reactor",
        "_reader",
        "_returns",
        "_unsent",
        "_waiting",
        "phase",
    )

    def __init__(
        self, reactor: Reactor, connection: Socket, buffer: memoryview, returns: Returns, phase: Phase
    ) -> None:
        """`buffer` is one that all channels of a worker read into, of READ_BYTES."""
        self.phase = phase
        self._returns = returns
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

        Raises BlockingIOError for none yet, ConnectionRefusedError where the other end has ended the flow in
        order, and OSError.
        """
        if self._unsent:
            self._flush()
        if not self._waiting:
            self._read()
        datagram = self._waiting.popleft()
        buffer[: len(datagram)] = datagram
        if self._waiting or self._reader.is_over:
            self._nudge_later()
        return len(datagram)

    def _read(self) -> None:
        while not self._waiting:
            self._receive()
        self.look()

    def _receive(self) -> None:
        """Take what one read gives. Raises as `recv_into` does."""
        if self._reader.is_over:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the other end has ended the flow")
        try:
            count = self._connection.recv_into(self._buffer, READ_BYTES, DONTWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            raise _lost(error) from error
        if not count:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the other end has ended the flow")
        self._waiting.extend(map(bytes, self._reader.feed(self._buffer[:count])))

    def look(self) -> None:
        """Have what came together with the agent's answer read, of which epoll knows nothing."""
        if isinstance(self._connection, Sealed) and self._connection.pending():
            self._nudge_later()

    def _nudge_later(self) -> None:
        if not self._is_nudged:
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

    def forget(self) -> None:
        """End the flow at the end of the turn, where no handler of its own sees to it."""
        self._is_closed = True
        self._reactor.forget(self.fileno(), self.close)

    # -- the flow's end -------------------------------------------------------------------------------

    def close(self) -> None:
        """End the flow: its stream goes back, or is closed."""
        self._is_closed = True
        if not self._can_return() or not self._returns.awaits(self):
            self._close()
            return
        try:
            self._watch_to_the_end()
        except OSError:
            self._lose()
            return
        if self.phase is Phase.UNUSED or self._reader.is_over:
            self._go_back()

    def _can_return(self) -> bool:
        """Say whether it can have another flow, once the other end is told."""
        if not isinstance(self._connection, Sealed) or self._unsent:
            return False
        return self.phase is Phase.UNUSED or (self.phase is Phase.OPEN and self._say_end())

    def _say_end(self) -> bool:
        try:
            return self._connection.send(END, DONTWAIT) == len(END)
        except OSError:
            return False

    def _watch_to_the_end(self) -> None:
        """Take the events from the flow, which may never have watched. Raises OSError (epoll_ctl(2))."""
        try:
            self._reactor.watch(self.fileno(), IN, self)
        except FileExistsError:
            self._reactor.hand_over(self.fileno(), self)

    def on_event(self, events: int) -> None:  # noqa: ARG002  what there is, reading tells
        """Throw away what still comes, up to the other side's end."""
        try:
            self._receive()
        except BlockingIOError:
            return
        except OSError:
            self._lose()
            return
        self._waiting.clear()
        if self._reader.is_over:
            self._go_back()

    def _go_back(self) -> None:
        connection = self._connection
        if self._reader.is_overrun or not isinstance(connection, Sealed) or connection.pending():
            self._lose()
        else:
            self._returns.came_back(self, connection)

    def _lose(self) -> None:
        self._returns.went(self)
        self.give_up()

    def give_up(self) -> None:
        """Close the stream."""
        self._reactor.forget(self.fileno(), self._close)

    def on_fault(self) -> None:
        """Give it up: its handler raised."""
        self._lose()

    def _close(self) -> None:
        """Close the stream: in order if it is a plain one, where with something unread a close is a reset."""
        if not isinstance(self._connection, Sealed):
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
        self._connection.close()


def _lost(error: OSError) -> OSError:
    """Make of a connection's error the one by which a datagram socket says that its endpoint is gone."""
    return OSError(errno.EHOSTUNREACH, error.strerror or str(error))
