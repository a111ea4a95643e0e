"""What a gateway, or an agent, has of tunnels beside its sessions, made before its workers are forked.

`ssl` and `cryptography` are imported by those alone who have tunnels: they take 30 ms and 9 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from appliance.ruleset import Protocol as Carried
from appliance.ruleset import Rule, Ruleset
from appliance.supervisor.tunnel_log import TunnelLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.supervisor.worker import Worker
    from appliance.tunnel.agent import Agent
    from appliance.tunnel.gateway import Gateway, Setup
    from appliance.tunnel.identity import Identity
    from appliance.values import AllowedTarget

TUNNEL: Final = "[tunnel]"
"""The name that the tunnel's listeners have among those of rules; no rule can have it."""


def tunnel_rules(ruleset: Ruleset) -> tuple[Rule, ...]:
    """Give what the tunnel listens on, as a rule: it is bound, kept and told of like one."""
    if ruleset.tunnel is None:
        return ()
    return (
        Rule(
            name=TUNNEL,
            listen=ruleset.tunnel.listen,
            to=(),
            protocol=Carried.TCP,
            connect_timeout=0.0,
            idle_timeout=0.0,
            flow_idle_timeout=0.0,
            responses=None,
            max_flows=None,
            max_flows_per_client=None,
            receive_buffer=0,
        ),
    )


class Plan(Protocol):
    """What the workers of a generation make their tunnels of."""

    @property
    def is_agent(self) -> bool:
        """Whether sessions and flows of any kind may come through tunnels."""

    def gateway(self, worker: Worker) -> Gateway | None:
        """Begin the gateway's end in a worker."""

    def agent(self, worker: Worker) -> Agent | None:
        """Begin the agent's end in a worker."""

    def close(self) -> None:
        """Let go of it: in the master once the generation is gone, and in workers of another one."""


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """Of a gateway whose ruleset has [tunnel]."""

    setup: Setup
    is_agent: bool = False

    def gateway(self, worker: Worker) -> Gateway:
        """Begin the gateway's end in a worker."""
        from appliance.tunnel.gateway import Gateway  # noqa: PLC0415  see above

        return Gateway(
            worker.reactor, self.setup, worker.index, worker.workers, TunnelLog(worker.journal, worker.index)
        )

    def agent(self, worker: Worker) -> None:
        """Begin nothing: a gateway is no agent."""

    def close(self) -> None:
        """Close the passages."""
        self.setup.passages.close()


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """Of an agent."""

    identities: Sequence[Identity]
    allow_to: Sequence[AllowedTarget] | None
    instance: str
    is_agent: bool = True

    def gateway(self, worker: Worker) -> None:
        """Begin nothing: an agent is no gateway."""

    def agent(self, worker: Worker) -> Agent:
        """Begin the agent's end in a worker."""
        from appliance.tunnel.agent import Agent  # noqa: PLC0415  see above

        return Agent(
            worker.reactor,
            worker.resolver,
            worker.relay,
            worker.sessions,
            worker.datagrams,
            self.identities,
            self.allow_to,
            TunnelLog(worker.journal, worker.index),
            worker.transparency,
            instance=self.instance,
            worker=worker.index,
            workers=worker.workers,
        )

    def close(self) -> None:
        """Let go of nothing: workers have the join file's contents only."""


def gateway_plan(ruleset: Ruleset, workers: int) -> GatewayPlan | None:
    """Prepare the tunnels of a ruleset; None where it has none. Raises OSError, ValueError."""
    if ruleset.tunnel is None:
        return None
    from appliance.tunnel.apart import apart  # noqa: PLC0415  see above
    from appliance.tunnel.authority import open_authority  # noqa: PLC0415  see above
    from appliance.tunnel.credentials import server_context  # noqa: PLC0415  see above
    from appliance.tunnel.gateway import Setup  # noqa: PLC0415  see above
    from appliance.tunnel.passage import Passages  # noqa: PLC0415  see above
    from appliance.tunnel.state import State  # noqa: PLC0415  see above

    state = State(ruleset.tunnel.state)

    def certified() -> tuple[str, str, str]:
        authority = open_authority(state)
        return authority.certificate, *authority.serve()

    ca, certificate, key = apart(certified)
    context = server_context(ca, certificate, key)
    return GatewayPlan(Setup(ruleset.tunnel, ruleset.agents, context, state, Passages(workers)))
