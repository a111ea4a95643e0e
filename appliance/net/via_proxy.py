"""Through a proxy: what happens between the TCP connection to it and the first byte for who is behind it.

A `Passage` owns the connected socket while it lasts, and calls exactly one of its caller's `passed` and
`not_passed`, unless it is abandoned. It reads with MSG_PEEK and takes out of the socket what is the proxy's
and no byte more: what follows is read by TLS, straight from the file descriptor, and cannot be put back.
"""

import os
from socket import MSG_PEEK
from typing import Final, Protocol

from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.sockets import DONTWAIT, Socket
from appliance.values import Proxy, TargetAddress
from appliance.wire.http_connect import HttpConnect
from appliance.wire.socks5 import Socks5

_READ: Final = 4096


class Caller(Protocol):
    """Who wants to get through."""

    def passed(self, connection: Socket) -> None:
        """Take the way that is open: the socket is in the epoll set, for IN, with a handler that is gone.

        Give it one (`Reactor.hand_over`) before this turn ends.
        """

    def not_passed(self, why: str) -> None:
        """There is no way, and the socket is closed; `why` is a clause for the log and the operator."""

    def on_fault(self) -> None:
        """The passage raised; the socket is closed."""


class Passage:
    """One try to get through a proxy; the handler of the connection to it."""

    __slots__ = ("_ask", "_caller", "_connection", "_deadline", "_reactor", "_slot", "_unsent")

    def __init__(
        self,
        reactor: Reactor,
        caller: Caller,
        connection: Socket,
        proxy: Proxy,
        target: TargetAddress,
        deadline: float,
    ) -> None:
        """`connection` leads to the proxy; `deadline` is in the reactor's time; it starts with `go`."""
        self._reactor = reactor
        self._caller = caller
        self._connection: Socket | None = connection
        self._ask = _question(proxy, target)
        self._unsent = b""
        self._deadline = deadline
        self._slot: int | None = None

    def go(self, *, watched: bool) -> None:
        """Start; `watched`: the socket is in the epoll set already, as `net.dial` gives it."""
        assert self._connection is not None
        fd = self._connection.fileno()
        if watched:
            self._reactor.hand_over(fd, self)
        else:
            try:
                self._reactor.watch(fd, OUT, self)
            except OSError as error:
                self._connection.close()
                self._connection = None
                self._caller.not_passed(os.strerror(error.errno or 0))
                return
        self._slot = self._reactor.arm(self._deadline, self)
        self._unsent = self._ask.begin()
        self._send()

    def on_event(self, events: int) -> None:
        """Send what is left, or take what the proxy says."""
        if self._unsent and events & OUT:
            self._send()
        elif self._connection is not None:
            self._receive(self._connection)

    def _send(self) -> None:
        connection = self._connection
        assert connection is not None
        try:
            self._unsent = self._unsent[connection.send(self._unsent, DONTWAIT) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(f"the proxy has ended the connection: {error.strerror}")
            return
        # While there is something to send, nothing is due from the proxy but its end, which both tell of.
        self._reactor.rewatch(connection.fileno(), OUT if self._unsent else IN)

    def _receive(self, connection: Socket) -> None:
        try:
            said = connection.recv(_READ, MSG_PEEK | DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(f"the proxy has ended the connection: {error.strerror}")
            return
        if not said:
            self._fail("the proxy has ended the connection without an answer")
            return
        self._unsent += self._ask.feed(said)
        connection.recv(len(said) - len(self._ask.surplus), DONTWAIT)
        if self._ask.failure:
            self._fail(self._ask.failure)
        elif self._ask.is_done:
            self._pass(connection)
        elif self._unsent:
            self._send()

    def _pass(self, connection: Socket) -> None:
        self._disarm()
        self._connection = None
        self._caller.passed(connection)

    def _disarm(self) -> None:
        if self._slot is not None:
            self._reactor.timers.cancel(self._slot, self)
            self._slot = None

    def abandon(self) -> None:
        """Nobody wants it any more; leave nothing behind. One that is over is no error."""
        self._disarm()
        if self._connection is not None:
            self._reactor.forget(self._connection.fileno(), self._connection.close)
            self._connection = None

    def _fail(self, why: str) -> None:
        self.abandon()
        self._caller.not_passed(why)

    def on_deadline(self, now: float) -> None:
        """The proxy has taken too long."""
        if now < self._deadline:
            self._slot = self._reactor.arm(self._deadline, self)
            return
        self._slot = None
        self._fail("the proxy has not answered in time")

    def on_fault(self) -> None:
        """Its own code raised: the caller's try is over."""
        self.abandon()
        self._caller.on_fault()


def _question(proxy: Proxy, target: TargetAddress) -> HttpConnect | Socks5:
    """Make the client's side of what the proxy speaks. A name is the proxy's to resolve."""
    if proxy.scheme == "http":
        return HttpConnect(str(target), proxy.user, proxy.password)
    return Socks5(target.host, target.first_port, proxy.user, proxy.password)
