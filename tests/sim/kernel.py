"""A kernel for one loop: sockets, epoll and splice(2) behave as Linux's do, at their worst.

Any call may say EAGAIN although the event promised more, reads and writes are cut short, sides reset at any
time, the number of a closed fd comes back at once. Pipes are real: what is left in one is seen.
"""

import errno
import os
import random
import socket
from dataclasses import dataclass, field

from appliance.net.reactor import ERR, HUP, IN, MAX_EVENTS, OUT
from appliance.net.sockets import DONTWAIT, LINGER_ABORT

FIRST_FD = 1 << 20
"""Fake fds are told from real ones, the pipes', by their size."""


@dataclass
class Kernel:
    """What all fakes of one run share."""

    dice: random.Random
    now: float = 1000.0
    hesitation: float = 0.2
    """How often a call says EAGAIN for no reason."""
    unspliceable: bool = False
    """splice(2) is filtered."""
    wires: "dict[int, Wire]" = field(default_factory=dict)
    watched: dict[int, int] = field(default_factory=dict)
    SPLICE_F_MOVE: int = os.SPLICE_F_MOVE
    SPLICE_F_NONBLOCK: int = os.SPLICE_F_NONBLOCK

    def open(self, room: int) -> "Wire":
        """Make a connected socket with the lowest free number."""
        fd = next(number for number in range(FIRST_FD, FIRST_FD + 1000) if number not in self.wires)
        self.wires[fd] = Wire(self, fd, room)
        return self.wires[fd]

    def hesitate(self) -> None:
        if self.dice.random() < self.hesitation:
            raise BlockingIOError(errno.EAGAIN, "the dice say so")

    def some(self, most: int) -> int:
        """Give 1 to `most`, mostly `most`."""
        return most if self.dice.random() < 0.7 else self.dice.randint(1, most)

    # -- os, as the relay calls it --------------------------------------------------------------------

    def set_blocking(self, fd: int, blocking: bool) -> None:
        self.wires[fd].non_blocking = not blocking

    def splice(self, source: int, sink: int, count: int, *, flags: int) -> int:
        assert flags & os.SPLICE_F_NONBLOCK
        wire = self.wires[max(source, sink)]
        assert wire.non_blocking, "splice(2) looks at O_NONBLOCK only"
        if self.unspliceable:
            raise OSError(errno.EINVAL, "filtered")
        if sink < FIRST_FD:
            return os.write(sink, wire.take(count, splicing=True))
        room = wire.make_room(count)
        wire.got += os.read(source, room)
        return room

    # -- epoll ----------------------------------------------------------------------------------------

    def register(self, fd: int, events: int) -> None:
        assert fd in self.wires, "EBADF"
        assert fd not in self.watched, "EEXIST"
        self.watched[fd] = events

    def modify(self, fd: int, events: int) -> None:
        assert fd in self.watched, "ENOENT"
        assert self.watched[fd] != events, "a system call for nothing"
        self.watched[fd] = events

    def unregister(self, fd: int) -> None:
        del self.watched[fd]

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        assert (timeout, most) == (0.0, MAX_EVENTS)
        batch = [(fd, ready) for fd, wanted in self.watched.items() if (ready := self._ready(fd, wanted))]
        self.dice.shuffle(batch)
        return batch[: self.some(len(batch))] if batch else []

    def _ready(self, fd: int, wanted: int) -> int:
        return self.wires[fd].events() & (wanted | ERR | HUP)

    def close(self) -> None:
        """The epoll set is closed."""


@dataclass(eq=False)
class Wire:
    """A connected TCP socket as the gateway holds it, and the peer at its other end."""

    kernel: Kernel
    fd: int
    room: int
    """Bytes that its send buffer takes now."""
    told: bytearray = field(default_factory=bytearray)
    """All that the peer ever sent."""
    inbox: bytearray = field(default_factory=bytearray)
    """What of it was not read yet."""
    got: bytearray = field(default_factory=bytearray)
    """All that was written to the peer."""
    mark: int | None = None
    """Bytes of the inbox before an urgent mark, at which splice(2) stops for ever."""
    fin: bool = False
    was_reset: bool = False
    error: int = 0
    """SO_ERROR."""
    shut: bool = False
    closed: bool = False
    aborts: bool = False
    non_blocking: bool = False

    # -- the peer -------------------------------------------------------------------------------------

    @property
    def speaks(self) -> bool:
        return not (self.fin or self.was_reset or self.closed)

    def say(self, data: bytes) -> None:
        self.told += data
        self.inbox += data

    def reset(self) -> None:
        """RST arrives: what was read in before stays readable, the error is told once (tcp_reset)."""
        self.error = errno.EPIPE if self.fin else errno.ECONNRESET
        self.was_reset = True

    def events(self) -> int:
        ended = self.fin or self.was_reset
        return (
            (IN if self.inbox or ended else 0)
            | (OUT if self.room or self.shut or self.was_reset else 0)
            | (ERR if self.error else 0)
            | (HUP if self.was_reset or (self.fin and self.shut) else 0)
        )

    # -- the gateway ----------------------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self.closed else self.fd

    def recv_into(self, buffer: bytearray, most: int, flags: int) -> int:
        assert flags == DONTWAIT
        data = self.take(most, splicing=False)
        buffer[: len(data)] = data
        return len(data)

    def take(self, most: int, *, splicing: bool) -> bytes:
        """Read as recv(2), or as splice(2) does."""
        assert not self.closed, "EBADF"
        self.kernel.hesitate()
        if self.inbox:
            if self.mark == 0:
                if splicing:
                    return self._stopped_at_the_mark()
                self.mark = None
            count = self.kernel.some(min(most, len(self.inbox) if self.mark is None else self.mark))
            data = bytes(self.inbox[:count])
            del self.inbox[:count]
            self.mark = None if self.mark is None else self.mark - count
            return data
        self._raise_error()
        if self.fin or self.was_reset:
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing to read")

    def _stopped_at_the_mark(self) -> bytes:
        if self.fin:
            return b""
        raise BlockingIOError(errno.EAGAIN, "an urgent mark")

    def send(self, data: bytes | memoryview, flags: int) -> int:
        assert flags == DONTWAIT
        count = self.make_room(len(data))
        self.got += data[:count]
        return count

    def make_room(self, count: int) -> int:
        """Say how many of `count` bytes are taken."""
        assert not self.closed, "EBADF"
        assert not self.shut, "bytes after the FIN"
        assert count, "a write of nothing"
        self.kernel.hesitate()
        self._raise_error()
        if self.was_reset:
            raise BrokenPipeError(errno.EPIPE, "reset before")
        if not self.room:
            raise BlockingIOError(errno.EAGAIN, "no room")
        taken = self.kernel.some(min(count, self.room))
        self.room -= taken
        return taken

    def _raise_error(self) -> None:
        error, self.error = self.error, 0
        if error:
            raise OSError(error, os.strerror(error))

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        assert not self.shut, "a second FIN"
        if self.was_reset:
            raise OSError(errno.ENOTCONN, "reset before")
        self.shut = True

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            assert value == LINGER_ABORT
            self.aborts = True

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        del self.kernel.wires[self.fd]
        self.kernel.watched.pop(self.fd, None)
