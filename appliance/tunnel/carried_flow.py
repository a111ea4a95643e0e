"""A flow on the agent: its client side is a data channel that the gateway has opened a flow on."""

from typing import TYPE_CHECKING, Final, cast

from appliance.net.flow import ClientAddress, Flow
from appliance.net.flow_route import FlowRoute
from appliance.net.sockets import Endpoint, Socket
from appliance.outcome import Cause
from appliance.tunnel.datagram_channel import DatagramChannel, Phase
from appliance.tunnel.messages import Messages
from appliance.wire.messages import Failed, Limit, Open, Opened

if TYPE_CHECKING:
    from collections.abc import Hashable

    from appliance.net.source import Source

KEY: Final = "flow"
"""A channel carries one."""

MOST_READS: Final = 32
"""Datagrams of one channel in a turn."""


class CarriedFlow(Flow):
    """As any flow, but that the gateway is told of its endpoint, and of its end."""

    __slots__ = ("_channel", "_connection", "_is_told")

    def __init__(
        self, front: "ChannelFront", client: ClientAddress, connection: Socket, channel: DatagramChannel
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._is_told = False
        super().__init__(front, KEY, client, cast("Source", ChannelSource(channel)))

    def reached(self, connection: Socket, endpoint: Endpoint) -> None:
        """There is an endpoint: tell the gateway, the first time."""
        if not self._is_told:
            self._is_told = True
            try:
                self._say(Opened(endpoint.text))
            except OSError:
                self.connection = connection
                self.end(Cause.CLIENT_RESET)
                return
            self._channel.phase = Phase.OPEN
        super().reached(connection, endpoint)

    def unreached(self, cause: Cause) -> None:
        """There is none: tell the gateway, and end."""
        if not self._is_told:
            self._is_told = True
            try:
                self._say(Failed(cause))
                self._channel.phase = Phase.UNUSED
            except OSError:
                cause = Cause.CLIENT_RESET if cause is Cause.INTERNAL else cause
        super().unreached(cause)

    def _say(self, message: Opened | Failed) -> None:
        Messages(self.route.datagrams.reactor, self._connection, Limit.DATA).say_whole(message)

    def end(self, cause: Cause) -> None:
        """End the flow; its channel goes back, or is closed."""
        if self.cause is None:
            super().end(cause)
            self._channel.forget()


class ChannelSource:
    """Where a carried flow's answers leave from: the channel."""

    __slots__ = ("controls", "sendmsg", "sendto")

    def __init__(self, channel: DatagramChannel) -> None:
        self.sendto = channel.sendto
        self.sendmsg = channel.sendmsg_to
        self.controls: list[tuple[int, int, bytes]] = []


class ChannelFront:
    """The listener of a flow that came through a tunnel; the handler of its channel's fd."""

    __slots__ = ("_buffer", "_channel", "flows", "route")

    def __init__(self, route: FlowRoute, channel: DatagramChannel) -> None:
        self.route = route
        self._channel = channel
        self._buffer = memoryview(route.datagrams.buffer)
        self.flows: dict[Hashable, Flow] = {}

    def begin(self, order: Open, client: ClientAddress, connection: Socket, refusal: Cause | None) -> None:
        """Begin the flow; or, with a refusal, say why there is none."""
        flow = CarriedFlow(self, client, connection, self._channel)
        flow.id = order.session
        self.flows[KEY] = flow
        self.route.flows.admit(flow, client[0], self.route.datagrams.evict)
        self.route.datagrams.reactor.hand_over(connection.fileno(), self)
        if refusal is not None:
            flow.unreached(refusal)
        else:
            flow.start(0)

    def on_event(self, events: int) -> None:  # noqa: ARG002  what there is, reading tells
        """Send on what the gateway has sent."""
        for _ in range(MOST_READS):
            flow = self.flows.get(KEY)
            if flow is None:
                return
            try:
                count = self._channel.recv_into(self._buffer)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                flow.end(Cause.CLIENT_EOF)
                return
            except OSError:
                flow.end(Cause.CLIENT_RESET)
                return
            flow.forward(self._buffer[:count])

    def looks_for(self, flow: Flow) -> bool:  # noqa: ARG002  as a listener is asked
        """Have the flow wait for its answer."""
        return False

    def again(self, flow: Flow, datagram: bytes) -> None:
        """Begin no other flow: the gateway does, with the client's next datagram."""

    def on_fault(self) -> None:
        """End the flow: its handler raised."""
        for flow in tuple(self.flows.values()):
            flow.end(Cause.INTERNAL)
