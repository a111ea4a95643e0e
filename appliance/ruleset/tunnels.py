"""Checks of what goes through a tunnel: agents not there, or there twice, and targets they may not reach."""

import difflib
from collections.abc import Iterator

from appliance.problem import quoted
from appliance.ruleset.finding import Finding, Path
from appliance.ruleset.seen import Seen, SeenAgent, SeenTunnel
from appliance.values import TargetAddress, uncovered


def tunnels(rules: list[Seen], tunnel: SeenTunnel) -> Iterator[Finding]:
    """Give what is wrong between rules, agents and [tunnel]."""
    if tunnel.agents and not tunnel.is_there:
        what = "there is no [tunnel], so no agent could come in"
        hint = "add [tunnel], and below it listen and state"
        yield Finding(tunnel.agents[0].path, what, hint, at_key=True)
    yield from _names(tunnel.agents)
    agents = {agent.name: agent for agent in reversed(tunnel.agents) if agent.name is not None}
    for rule in rules:
        if rule.via:
            yield from _via(rule, rule.via, agents, tunnel)
        if rule.is_transparent:
            yield from _source(rule)


def _names(agents: list[SeenAgent]) -> Iterator[Finding]:
    first: dict[str, Path] = {}
    for agent in agents:
        if agent.name is None:
            continue
        path = (*agent.path, "name")
        if agent.name in first:
            hint = "an [[agent]] stands once; several programs may serve it (portway enroll, once for each)"
            what = f"{quoted(agent.name)} is already the name of an agent"
            yield Finding(path, what, hint, others=(first[agent.name],))
        first.setdefault(agent.name, path)


def _via(rule: Seen, via: str, agents: dict[str, SeenAgent], tunnel: SeenTunnel) -> Iterator[Finding]:
    if via in agents:
        yield from _outside(rule, agents[via])
    elif all(agent.name is not None for agent in tunnel.agents) and (agents or not tunnel.has_agents):
        # Of agents whose name could not be understood, any may be the one that is meant.
        yield Finding((*rule.path, "via"), f"there is no agent {quoted(via)}", _missing(via, agents, tunnel))


def _missing(via: str, agents: dict[str, SeenAgent], tunnel: SeenTunnel) -> str:
    """Say which agent was meant, or what to add."""
    if near := difflib.get_close_matches(via, agents, n=1):
        return f"did you mean {quoted(near[0])}?"
    add = f"add [[agent]], and below it name = {quoted(via)}"
    return add if tunnel.is_there else f"{add}; and [tunnel], and below it listen and state"


def _outside(rule: Seen, agent: SeenAgent) -> Iterator[Finding]:
    """Find targets that the agent may not reach. Of a host name only the agent knows where it leads."""
    if agent.allow_to is None:
        return
    for path, to in rule.to:
        port = uncovered(to, agent.allow_to)
        if port is None:
            continue
        which = f": port {port} is outside" if port > to.first_port else ""
        what = f"{to} is not in allow_to of agent {quoted(agent.name or '')}{which}"
        hint = f"add {quoted(_as_allowed(to))} to it, or name a target that is in it"
        yield Finding(path, what, hint, others=((*agent.path, "allow_to"),))


def _as_allowed(to: TargetAddress) -> str:
    """Write a target as allow_to has it: without the interface, of which it knows nothing."""
    host, percent, rest = str(to).partition("%")
    return host + "]" + rest.partition("]")[2] if percent and not to.path else str(to)


def _source(rule: Seen) -> Iterator[Finding]:
    path = (*rule.path, "source")
    for other, address in (*rule.listen, *rule.to):
        if address.path:
            what = f'{address} is a unix socket, which has no address for source = "client"'
            hint = 'write an address and a port; proxy_protocol = "v2" tells an endpoint that speaks it'
            yield Finding(other, what, hint, others=(path,))
