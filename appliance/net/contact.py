"""A flow's way to its endpoint: which one, and how the others come in where that one fails.

A datagram socket is connected at once or not at all, and whether anybody is there shows later. So a `Contact`
lives as long as a flow has had no answer and there is another endpoint to go to; the flow of a rule with one
address needs none.
"""

import errno
from collections.abc import Callable, Iterable
from typing import Protocol

from appliance.net.datagram_sockets import DATAGRAM, report_errors
from appliance.net.dial import target_of
from appliance.net.reactor import Reactor
from appliance.net.resolve import Name, Resolver
from appliance.net.sockets import Endpoint, Socket, dial_cause
from appliance.net.transparency import Transparency
from appliance.outcome import Cause
from appliance.policy.balance import RoundRobin
from appliance.policy.ejection import Ejection
from appliance.values import TargetAddress


class Caller(Protocol):
    """The flow that wants an endpoint."""

    @property
    def client(self) -> object:
        """The client's address, as recvfrom(2) gives it."""

    def reached(self, connection: Socket, endpoint: Endpoint) -> None:
        """Take the connected socket."""

    def unreached(self, cause: Cause) -> None:
        """No endpoint is left; the cause is the last one's."""


class Way(Protocol):
    """One flow's way to an endpoint, while there may be another one to go to."""

    attempts: int
    """How many endpoints it went to."""
    deadline: float
    """When what is waited for takes too long."""

    @property
    def has_more(self) -> bool:
        """Whether there is another endpoint to go to."""

    @property
    def waits(self) -> bool:
        """Whether the caller is told later, by the deadline."""

    def go(self) -> None:
        """Go to the next endpoint; the caller is told, perhaps later."""

    def timed_out(self) -> None:
        """The deadline has passed."""

    def abandon(self) -> None:
        """The flow has ended, or will wait no longer."""

    def eject(self, endpoint: Endpoint) -> None:
        """Note that an endpoint failed."""

    def answered(self, endpoint: Endpoint) -> None:
        """Note that an endpoint is there."""


class Ways(Protocol):
    """How the flows of a rule reach its endpoints: from here, or through an agent."""

    only: Endpoint | None
    """The one address there is, and needs no way to it; None where there is a choice, a name, an agent."""

    def contact(self, caller: "Caller") -> Way:
        """Begin a flow's way."""


class DatagramUpstream:
    """A rule's endpoints, as flows use them: in turn, those that failed lately last."""

    __slots__ = (
        "_balance",
        "connect_timeout",
        "ejection",
        "only",
        "permits",
        "reactor",
        "resolver",
        "transparency",
    )

    def __init__(
        self,
        reactor: Reactor,
        resolver: Resolver,
        targets: Iterable[TargetAddress],
        connect_timeout: float,
        transparency: Transparency | None = None,
    ) -> None:
        """`transparency`: the endpoints are to see the client's address."""
        known = [target_of(target) for target in targets]
        self.reactor = reactor
        self.resolver = resolver
        self.connect_timeout = connect_timeout
        """Seconds that a name may take to resolve."""
        self.permits: Callable[[Endpoint], bool] | None = None
        """Says whether an address may be used, where not all may that a name resolves to."""
        self.transparency = transparency
        self.ejection: Ejection[Endpoint | Name] = Ejection()
        is_plain = len(known) == 1 and transparency is None
        self.only = known[0] if is_plain and isinstance(known[0], Endpoint) else None
        """The one address there is; None where there is a choice, or a name, or it is to see the client."""
        self._balance = RoundRobin(known)

    def contact(self, caller: Caller) -> "Contact":
        """Begin a flow's way with the endpoint whose turn it is."""
        return Contact(self, caller, self.ejection.order(self._balance.order(), self.reactor.now))


def connected(
    endpoint: Endpoint,
    transparency: Transparency | None = None,
    client: object = None,
    *,
    reports: bool = False,
) -> Socket | Cause:
    """Make a socket that is connected to an endpoint, or say why there is none.

    `transparency`: the endpoint is to see the address of `client`. `reports`: the socket reports also such
    ICMP errors as may pass. That takes a system call, and where there is no other endpoint nothing can be
    made of them.
    """
    try:
        connection = Socket(endpoint.family, DATAGRAM)
    except OSError as error:
        return dial_cause(error.errno)
    if transparency is not None:
        refused = transparency.lend(connection, endpoint, client)
        if refused is not None:
            connection.close()
            return refused
    result = connection.connect_ex(endpoint.sockaddr)
    if result:
        connection.close()
        return Cause.FD_LIMIT if result == errno.EAGAIN else dial_cause(result)  # EAGAIN: no port is free
    if reports:
        report_errors(connection, endpoint.family)
    return connection


class Contact:
    """One flow's walk through the endpoints."""

    __slots__ = ("_asked", "_caller", "_cause", "_left", "_upstream", "attempts", "deadline")

    def __init__(
        self, upstream: DatagramUpstream, caller: Caller, targets: tuple[Endpoint | Name, ...]
    ) -> None:
        self._upstream = upstream
        self._caller = caller
        self._left = targets
        self._asked: Name | None = None
        self._cause = Cause.DIAL_UNREACHABLE
        self.attempts = 0
        self.deadline = 0.0
        """When the name that is being resolved takes too long."""

    @property
    def has_more(self) -> bool:
        """Whether there is another endpoint to go to."""
        return bool(self._left)

    @property
    def waits(self) -> bool:
        """Whether a name is being resolved."""
        return self._asked is not None

    def go(self) -> None:
        """Go to the next endpoint; the caller is told, perhaps later."""
        while self._left:
            target, self._left = self._left[0], self._left[1:]
            if isinstance(target, Endpoint):
                self.attempts += 1
                if self._upstream.permits is not None and not self._upstream.permits(target):
                    self._cause = Cause.AGENT_DENIED
                    continue
                found = connected(target, self._upstream.transparency, self._caller.client, reports=True)
                if not isinstance(found, Cause):
                    self._caller.reached(found, target)
                    return
                self._cause = found
                if found is not Cause.SOURCE_UNAVAILABLE:  # that is not the endpoint's fault
                    self.eject(target)
            else:
                known = self._upstream.resolver.resolve(target, self)
                if known is None:
                    self._asked = target
                    self.deadline = self._upstream.reactor.now + self._upstream.connect_timeout
                    return
                self._take_names(known)
        self._caller.unreached(self._cause)

    def eject(self, endpoint: Endpoint) -> None:
        """Note that an endpoint failed: later flows try the others first."""
        self._upstream.ejection.eject(endpoint, self._upstream.reactor.now)

    def answered(self, endpoint: Endpoint) -> None:
        """Note that an endpoint is there: it goes back into rotation."""
        self._upstream.ejection.restore(endpoint)

    def _take_names(self, endpoints: tuple[Endpoint, ...]) -> None:
        if not endpoints:
            self._cause = Cause.DIAL_RESOLVE
        known = self._upstream.ejection.order(endpoints, self._upstream.reactor.now)
        self._left = (*known, *self._left)

    def resolved(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Go on with the answer for a host name, unless an answer to another flow has ended this one."""
        if self._asked is None:
            return
        self._asked = None
        self._take_names(endpoints)
        self.go()

    def timed_out(self) -> None:
        """The name takes too long: go to the next endpoint."""
        self.abandon()
        self._cause = Cause.DIAL_RESOLVE
        self.go()

    def abandon(self) -> None:
        """The flow ended, or will wait no longer: leave nothing behind."""
        if self._asked is not None:
            self._upstream.resolver.withdraw(self._asked, self)
            self._asked = None
