"""How to write to whatever stdout is without ever waiting for its reader.

O_NONBLOCK belongs to the open file description, which stdout shares with the shell and every other
process that inherited it, so it is set on a description of our own where one can be had:

    pipe, fifo, terminal   opened again through /proc/self/fd: open(2) makes a new description
    socket                 cannot be opened again (ENXIO): MSG_DONTWAIT on each send
    file                   written as it is, for a write to a file does not wait for a reader; but O_APPEND is
                           set on the description, for all who share it: behind `>` the next line after
                           a truncation (logrotate's copytruncate) would leave a hole of NULs before it, and
                           a description of our own would write over what is written to stderr (2>&1)
    /dev/null              written as it is

Every outlet writes to a descriptor of its own, at 3 or above: if stdout is closed later and its number
comes back as a client's socket, no log line goes there.
"""

import errno
import fcntl
import os
import select
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

PIPE_BUF: Final = select.PIPE_BUF
"""Bytes that one write to a pipe takes whole or not at all, whoever else writes to it: pipe(7)."""

WHOLE: Final = 1 << 30
"""The block of an outlet that takes everything in one write."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where lines go.

    `write` takes bytes and says how many it took, raises BlockingIOError when it would wait and another
    OSError when it failed. `block` is how many bytes may be given at once. `close` ends it.
    """

    fd: int
    write: Callable[[bytes], int]
    block: int
    close: Callable[[], None]


def open_outlet(fd: int) -> Outlet:
    """Make the outlet for an inherited descriptor. Never raises: one that is closed takes nothing."""
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            return _socket(fd)
        if stat.S_ISFIFO(mode) or os.isatty(fd):
            return _reopened(fd)
        if stat.S_ISREG(mode):
            _append(fd)
        return _plain(_own(fd), WHOLE)
    except OSError:
        return nowhere()


def is_torn(fd: int) -> bool:
    """Say whether a file ends within a line; False where that cannot be seen.

    Whoever is killed while he writes leaves what he has written: the kernel looks for a fatal signal at each
    page of the file (mm/filemap.c, generic_perform_write).
    """
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(reading, 1, os.fstat(reading).st_size - 1) != b"\n"
        finally:
            os.close(reading)
    except OSError:  # EINVAL: it is empty
        return False


def nowhere() -> Outlet:
    """Make the outlet that takes nothing, for a stdout that is closed."""

    def write(_data: bytes) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    return Outlet(-1, write, WHOLE, lambda: None)


def _append(fd: int) -> None:
    with suppress(OSError):  # a file system that refuses it has no better way to be written
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)


def _own(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _plain(own: int, block: int) -> Outlet:
    # Workers share a file's offset, and the kernel holds it for the length of a write: one write, one
    # piece (write(2), since Linux 3.14). So all lines go in one. Only a full disk can cut it short.
    return Outlet(own, lambda data: os.write(own, data), block, lambda: os.close(own))


def _reopened(fd: int) -> Outlet:
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        own = os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        # No /proc, another user's terminal or pipe (EACCES), a pipe whose reader is gone (ENXIO).
        return _borrowed(fd)
    return _plain(own, PIPE_BUF)


def _borrowed(fd: int) -> Outlet:
    own = _own(fd)
    before = fcntl.fcntl(own, fcntl.F_GETFL)
    if before & os.O_NONBLOCK:
        return _plain(own, PIPE_BUF)
    fcntl.fcntl(own, fcntl.F_SETFL, before | os.O_NONBLOCK)

    def close() -> None:
        # Whoever found it blocking puts it back: the master, which is first to come and last to go, so
        # no worker is left with a description that blocks.
        fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) & ~os.O_NONBLOCK)
        os.close(own)

    return Outlet(own, lambda data: os.write(own, data), PIPE_BUF, close)


def _socket(fd: int) -> Outlet:
    own = socket.socket(fileno=_own(fd))
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    # Small blocks on a unix stream too: the kernel queues a send of this size as one buffer, so what
    # several workers send does not mix (a large one is taken in pieces).
    return Outlet(own.fileno(), lambda data: own.send(data, flags), PIPE_BUF, own.close)
