"""Dialling out: from an agent to a gateway's tunnel port, through a proxy where the intranet demands one.

    CONNECT --> [PROXY] --> HANDSHAKE --> the caller's, watched for IN

The name of a gateway is resolved at each try. Each address has CONNECT_TIME: a SYN that was lost because the
network was away is sent again after 1 s and then only after 3, so it is better begun anew.
"""

import ssl
from dataclasses import dataclass
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Final, Protocol

from appliance.net.dial import Attempt, Upstream
from appliance.net.handshake import Handshake
from appliance.net.reactor import IN, Reactor
from appliance.net.resolve import Resolver
from appliance.net.sockets import Endpoint, Socket, keep_alive, resume_soon
from appliance.net.tls import TlsSocket
from appliance.net.via_proxy import Passage
from appliance.outcome import Cause
from appliance.tunnel.credentials import why
from appliance.tunnel.resumption import Resumption
from appliance.values import Proxy, TargetAddress

CONNECT_TIME: Final = 2.0
HANDSHAKE_TIME: Final = 5.0

_WHY: Final = {
    Cause.DIAL_REFUSED: "connection refused",
    Cause.DIAL_TIMEOUT: "no answer",
    Cause.DIAL_UNREACHABLE: "unreachable",
    Cause.DIAL_RESOLVE: "the name does not resolve",
    Cause.FD_LIMIT: "no file descriptor is left",
}


class Caller(Protocol):
    """Who wants a connection to a gateway."""

    def reached(self, connection: Socket, endpoint: Endpoint) -> None:
        """Take it; its fd is in the epoll set, watched for IN."""

    def unreached(self, why: str) -> None:
        """There is none, for the reason given."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to dial, and how."""

    gateway: TargetAddress
    proxy: Proxy | None

    @property
    def dialled(self) -> TargetAddress:
        """The gateway, or the proxy on the way."""
        return self.gateway if self.proxy is None else self.proxy.address


class Dialout:
    """One try."""

    __slots__ = (
        "_attempt",
        "_caller",
        "_context",
        "_endpoint",
        "_prelude",
        "_reactor",
        "_resumption",
        "_server_name",
        "_slot",
        "_stage",
        "_target",
        "started",
    )

    peer = None
    """There is no client that it dials for (`net.dial.Caller`)."""

    def __init__(
        self,
        reactor: Reactor,
        resolver: Resolver,
        target: Target,
        at: Endpoint | None,
        context: ssl.SSLContext | None,
        server_name: str,
        prelude: bytes,
        caller: Caller,
        resumption: Resumption,
    ) -> None:
        """`at` is the address to dial instead of the gateway's name.

        Without `context` it is not encrypted, and begins with `prelude`.
        """
        self._reactor = reactor
        self._target = target
        self._context = context
        self._server_name = server_name
        self._prelude = prelude
        self._caller = caller
        self._resumption = resumption
        self._stage: Attempt | Passage | Handshake | None = None
        self._slot: int | None = None
        self._endpoint: Endpoint | None = None
        self.started = reactor.now
        upstream = Upstream(reactor, resolver, [target.dialled], CONNECT_TIME)
        self._attempt = upstream.dial(self) if at is None else Attempt(upstream, self, (at,))

    def go(self) -> None:
        """Begin; the caller is told, perhaps at once."""
        self._stage = attempt = self._attempt
        self._arm(attempt.deadline)
        attempt.go()

    def _arm(self, deadline: float) -> None:
        self._slot = self._reactor.arm(deadline, self)

    def _disarm(self) -> None:
        if self._slot is not None:
            self._reactor.timers.cancel(self._slot, self)
            self._slot = None

    def on_deadline(self, now: float) -> None:
        """An address has had its time: the next one."""
        self._slot = None
        attempt = self._attempt
        if self._stage is not attempt:
            return
        if now >= attempt.deadline:
            attempt.timed_out()
        if self._stage is attempt:
            self._arm(attempt.deadline)

    # -- connect --------------------------------------------------------------------------------------

    def dialled(self, connection: Socket, endpoint: Endpoint, *, watched: bool) -> None:
        """The gateway, or the proxy, has accepted."""
        self._disarm()
        self._endpoint = endpoint
        try:
            connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            keep_alive(connection)
            resume_soon(connection)
            if watched:
                self._reactor.rewatch(connection.fileno(), IN)
            else:
                self._reactor.watch(connection.fileno(), IN, self)
        except OSError as error:
            connection.close()
            self._fail(str(error))
            return
        if self._target.proxy is None:
            self.passed(connection)
            return
        self._stage = passage = Passage(
            self._reactor,
            self,
            connection,
            self._target.proxy,
            self._target.gateway,
            self._reactor.now + HANDSHAKE_TIME,
        )
        passage.go(watched=True)

    def dial_failed(self, cause: Cause) -> None:
        """No address could be reached."""
        self._disarm()
        self._fail(_WHY.get(cause, str(cause)))

    # -- proxy ----------------------------------------------------------------------------------------

    def passed(self, connection: Socket) -> None:
        """The connection leads to the gateway."""
        if self._context is None:
            try:
                connection.send(self._prelude)
            except OSError as error:
                self._reactor.forget(connection.fileno(), connection.close)
                self._fail(str(error))
                return
            self._succeed(connection)
            return
        self._stage = handshake = Handshake(
            self._reactor,
            connection,
            self._context,
            server_side=False,
            server_hostname=self._server_name,
            caller=self,
            deadline=self._reactor.now + HANDSHAKE_TIME,
            watched=True,
            session=self._resumption.session(self._context),
        )
        handshake.go()

    def not_passed(self, why: str) -> None:
        """The proxy does not let us through."""
        self._fail(why)

    # -- handshake ------------------------------------------------------------------------------------

    def secured(self, tls: TlsSocket) -> None:
        """The gateway has shown a certificate of its CA, or is the one that has."""
        if not tls.session_reused:  # if one was offered, it is no good any more
            self._resumption.forget()
        self._succeed(tls)

    def not_secured(self, error: OSError) -> None:
        """It is not our gateway, or it does not want us."""
        self._resumption.forget()
        self._fail(why(error))

    # -- end ------------------------------------------------------------------------------------------

    def _succeed(self, connection: Socket) -> None:
        assert self._endpoint is not None
        self._stage = None
        self._caller.reached(connection, self._endpoint)

    def _fail(self, why: str) -> None:
        self._stage = None
        self._caller.unreached(why)

    def abandon(self) -> None:
        """Give up; the caller is not told."""
        self._disarm()
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.abandon()

    def on_event(self, events: int) -> None:
        """Nothing: each stage has the fd for itself."""

    def on_fault(self) -> None:
        """Tell the caller that it failed: a handler raised."""
        if self._stage is not None:
            self.abandon()
            self._caller.unreached("internal")
