"""A bound socket, and the state it is in.

    READY --no fd, no memory, worker full--> PAUSED --RETRY seconds, and room--> READY
      |                                        |
      +--drain--> CLOSED <---------------------+

A client that cannot be accepted stays in the kernel's queue, and so does its event: the listener leaves the
epoll set instead of spinning on it, and comes back when there is room. The queue keeps the client meanwhile.
A worker takes only so many sessions as it has fds for both sides of; it pauses before accept would fail, as a
client that was accepted and cannot be given an endpoint is worse off than one that waits.
"""

import errno
import socket
from contextlib import suppress
from enum import Enum, auto
from typing import Final, Protocol

from appliance.net.reactor import EXCLUSIVE, IN, Reactor
from appliance.net.session import Route, Session
from appliance.net.sockets import AcceptError, Socket, classify_accept

RETRY: Final = 0.1
"""Seconds after which a paused listener tries again, as trio's and HAProxy's do."""

QUIET: Final = 10.0
"""Seconds between two reports that a listener had to pause."""

BURST: Final = 64
"""Clients accepted in one turn at the most: those that are live want their turn, too."""


SOCK_STREAM: Final = int(socket.SOCK_STREAM)

WORKER_FULL: Final = "session_limit"


class State(Enum):
    """What a listener is doing."""

    READY = auto()
    PAUSED = auto()
    CLOSED = auto()


class Reports(Protocol):
    """Who is told when a listener stops and starts again."""

    def listener_paused(self, listener: "Listener", error: str) -> None:
        """No client is accepted for now; `error` is the errno's name, or WORKER_FULL."""

    def listener_resumed(self, listener: "Listener") -> None:
        """Clients are accepted again."""


class Listener:
    """Accepts the clients of one bound socket, for one route."""

    __slots__ = (
        "_burst",
        "_family",
        "_in_trouble",
        "_reactor",
        "_reports",
        "_said",
        "_shared",
        "_socket",
        "route",
        "state",
    )

    def __init__(
        self, reactor: Reactor, bound: socket.socket, route: Route, reports: Reports, *, shared: bool
    ) -> None:
        """`bound` listens and is O_NONBLOCK; `shared`: other workers accept from the same socket."""
        self._reactor = reactor
        self._socket = bound
        self._family = int(bound.family)
        self._reports = reports
        self._shared = shared
        self._burst = 1
        self._in_trouble = False
        self._said = -QUIET
        self.route = route
        self.state = State.PAUSED
        self._watch()

    def _watch(self) -> None:
        # Of the workers that wait for one shared socket, wake one (epoll_ctl(2), EPOLLEXCLUSIVE).
        self._reactor.watch(self._socket.fileno(), IN | EXCLUSIVE if self._shared else IN, self)
        self.state = State.READY

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all a listener is watched for
        """Accept what waits, up to a burst.

        The call that finds nobody waiting costs 1.5 us, mostly the exception; so a burst begins with one
        client and doubles while that was not enough to see the end of the queue.
        """
        if self._accept_some(self._burst):
            self._burst = min(self._burst * 2, BURST)
        else:
            self._burst = 1
        if self._in_trouble and self.state is State.READY:
            self._in_trouble = False
            self._reports.listener_resumed(self)

    def _accept_some(self, most: int) -> bool:
        """Accept up to `most` clients; False when the queue was empty, or nothing can be accepted."""
        accept = self._socket._accept  # type: ignore[attr-defined]  # noqa: SLF001  see `sockets.Socket`
        family, route, sessions = self._family, self.route, self.route.sessions
        for _ in range(most):
            if len(sessions.live) >= sessions.most:
                self._pause(WORKER_FULL)
                return False
            try:
                fd, peer = accept()
            except OSError as error:
                if not self._goes_on(error):
                    return False
            else:
                Session(route, Socket(family, SOCK_STREAM, 0, fd), peer).start()
        return True

    def _goes_on(self, error: OSError) -> bool:
        """Judge a failed accept: True when the next client may fare better."""
        match classify_accept(error.errno):
            case AcceptError.NONE_WAITING:
                return False
            case AcceptError.CLIENT_GONE:
                return True
            case AcceptError.EXHAUSTED:
                self._pause(errno.errorcode.get(error.errno or 0, str(error)))
                return False

    def _pause(self, error: str) -> None:
        """Leave the epoll set until there is room; `error` names what ran out."""
        self.state = State.PAUSED
        self._reactor.unwatch(self._socket.fileno())
        self._reactor.arm(self._reactor.now + RETRY, self)
        self.route.relay.pipes.trim()
        # Said once, not ten times a second; nor each time that a full worker has room for a moment.
        if not self._in_trouble and self._reactor.now - self._said >= QUIET:
            self._in_trouble = True
            self._said = self._reactor.now
            self._reports.listener_paused(self, error)

    def on_deadline(self, now: float) -> None:
        """Try again, once there is room for a tenth of the sessions: not one by one."""
        if self.state is not State.PAUSED:
            return
        sessions = self.route.sessions
        if len(sessions.live) <= sessions.most * 9 // 10:
            with suppress(OSError):  # no room in the epoll set, which all of the user's programs share
                self._watch()
                return
        self._reactor.arm(now + RETRY, self)

    def close(self) -> None:
        """Accept the clients that are in the queue already, then listen no more."""
        while self.state is State.READY and self._accept_some(BURST):
            pass
        if self.state is State.READY:
            # Others hold the same open file (the master, systemd, another worker): close(2) alone would leave
            # it in the epoll set, and its events would spin, or reach whoever gets the number next.
            self._reactor.unwatch(self._socket.fileno())
            self._reactor.forget(self._socket.fileno(), self._socket.close)
        elif self.state is State.PAUSED:
            self._socket.close()
        self.state = State.CLOSED

    def on_fault(self) -> None:
        """A bug in accepting has been reported; the other clients still want to be accepted."""
