"""A gateway as one worker of an agent sees it: its uplinks, one for each of the gateway's workers it serves.

Between an agent of N workers and a gateway of W there are as many control channels as the larger number:
worker i of the agent serves those workers of the gateway whose number is i modulo N, or, where there are
fewer of those than agents' workers, the one that is i modulo W.
"""

import random
from typing import TYPE_CHECKING, Final

from appliance.net.sockets import Endpoint, Socket
from appliance.tunnel.backoff import Backoff
from appliance.tunnel.dialout import Caller, Dialout, Target
from appliance.tunnel.resumption import Resumption
from appliance.tunnel.uplink import Channel, Uplink
from appliance.wire.messages import Open, Renewed, Welcome
from appliance.wire.server_name import agent_name, worker_name

if TYPE_CHECKING:
    import ssl

    from appliance.tunnel.agent import Agent
    from appliance.tunnel.identity import Identity
    from appliance.tunnel.supply import Supply


MOST_LEAVING: Final = 64
"""Control channels of generations that drain."""


def served(worker: int, workers: int, gateway_workers: int) -> set[int]:
    """Say which workers of a gateway this worker of an agent serves."""
    if gateway_workers < workers:
        return {worker % gateway_workers}
    return set(range(worker, gateway_workers, workers))


class Home:
    """One gateway."""

    def __init__(self, agent: "Agent", identity: "Identity", target: Target) -> None:
        self.agent = agent
        self.identity = identity
        self.target = target
        self._first = Uplink(self, agent_name(agent.worker, agent.workers), Backoff(random.random))
        self._more: dict[int, Uplink] = {}
        self._resumption = Resumption()
        self.leaving: set[Channel] = set()
        """Control channels whose gateway has said goodbye, and that serve what they have."""

    def start(self, pause: float) -> None:
        """Dial, after so many seconds."""
        self._first.start_after(pause)

    def dialout(
        self, caller: Caller, server_name: str, at: Endpoint | None, prelude: bytes | None
    ) -> Dialout:
        """Make one try to reach it; with a `prelude` it is not encrypted."""
        context: ssl.SSLContext | None = None if prelude is not None else self.identity.context
        return Dialout(
            self.agent.reactor,
            self.agent.resolver,
            self.target,
            at,
            context,
            server_name,
            prelude or b"",
            caller,
            self._resumption,
        )

    def learn(self, connection: Socket) -> None:
        """Have later handshakes resume the session of a connection, which was read from."""
        self._resumption.learn(connection, self.identity.context)

    def up(self, uplink: Uplink, channel: Channel, welcome: Welcome) -> None:  # noqa: ARG002  as the uplink tells it
        """A control channel is in use: see that there is one to each worker that is ours to serve."""
        self.agent.journal.tunnel_up(self, uplink.peer, welcome)
        if uplink is not self._first:
            return
        wanted = served(self.agent.worker, self.agent.workers, welcome.workers) - {welcome.worker}
        for gone in set(self._more) - wanted:
            self._more.pop(gone).stop()
        for new in wanted - set(self._more):
            self._more[new] = Uplink(self, worker_name(new), Backoff(random.random))
            self._more[new].start()

    def keep(self, channel: Channel) -> None:
        """Keep a control channel whose gateway has said goodbye, for the sake of what it has."""
        if len(self.leaving) >= MOST_LEAVING:
            next(iter(self.leaving)).end("too many goodbyes")
        self.leaving.add(channel)

    def report_down(self, why: str, pause: float, *, in_order: bool) -> None:
        """A control channel has ended, or could not be made."""
        self.agent.journal.tunnel_down(self, why, pause, in_order=in_order)

    def refresh_name(self) -> None:
        """Ask what the name means now, so that the next try knows: the pause before it is long enough."""
        dialled = self.target.dialled
        if dialled.is_name:
            self.agent.resolver.refresh((dialled.host, dialled.first_port))

    def renewed(self, message: Renewed) -> None:
        """The gateway has made a new certificate."""
        self.identity.renewed(message)

    def carry(self, order: Open, connection: Socket, welcome: Welcome, returns: "Supply") -> None:
        """Carry a session or flow."""
        self.agent.carry(order, connection, welcome, self, returns)

    @property
    def channel(self) -> Channel | None:
        """A control channel that is in use, if there is one."""
        for uplink in (self._first, *self._more.values()):
            if uplink.channel is not None and uplink.channel.supply is not None:
                return uplink.channel
        return None

    def close(self) -> None:
        """End all of it; sessions go on."""
        for uplink in (self._first, *self._more.values()):
            uplink.close()
        for channel in tuple(self.leaving):
            channel.leave()
