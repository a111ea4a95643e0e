"""A session on the agent: its client side is a data channel that the gateway has opened a session on."""

from typing import Final

from appliance.net.session import Route, Session
from appliance.net.sockets import Endpoint, Socket, sockaddr_of
from appliance.outcome import Cause, Stage
from appliance.tunnel.messages import Messages
from appliance.wire.messages import Failed, Limit, Open, Opened

NO_SLOT: Final = 0
"""Where no deadline is: that of a session which ends before it is dialled."""


class CarriedSession(Session):
    """As any session, but that the gateway is told how the dial went, before anything else."""

    __slots__ = ("_is_told", "_local")

    def __init__(self, route: Route, channel: Socket, order: Open) -> None:
        super().__init__(route, channel, sockaddr_of(order.client))
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

    def abort_client(self) -> None:
        """Reset the channel, unless the gateway has been told: a reset would overtake that."""
        if not self._is_told:
            super().abort_client()
