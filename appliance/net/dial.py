"""Dial: open the connection from the gateway to an endpoint.

A `Dialer` makes a `Dialling` for a session. Once told to `go` it calls exactly one of the session's `dialled`
and `dial_failed`, perhaps at once, unless it is abandoned. `Upstream` is the dialer of addresses; a tunnel is
another one.

A client is not watched while its endpoint is being dialled: what it sends waits in the kernel, which costs
nothing and pushes back on it by itself.
"""

import errno
from collections.abc import Callable, Iterable
from socket import AF_UNIX, MSG_PEEK
from typing import Final, Protocol

from appliance.net.reactor import ERR, HUP, OUT, Reactor
from appliance.net.resolve import Name, Resolver
from appliance.net.sockets import DONTWAIT, STREAM, Endpoint, Socket, dial_cause, endpoint_of
from appliance.net.transparency import Transparency
from appliance.outcome import Cause
from appliance.policy.balance import RoundRobin
from appliance.values import TargetAddress

FAILED: Final = ERR | HUP

BUSY_RETRY: Final = 0.05
"""Seconds after which a unix endpoint whose backlog was full is tried again: connect(2) says EAGAIN for it,
and nothing tells when there is room."""


class Caller(Protocol):
    """The session that wants an endpoint."""

    @property
    def peer(self) -> object:
        """The client's address, as accept(2) gives it."""

    def dialled(self, connection: Socket, endpoint: Endpoint, *, watched: bool) -> None:
        """Take the open connection; `watched`: it is in the epoll set already, for OUT."""

    def dial_failed(self, cause: Cause) -> None:
        """Every endpoint was tried; the cause is the last one's."""

    def on_fault(self) -> None:
        """The dialling raised."""


class Dialling(Protocol):
    """One session's dialling, while it lasts."""

    attempts: int
    """How many endpoints were tried so far."""
    endpoint: Endpoint | None
    """The one tried last."""
    started: float
    """When that one was started."""
    deadline: float
    """When that one has taken too long."""

    def go(self) -> None:
        """Start."""

    def timed_out(self) -> None:
        """The deadline has passed: give this one up and try the next."""

    def abandon(self) -> None:
        """The session ended; leave nothing behind."""


class Dialer(Protocol):
    """A way to reach a rule's endpoints."""

    def dial(self, caller: Caller) -> Dialling:
        """Make the dialling of a session; it starts with `go`."""


class Upstream:
    """A rule's set of endpoints, dialled round-robin, the next one tried when a dial fails."""

    __slots__ = ("_balance", "connect_timeout", "permits", "reactor", "resolver", "transparency")

    def __init__(
        self,
        reactor: Reactor,
        resolver: Resolver,
        targets: Iterable[TargetAddress],
        connect_timeout: float,
        transparency: Transparency | None = None,
    ) -> None:
        """`transparency`: the endpoints are to see the client's address."""
        self.reactor = reactor
        self.resolver = resolver
        self.connect_timeout = connect_timeout
        """Seconds for each endpoint."""
        self.permits: Callable[[Endpoint], bool] | None = None
        """Says whether an address may be dialled, where not all may that a name resolves to."""
        self.transparency = transparency
        self._balance = RoundRobin([target_of(target) for target in targets])

    def dial(self, caller: Caller) -> "Attempt":
        """Make an attempt that begins with the endpoint whose turn it is."""
        return Attempt(self, caller, self._balance.order())


def target_of(address: TargetAddress) -> Endpoint | Name:
    """Make what is dialled of a rule's target: ready for connect(2), or a name to resolve at each dial."""
    if address.is_name or "%" in address.host:  # an interface may come, go, and come back with another index
        return address.host, address.first_port
    return endpoint_of(address)


