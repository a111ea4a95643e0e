"""A process with a TLS hop inside: each client has a session whose endpoint is TLS, and one whose client is.

    client --TCP--> front session --TLS--> back session --TCP--> endpoint

It says on stdout what a gateway does, in the same words: where it listens, and each session's record. The
front's rule is `NAME`, the back's `NAME-back`.
"""

import json
import signal
import socket
import sys
from contextlib import suppress

from appliance.net.dial import Caller, Upstream
from appliance.net.handshake import Handshake
from appliance.net.listener import Listener
from appliance.net.pipes import PipePool
from appliance.net.reactor import IN, Reactor
from appliance.net.relay import Relay
from appliance.net.resolve import Resolver
from appliance.net.session import Route, Session, Sessions
from appliance.net.sockets import Endpoint, Socket, endpoint_of, listening_socket, peer_text
from appliance.net.tls import TlsSocket
from appliance.outcome import Cause
from appliance.values import ListenAddress, TargetAddress
from tests.tls import SERVER_NAME, client_context, server_context

PATIENCE = 20.0
IDLE = 3600.0


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


class SealedDialling:
    """One session's dialling, with a handshake behind it."""

    def __init__(self, reactor: Reactor, upstream: Upstream, caller: Caller) -> None:
        self._reactor = reactor
        self._caller = caller
        self.peer = caller.peer
        self._handshake: Handshake | None = None
        self._attempt = upstream.dial(self)
        self.endpoint: Endpoint | None = None
        self.attempts = 1
        self.started = reactor.now
        self.deadline = reactor.now + PATIENCE

    def go(self) -> None:
        self._attempt.go()

    def timed_out(self) -> None:
        self.abandon()
        self._caller.dial_failed(Cause.DIAL_TIMEOUT)

    def abandon(self) -> None:
        if self._handshake is None:
            self._attempt.abandon()
        else:
            self._handshake.abandon()

    def dialled(self, connection: Socket, endpoint: Endpoint, *, watched: bool) -> None:
        self.endpoint = endpoint
        self._handshake = Handshake(
            self._reactor,
            connection,
            client_context(),
            server_side=False,
            server_hostname=SERVER_NAME,
            caller=self,
            deadline=self.deadline,
            watched=watched,
        )
        self._handshake.go()

    def dial_failed(self, cause: Cause) -> None:
        self._caller.dial_failed(cause)

    def secured(self, tls: TlsSocket) -> None:
        assert self.endpoint is not None
        self._caller.dialled(tls, self.endpoint, watched=True)

    def not_secured(self, error: OSError) -> None:  # noqa: ARG002
        self._caller.dial_failed(Cause.DIAL_REFUSED)

    def on_fault(self) -> None:
        self._caller.on_fault()


class SealedUpstream:
    """A dialer of TLS."""

    def __init__(self, reactor: Reactor, upstream: Upstream) -> None:
        self._reactor = reactor
        self._upstream = upstream

    def dial(self, caller: Caller) -> SealedDialling:
        return SealedDialling(self._reactor, self._upstream, caller)


class Welcome:
    """A client of the back, until it is secured."""

    def __init__(self, route: Route, peer: object) -> None:
        self._route = route
        self._peer = peer

    def secured(self, tls: TlsSocket) -> None:
        self._route.relay.reactor.unwatch(tls.fileno())  # a session watches its client once it has dialled
        Session(self._route, tls, self._peer).start()

    def not_secured(self, error: OSError) -> None:
        say("internal_error", error=str(error))

    def on_fault(self) -> None:
        say("internal_error")


class BackListener:
    """Accepts the clients of a back, and has them shake hands."""

    def __init__(self, reactor: Reactor, bound: socket.socket, route: Route) -> None:
        self._reactor = reactor
        self._bound = bound
        self._route = route
        reactor.watch(bound.fileno(), IN, self)

    def on_event(self, events: int) -> None:  # noqa: ARG002
        with suppress(BlockingIOError):
            client, peer = self._bound.accept()
            Handshake(
                self._reactor,
                client,
                server_context(),
                server_side=True,
                server_hostname=None,
                caller=Welcome(self._route, peer),
                deadline=self._reactor.now + PATIENCE,
                watched=False,
            ).go()

    def on_fault(self) -> None:
        say("internal_error")


class Sealing:
    """The process."""

    def __init__(self) -> None:
        self._stopped = False
        self.reactor = Reactor(self._on_fault)
        self._sessions = Sessions(1 << 20, self._on_end)
        self._relay = Relay(self.reactor, PipePool(64))
        self._resolver = Resolver(self.reactor, lambda *_: None)

    def add(self, name: str, listen: str, to: str) -> None:
        """Open a front and a back."""
        back = listening_socket(endpoint_of(ListenAddress.parse("127.0.0.1:0")), reuse_port=False)
        where = peer_text(back.getsockname())
        BackListener(self.reactor, back, self._route(f"{name}-back", where, self._upstream(to)))
        front = listening_socket(endpoint_of(ListenAddress.parse(listen)), reuse_port=False)
        listener = peer_text(front.getsockname())
        route = self._route(name, listener, SealedUpstream(self.reactor, self._upstream(where)))
        Listener(self.reactor, front, route, self, shared=False)
        say("listening", rule=name, listener=listener)

    def _upstream(self, to: str) -> Upstream:
        return Upstream(self.reactor, self._resolver, [TargetAddress.parse(to)], PATIENCE)

    def _route(self, name: str, listener: str, dialer: Upstream | SealedUpstream) -> Route:
        return Route(name, listener, dialer, IDLE, self._relay, self._sessions)

    def _on_end(self, session: Session) -> None:
        say(
            "session",
            rule=session.route.rule,
            stage=session.stage,
            cause=session.cause,
            up=session.bytes_up,
            down=session.bytes_down,
        )

    def _on_fault(self, fault: BaseException) -> None:
        say("internal_error", error=repr(fault))

    def listener_paused(self, listener: Listener, error: str) -> None:  # noqa: ARG002
        say("internal_error", error=error)

    def listener_resumed(self, listener: Listener) -> None:
        """It was never paused."""

    def stop(self, *_: object) -> None:
        self._stopped = True

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self.stop)
        say("ready")
        while not self._stopped:
            self.reactor.turn(0.1)
        self._sessions.on_end = lambda _: None
        self._sessions.cut(Cause.DRAIN)
        self.reactor.turn(0.0)
        say("stopped")


def main(arguments: list[str]) -> None:
    """Open what each three words say: name, where to listen, where to forward."""
    sealing = Sealing()
    for at in range(0, len(arguments), 3):
        sealing.add(*arguments[at : at + 3])
    sealing.run()


if __name__ == "__main__":
    main(sys.argv[1:])
