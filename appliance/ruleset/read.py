"""A ruleset from the bytes of its file: the one way in."""

from typing import TypeVar

from msgspec import UNSET, UnsetType

from appliance.problem import Problem
from appliance.ruleset.check import check
from appliance.ruleset.decode import decode
from appliance.ruleset.finding import Finding, dotted
from appliance.ruleset.model import FLOW_IDLE, SESSION_IDLE, DefaultsTable, File, RuleTable
from appliance.ruleset.parse import parse
from appliance.ruleset.rules import Agent, Gateway, ProxyProtocol, Rule, Ruleset, Tunnel
from appliance.ruleset.source import Source
from appliance.ruleset.tunnel_tables import AgentTable, TunnelTable

T = TypeVar("T")
D = TypeVar("D")


def read(text: bytes, file: str) -> Ruleset | tuple[Problem, ...]:
    """Read a ruleset.

    `text` is the file's raw bytes, `file` the name that places give it; nothing is opened. Gives the ruleset,
    or every problem of the text in the order of their places. Never raises, whatever the text holds.
    """
    parsed = parse(text, file)
    if isinstance(parsed, Problem):
        return (parsed,)
    source, document = parsed
    decoded = decode(document)
    findings = decoded.findings + check(decoded.rules, decoded.tunnel)
    if findings or decoded.file is None:
        return problems(source, findings)
    return _complete(decoded.file)


def problems(source: Source, findings: list[Finding]) -> tuple[Problem, ...]:
    """Give findings their places in the text, sorted by them."""
    from appliance.ruleset.places import Places  # noqa: PLC0415 - tomlkit is needed only where there are problems

    places = Places(source)
    return tuple(
        sorted(
            Problem(
                places.of(finding.path, at_key=finding.at_key),
                dotted(finding.path),
                finding.what,
                finding.hint,
                tuple(places.of(other) for other in finding.others),
            )
            for finding in findings
        )
    )


def _complete(file: File) -> Ruleset:
    workers, drain_timeout = file.gateway.workers, float(file.gateway.drain_timeout)
    gateway = Gateway(
        workers=None if workers == "auto" else workers,
        drain_timeout=drain_timeout,
        admin=None if file.gateway.admin is UNSET else str(file.gateway.admin),
    )
    rules = tuple(_rule(rule, file.defaults) for rule in file.rule)
    if file.tunnel is UNSET:
        return Ruleset(gateway=gateway, rules=rules)
    agents = tuple(_agent(agent, file.tunnel) for agent in file.agent)
    return Ruleset(gateway=gateway, rules=rules, tunnel=_tunnel(file.tunnel), agents=agents)


def _tunnel(tunnel: TunnelTable) -> Tunnel:
    return Tunnel(listen=tuple(tunnel.listen), state=str(tunnel.state), heartbeat=float(tunnel.heartbeat))


def _agent(agent: AgentTable, tunnel: TunnelTable) -> Agent:
    return Agent(
        name=agent.name,
        allow_to=None if agent.allow_to is UNSET else tuple(agent.allow_to),
        encryption=_own(agent.encryption, tunnel.encryption),
    )


def _rule(rule: RuleTable, defaults: DefaultsTable) -> Rule:
    protocol = _own(rule.protocol, defaults.protocol)
    idle_timeout = _given(_own(rule.idle_timeout, defaults.idle_timeout))
    header = _own(rule.proxy_protocol, defaults.proxy_protocol) if protocol.carries_tcp else "none"
    return Rule(
        name=rule.name,
        listen=tuple(rule.listen),
        to=tuple(rule.to),
        protocol=protocol,
        connect_timeout=float(_own(rule.connect_timeout, defaults.connect_timeout)),
        idle_timeout=float(SESSION_IDLE if idle_timeout is None else idle_timeout),
        flow_idle_timeout=float(FLOW_IDLE if idle_timeout is None else idle_timeout),
        responses=_given(_own(rule.responses, defaults.responses)),
        max_flows=_given(_own(rule.max_flows, defaults.max_flows)),
        max_flows_per_client=_given(_own(rule.max_flows_per_client, defaults.max_flows_per_client)),
        receive_buffer=int(_own(rule.receive_buffer, defaults.receive_buffer)),
        via=_given(rule.via),
        proxy_protocol=None if header == "none" else ProxyProtocol(header),
        is_transparent=rule.source == "client",
    )


def _own(own: T | UnsetType, default: D) -> T | D:
    """Give what a rule says, else what [defaults] says."""
    return default if own is UNSET else own


def _given(value: T | UnsetType) -> T | None:
    """Give what is said, or None where neither says it."""
    return None if value is UNSET else value