class Attempt:
    """One session's walk through the endpoints; the handler of the connecting socket."""

    __slots__ = (
        "_asked",
        "_busy",
        "_caller",
        "_cause",
        "_left",
        "_retry",
        "_socket",
        "_upstream",
        "attempts",
        "deadline",
        "endpoint",
        "started",
    )

    def __init__(self, upstream: Upstream, caller: Caller, targets: tuple[Endpoint | Name, ...]) -> None:
        self._upstream = upstream
        self._caller = caller
        self._left = targets
        self._socket: Socket | None = None
        self._asked: Name | None = None
        self._busy: tuple[Endpoint, ...] = ()
        self._retry: int | None = None
        self._cause = Cause.DIAL_UNREACHABLE
        self.attempts = 0
        self.endpoint: Endpoint | None = None
        self.started = now = upstream.reactor.now
        self.deadline = now + upstream.connect_timeout

    def _restart(self) -> None:
        self.started = self._upstream.reactor.now
        self.deadline = self.started + self._upstream.connect_timeout

    def go(self) -> None:
        """Try what is left until something connects, is under way, or nothing is left."""
        while self._left:
            target, self._left = self._left[0], self._left[1:]
            if isinstance(target, Endpoint):
                if self._connect(target):
                    return
            else:
                known = self._upstream.resolver.resolve(target, self)
                if known is None:
                    self._asked = target
                    return
                self._take_names(known)
        if self._busy:
            reactor = self._upstream.reactor
            self._retry = reactor.arm(reactor.now + BUSY_RETRY, self)
        else:
            self._caller.dial_failed(self._cause)

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  as the timers call it
        """Try the busy endpoints again."""
        self._retry = None
        self.attempts -= len(self._busy)
        self._left, self._busy = self._busy, ()
        self.go()

    def _stop_waiting(self) -> None:
        """Forget the busy endpoints."""
        self._busy = ()
        if self._retry is not None:
            self._upstream.reactor.timers.cancel(self._retry, self)
            self._retry = None

    def _take_names(self, endpoints: tuple[Endpoint, ...]) -> None:
        if not endpoints:
            self._cause = Cause.DIAL_RESOLVE
        self._left = (*endpoints, *self._left)

    def resolved(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Go on with the answer for a host name."""
        self._asked = None
        self._take_names(endpoints)
        self._restart()
        self.go()

    def _socket_for(self, endpoint: Endpoint) -> Socket | Cause:
        """Make the socket that is to be connected, or say why there is none."""
        permits, transparency = self._upstream.permits, self._upstream.transparency
        if permits is not None and not permits(endpoint):
            return Cause.AGENT_DENIED
        try:
            connection = Socket(endpoint.family, STREAM)
        except OSError as error:
            return dial_cause(error.errno)
        if transparency is not None:
            refused = transparency.lend(connection, endpoint, self._caller.peer)
            if refused is not None:
                connection.close()
                return refused
        return connection

    def _connect(self, endpoint: Endpoint) -> bool:
        """Start connecting; False when this endpoint failed at once."""
        self.attempts += 1
        self.endpoint = endpoint
        connection = self._socket_for(endpoint)
        if isinstance(connection, Cause):
            self._cause = connection
            return False
        result = connection.connect_ex(endpoint.sockaddr)
        if result == errno.EINPROGRESS:
            try:
                self._upstream.reactor.watch(connection.fileno(), OUT, self)
            except OSError:
                connection.close()
                self._cause = Cause.FD_LIMIT
                return False
            self._socket = connection
            return True
        if not result:  # a unix socket connects at once
            self._caller.dialled(connection, endpoint, watched=False)
            return True
        connection.close()
        self._cause = dial_cause(result)
        if result == errno.EAGAIN and endpoint.family == AF_UNIX:
            self._busy = (*self._busy, endpoint)
        return False

    def on_event(self, events: int) -> None:
        """The connecting socket is connected, or failed."""
        connection, endpoint = self._socket, self.endpoint
        assert connection is not None
        assert endpoint is not None
        if events & FAILED and (error := _failure(connection)):
            self._give_up(dial_cause(error))
            self._restart()
            self.go()
            return
        self._socket = None
        self._caller.dialled(connection, endpoint, watched=True)

    def _give_up(self, cause: Cause) -> None:
        """Close the connecting socket, and stop waiting for a name."""
        self._cause = cause
        if self._asked is not None:
            self._upstream.resolver.withdraw(self._asked, self)
            self._asked = None
        if self._socket is not None:
            self._upstream.reactor.forget(self._socket.fileno(), self._socket.close)
            self._socket = None

    def timed_out(self) -> None:
        """The deadline has passed: give this one up and try the next."""
        self._stop_waiting()
        transparency, endpoint = self._upstream.transparency, self.endpoint
        if transparency is not None and endpoint is not None and self._socket is not None:
            transparency.unanswered(endpoint)
        self._give_up(Cause.DIAL_TIMEOUT if self._asked is None else Cause.DIAL_RESOLVE)
        self._restart()
        self.go()

    def abandon(self) -> None:
        """The session ended; leave nothing behind."""
        self._left = ()
        self._stop_waiting()
        self._give_up(self._cause)

    def on_fault(self) -> None:
        """End the session: its dialling raised."""
        self._caller.on_fault()


def _failure(connection: Socket) -> int:
    """Say why a connection failed (errno); 0: it did not, it is over already and has left bytes to read.

    An endpoint that answers and resets at once is both connected and failed by the time it is looked at.
    Reading tells: bytes come before the error (SO_ERROR would take the error away from the relay).
    """
    try:
        connection.recv(1, MSG_PEEK | DONTWAIT)
    except BlockingIOError:
        return 0
    except OSError as error:
        return error.errno or errno.ECONNREFUSED
    return 0
