"""Pipes for splice(2), lent to a direction while bytes are in them.

A pipe is two fds. Held per session, 4,000 idle sessions ran out of 20,000 fds; lent, a worker needs as
many as it has directions whose sink is slower than their source, and those that find none copy instead.
"""

import fcntl
import os
from typing import Final

PIPE_BYTES: Final = 1 << 20
"""What a pipe is made to hold; the default, 64 KiB, costs twice the system calls in bulk."""

SMALLEST: Final = 1 << 16
"""Beyond pipe-user-pages-soft (pipe(7)) a new pipe holds 1 or 2 pages: copying is cheaper then."""


SKIP: Final = 1000
"""After a pipe could not be made, so many borrowers go without before another try."""


class Pipe:
    """One pipe; empty while it is in the pool."""

    __slots__ = ("capacity", "read_fd", "write_fd")

    def __init__(self, capacity: int) -> None:
        """Open a pipe of about `capacity` bytes; raises OSError when there is no fd, or none that large."""
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            try:
                self.capacity = fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, capacity)
            except PermissionError:  # the user's pages are used up
                self.capacity = fcntl.fcntl(self.write_fd, fcntl.F_GETPIPE_SZ)
                if self.capacity < SMALLEST:
                    raise
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close both ends; bytes in the pipe are gone."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """The pipes of one worker: `most` of them at the same time."""

    __slots__ = ("_capacity", "_free", "_most", "_open", "_skip")

    def __init__(self, most: int, capacity: int = PIPE_BYTES) -> None:
        self._most = most
        self._capacity = capacity
        self._free: list[Pipe] = []
        self._open = 0
        self._skip = 0
        """How many times not to try: a pipe could not be had, and trying costs four system calls."""

    def borrow(self) -> Pipe | None:
        """Lend an empty pipe, or None where none can be had: then copy."""
        if self._free:
            return self._free.pop()
        if self._open >= self._most:
            return None
        if self._skip:
            self._skip -= 1
            return None
        try:
            pipe = Pipe(self._capacity)
        except OSError:
            self._skip = SKIP
            return None
        self._open += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Take an empty pipe back."""
        self._free.append(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Close a lent pipe that still holds bytes: they must never reach another session."""
        self._open -= 1
        pipe.close()

    def trim(self) -> None:
        """Close the pipes that nobody uses: their fds are wanted for sessions."""
        while self._free:
            self.discard(self._free.pop())

    def __len__(self) -> int:
        """How many pipes are open, lent or not."""
        return self._open
