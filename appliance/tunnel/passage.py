"""Passages: how a worker gives a connection to the worker of the same gateway that it is meant for.

A connection lands where the kernel's hash puts it, and a data channel belongs to the worker that has its
control channel. The descriptor goes over a socket pair (SCM_RIGHTS, unix(7)) before anything was read from
the connection. The pairs are made before the workers are forked, and stay with the master: what was sent to
a worker that has died waits for the next one.
"""

import array
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from appliance.net.reactor import IN, Reactor
from appliance.net.sockets import Socket

BURST: Final = 64


class Passages:
    """One pair of sockets for each worker."""

    __slots__ = ("_from", "_to")

    def __init__(self, workers: int) -> None:
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        pairs = [socket.socketpair(socket.AF_UNIX, kind) for _ in range(workers)]
        self._to = [to for to, _ in pairs]
        self._from = [end for _, end in pairs]

    def give(self, worker: int, connection: Socket) -> bool:
        """Give a connection to a worker; False where it takes no more."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))]
        try:
            self._to[worker].sendmsg([b"."], rights)
        except OSError:  # EAGAIN: it does not keep up; ETOOMANYREFS: too many are on their way
            return False
        return True

    def receive(self, reactor: Reactor, worker: int, take: Callable[[Socket], None]) -> "Arrivals":
        """Have what is given to a worker taken, in its loop."""
        return Arrivals(reactor, self._from[worker], take)

    def close(self) -> None:
        """Close all of them, in the master."""
        for end in (*self._to, *self._from):
            end.close()


class Arrivals:
    """The end of a worker's passage, as its loop watches it."""

    __slots__ = ("_end", "_reactor", "_take")

    def __init__(self, reactor: Reactor, end: socket.socket, take: Callable[[Socket], None]) -> None:
        self._reactor = reactor
        self._end = end
        self._take = take
        reactor.watch(end.fileno(), IN, self)

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all it is watched for
        """Take what has come."""
        for _ in range(BURST):
            try:
                _, fds, _, _ = socket.recv_fds(self._end, 1, 1)
            except OSError:  # EAGAIN; EMFILE loses the descriptor, and its agent tries again
                return
            for fd in fds:
                with suppress(OSError):
                    self._take(Socket(fileno=fd))

    def close(self) -> None:
        """Take nothing more; the master, and the next worker in this place, have it still."""
        self._reactor.unwatch(self._end.fileno())

    def on_fault(self) -> None:
        """A bug in taking one has been reported; others come."""
