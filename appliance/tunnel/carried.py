"""A session on the agent: its client side is a data channel that the gateway has opened a session on."""

from typing import Final, Protocol

from appliance.net.session import Route, Session
from appliance.net.sockets import Endpoint, Sealed, Socket, sockaddr_of
from appliance.outcome import Cause, Stage
from appliance.tunnel import returning
from appliance.tunnel.messages import Messages
from appliance.wire.messages import Failed, Limit, Open, Opened

NO_SLOT: Final = 0
"""Where no deadline is: that of a session which ends before it is dialled."""


class Returns(returning.Returns, Protocol):
    """Where data channels come from, and may go back to. What is left to the caller is to be closed."""

    def takes_back(self, connection: Socket) -> bool:
        """Take one whose session has ended in order, which is in the epoll set; or leave it."""

    def keeps(self, connection: Socket) -> bool:
        """Take one on which nothing was opened after all, which is not in the epoll set; or leave it."""


class CarriedSession(Session):
    """As any session, but that the gateway is told how the dial went, before anything else."""

    __slots__ = ("_is_told", "_local", "_returns")

    def __init__(self, route: Route, channel: Socket, order: Open, returns: Returns) -> None:
        super().__init__(route, channel, sockaddr_of(order.client))
        self._returns = returns
        self.id = order.session
        self._local = order.local
        self._slot = NO_SLOT
        self._is_told = False

    def dialled(self, connection: Socket, endpoint: Endpoint, *, watched: bool) -> None:
        """Tell the gateway, and relay."""
        try:
            self._tell(Opened(endpoint.text))
        except OSError:
            self.connection = connection
            self.end(Cause.CLIENT_RESET)
            return
        super().dialled(connection, endpoint, watched=watched)

    def dial_failed(self, cause: Cause) -> None:
        """Tell the gateway, and end; where descriptors are short, give up the pipes that nobody uses."""
        if cause is Cause.FD_LIMIT:  # an agent has no listener that would do so (`net.listener`)
            self.route.relay.pipes.trim()
        self.refuse(cause)

    def refuse(self, cause: Cause) -> None:
        """Have the gateway know why there is no endpoint, and end."""
        self.stage = Stage.DIAL
        try:
            self._tell(Failed(cause))
            self._is_told = True
        except OSError:
            pass
        self.end(cause)

    def _tell(self, message: Opened | Failed) -> None:
        Messages(self.route.relay.reactor, self.client, Limit.DATA).say_whole(message)

    def local_text(self) -> str:
        """Write the address that the client reached, at the gateway."""
        return self._local

    def leave_client(self, *, in_order: bool) -> None:
        """Give the channel back, where it can have another session; else close it.

        It is not reset where the gateway was told how the dial went: that would overtake what it was told.
        """
        if isinstance(self.client, Sealed) and self._is_given_back(in_order=in_order):
            return
        super().leave_client(in_order=in_order or self._is_told)

    def _is_given_back(self, *, in_order: bool) -> bool:
        if self._is_told:
            return self._returns.keeps(self.client)
        return (
            in_order and self.up is not None and self.up.hand_back() and self._returns.takes_back(self.client)
        )
