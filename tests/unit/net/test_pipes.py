"""Pipes: how many, how large, and never a byte of another session in one."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from appliance.net.pipes import PIPE_BYTES, SMALLEST, Pipe, PipePool
from tests.unit.net.loop import open_fds

PAGE = 4096


def test_a_pipe_is_as_large_as_asked() -> None:
    """The capacity is the kernel's, and neither end blocks or outlives an exec."""
    pipe = Pipe(SMALLEST)
    assert pipe.capacity == SMALLEST == fcntl.fcntl(pipe.read_fd, fcntl.F_GETPIPE_SZ)
    for fd in (pipe.read_fd, pipe.write_fd):
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    pipe.close()


def test_the_pool_has_its_bounds() -> None:
    """At most so many pipes at the same time; one that comes back is lent again."""
    before = open_fds()
    pool = PipePool(2, PAGE)
    one, two = pool.borrow(), pool.borrow()
    assert one is not None
    assert two is not None
    assert pool.borrow() is None
    assert len(pool) == 2
    pool.give_back(one)
    assert pool.borrow() is one
    assert pool.borrow() is None
    pool.discard(one)
    pool.discard(two)
    assert open_fds() == before


def test_a_pool_of_none_lends_none() -> None:
    """A process with few fds copies."""
    assert PipePool(0).borrow() is None


def test_discarded_bytes_reach_nobody() -> None:
    """A pipe that was given up while bytes were in it is closed; the next one is empty."""
    pool = PipePool(1, PAGE)
    held = pool.borrow()
    assert held is not None
    os.write(held.write_fd, b"of another session")
    pool.discard(held)
    assert len(pool) == 0
    fresh = pool.borrow()
    assert fresh is not None
    with pytest.raises(BlockingIOError):
        os.read(fresh.read_fd, 1)
    pool.discard(fresh)


def test_trim_closes_what_nobody_uses() -> None:
    """Pipes that are lent stay, and can come back afterwards."""
    before = open_fds()
    pool = PipePool(3, PAGE)
    lent, idle = pool.borrow(), pool.borrow()
    assert lent is not None
    assert idle is not None
    pool.give_back(idle)
    pool.trim()
    assert len(pool) == 1
    assert open_fds() - before == {lent.read_fd, lent.write_fd}
    pool.give_back(lent)
    pool.trim()
    assert open_fds() == before
    assert len(pool) == 0


def test_too_small_a_pipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user's pages are used up, a pipe of a page or two is closed again: copying is cheaper."""
    before = open_fds()
    monkeypatch.setattr("appliance.net.pipes.fcntl.fcntl", grudging(PAGE))
    with pytest.raises(PermissionError):
        Pipe(PIPE_BYTES)
    pool = PipePool(1)
    assert pool.borrow() is None
    assert len(pool) == 0
    assert open_fds() == before


def test_a_pipe_of_the_default_size_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a larger one is refused, the default's 64 KiB are used, and said to be."""
    monkeypatch.setattr("appliance.net.pipes.fcntl.fcntl", grudging(SMALLEST))
    pipe = Pipe(PIPE_BYTES)
    assert pipe.capacity == SMALLEST
    pipe.close()


def grudging(size: int) -> object:
    """Be an fcntl(2) for a user whose pages are used up (pipe(7)): pipes stay as they are."""

    def fcntl_(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(errno.EPERM, "pipe-user-pages-soft")
        return size

    return fcntl_


WITHOUT_FDS = """
import os, resource
from appliance.net.pipes import PipePool
pool = PipePool(100)
lowest = os.dup(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.close(lowest)
one = pool.borrow()
assert one is not None
assert pool.borrow() is None
assert len(pool) == 1
left = os.dup(0)  # the third one: a pipe that could not be opened left nothing behind
os.close(left)
pool.give_back(one)
assert pool.borrow() is one
print("held")
"""


def test_without_fds_the_pool_lends_none() -> None:
    """EMFILE is no error: the pool says that there is none, and works on with those it has."""
    child = subprocess.run([sys.executable, "-c", WITHOUT_FDS], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout.strip()) == (0, "held"), child.stderr
