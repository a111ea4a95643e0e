"""From a TOML document to the model: every table on its own, so that one mistake hides no other."""

from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from msgspec import UNSET

from appliance.ruleset.finding import Finding, Path, found
from appliance.ruleset.keys import HEADERS, Key, Table, keys_of, literal, unknown_hint
from appliance.ruleset.kinds import (
    LISTENERS,
    NOTATIONS,
    TARGETS,
    TUNNEL_LISTENERS,
    A,
    Notation,
    decode_custom,
    each_address,
)
from appliance.ruleset.model import DefaultsTable, File, GatewayTable, RuleTable
from appliance.ruleset.rules import Protocol
from appliance.ruleset.seen import TUNNEL, Seen, SeenAgent, SeenTunnel
from appliance.ruleset.tunnel_tables import AgentTable, TunnelTable
from appliance.values import Misread

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(slots=True)
class Decoded:
    """A document's model, None where there are findings, with what was found and seen on the way."""

    file: File | None = None
    rules: list[Seen] = field(default_factory=list)
    tunnel: SeenTunnel = field(default_factory=SeenTunnel)
    findings: list[Finding] = field(default_factory=list)


def decode(document: dict[str, object]) -> Decoded:
    """Decode a whole document."""
    decoded = Decoded()
    _explain_unknown(decoded, File, (), document)
    gateway = _table(decoded, GatewayTable, ("gateway",), document.get("gateway", {}))
    defaults = _table(decoded, DefaultsTable, ("defaults",), document.get("defaults", {}))
    rules = _rules(decoded, document)
    tunnel = _tunnel(decoded, document)
    agents = _agents(decoded, document)
    if not decoded.findings and gateway and defaults:
        decoded.file = File(
            gateway=gateway,
            defaults=defaults,
            rule=tuple(rules),
            tunnel=UNSET if tunnel is None else tunnel,
            agent=tuple(agents),
        )
    return decoded


def _table(decoded: Decoded, table: type[T], path: Path, raw: object) -> T | None:
    if not isinstance(raw, dict):
        header = HEADERS[table]
        decoded.findings.append(
            Finding(
                path,
                f"wants a table, found {found(raw)}",
                f"write {header} on a line of its own, its keys below",
            )
        )
        return None
    try:
        return msgspec.convert(raw, table, dec_hook=decode_custom)
    except msgspec.ValidationError as error:
        before = len(decoded.findings)
        _explain(decoded, table, path, raw)
        if len(decoded.findings) == before:
            decoded.findings.append(Finding(path, str(error)))
        return None


def _rules(decoded: Decoded, document: dict[str, object]) -> list[RuleTable]:
    defaults = document.get("defaults")
    defaults = defaults if isinstance(defaults, dict) else {}
    if document.get("rule", []) == [] and not _may_be_meant(document, "[[rule]]"):
        hint = "add [[rule]], and below it name, listen and to"
        path: Path = ("rule",) if "rule" in document else ()
        decoded.findings.append(Finding(path, "there is no [[rule]], so nothing would be forwarded", hint))
    rules = [_rule(decoded, path, raw, defaults) for path, raw in _each(decoded, RuleTable, document)]
    return [rule for rule in rules if rule is not None]


def _each(decoded: Decoded, table: Table, document: dict[str, object]) -> list[tuple[Path, object]]:
    """Give the tables of a list, each with its path; a single one too, which is a mistake."""
    header = HEADERS[table]
    name = header.strip("[]")
    raw = document.get(name, [])
    if isinstance(raw, list):
        return [((name, index), element) for index, element in enumerate(raw)]
    if isinstance(raw, dict):
        hint = f"write {header}, with two brackets on each side: a file has a list of {name}s"
        what = f"is one table, where a list of {name}s is wanted"
        decoded.findings.append(Finding((name,), what, hint, at_key=True))
        return [((name,), raw)]
    hint = f"write {header} on a line of its own, its keys below"
    decoded.findings.append(Finding((name,), f"wants a list of tables, found {found(raw)}", hint))
    return []


def _may_be_meant(document: dict[str, object], header: str) -> bool:
    """Say whether a table that is no known one may be meant for this one."""
    others = (name for name in document if name not in keys_of(File))
    return any(unknown_hint(File, name) == f"did you mean {header}?" for name in others)


def _tunnel(decoded: Decoded, document: dict[str, object]) -> TunnelTable | None:
    decoded.tunnel.is_there = "tunnel" in document or _may_be_meant(document, "[tunnel]")
    if "tunnel" not in document:
        return None
    raw = document["tunnel"]
    if isinstance(raw, dict):
        decoded.tunnel.listen = _understood(TUNNEL_LISTENERS, (*TUNNEL, "listen"), raw.get("listen", []))
    return _table(decoded, TunnelTable, TUNNEL, raw)


def _agents(decoded: Decoded, document: dict[str, object]) -> list[AgentTable]:
    agents = []
    for path, raw in _each(decoded, AgentTable, document):
        agent = _table(decoded, AgentTable, path, raw)
        name = agent.name if agent else _name(AgentTable, raw)
        allowed = UNSET if agent is None else agent.allow_to
        decoded.tunnel.agents.append(SeenAgent(path, name, None if allowed is UNSET else tuple(allowed)))
        agents += [agent] if agent else []
    decoded.tunnel.has_agents = document.get("agent", []) != [] or _may_be_meant(document, "[[agent]]")
    return agents


def _rule(decoded: Decoded, path: Path, raw: object, defaults: dict[str, object]) -> RuleTable | None:
    rule = _table(decoded, RuleTable, path, raw)
    if isinstance(raw, dict):
        decoded.rules.append(_seen(path, raw, rule, defaults))
    return rule


def _seen(path: Path, raw: dict[str, object], rule: RuleTable | None, defaults: dict[str, object]) -> Seen:
    """Give what is right in a rule; `rule` is None where something is wrong with it."""
    if rule is None:
        name = _name(RuleTable, raw)
        listen = _understood(LISTENERS, (*path, "listen"), raw.get("listen", []))
        to = _understood(TARGETS, (*path, "to"), raw.get("to", []))
    else:
        name = rule.name
        listen = _placed((*path, "listen"), raw["listen"], rule.listen)
        to = _placed((*path, "to"), raw["to"], rule.to)
    tables = ((path, raw), (("defaults",), defaults))
    return Seen(
        path,
        name,
        listen,
        to,
        protocol=_protocol(raw, defaults),
        flow_keys=tuple(key.name for key in keys_of(RuleTable).values() if key.for_flows and key.name in raw),
        session_keys=tuple(
            key.name for key in keys_of(RuleTable).values() if key.for_sessions and key.name in raw
        ),
        max_flows=_number("max_flows", tables),
        max_flows_per_client=_number("max_flows_per_client", tables),
        via=_via(raw),
        is_transparent=raw.get("source") == "client",
    )


def _name(table: Table, raw: object, key: str = "name") -> str | None:
    """Give a name that a table has, if it is right."""
    name = raw.get(key) if isinstance(raw, dict) else None
    return name if isinstance(name, str) and not _explain_value(keys_of(table)[key], (), name) else None


def _via(raw: dict[str, object]) -> str | None:
    return (_name(RuleTable, raw, "via") or "") if "via" in raw else None


def _protocol(raw: dict[str, object], defaults: dict[str, object]) -> Protocol | None:
    written = raw.get("protocol", defaults.get("protocol", Protocol.TCP))
    return next((protocol for protocol in Protocol if protocol == written), None)


def _number(name: str, tables: tuple[tuple[Path, dict[str, object]], ...]) -> tuple[Path, int] | None:
    """Give what the first of these tables that has a key says, if it is right."""
    path, value = next(((path, table[name]) for path, table in tables if name in table), ((), None))
    if not isinstance(value, int) or _explain_value(keys_of(RuleTable)[name], path, value):
        return None
    return (*path, name), value


def _placed(path: Path, raw: object, addresses: tuple[A, ...]) -> tuple[tuple[Path, A], ...]:
    if isinstance(raw, list):
        return tuple(((*path, index), address) for index, address in enumerate(addresses))
    return ((path, addresses[0]),)


def _understood(notation: Notation[A], path: Path, raw: object) -> tuple[tuple[Path, A], ...]:
    return tuple(
        (path + below, address)
        for below, address in each_address(notation, raw)
        if not isinstance(address, Misread)
    )


def _explain(decoded: Decoded, table: Table, path: Path, raw: dict[str, object]) -> None:
    _explain_unknown(decoded, table, path, raw)
    for key in keys_of(table).values():
        if key.name in raw:
            decoded.findings.extend(_explain_value(key, (*path, key.name), raw[key.name]))
        elif key.is_required:
            hint = f"add {key.name} = {literal(key.examples[0])}"
            decoded.findings.append(Finding((*path, key.name), "is missing", hint, at_key=True))


def _explain_unknown(decoded: Decoded, table: Table, path: Path, raw: dict[str, object]) -> None:
    known = keys_of(table)
    decoded.findings.extend(
        Finding((*path, name), "is no known key", unknown_hint(table, name), at_key=True)
        for name in raw
        if name not in known
    )


def _explain_value(key: Key, path: Path, raw: object) -> list[Finding]:
    if key.custom is not None and key.custom in NOTATIONS:
        misreads = NOTATIONS[key.custom].misreads(raw)
        return [Finding(path + below, misread.what, misread.hint) for below, misread in misreads]
    try:
        msgspec.convert(raw, key.type, dec_hook=decode_custom)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, Misread):
            return [Finding(path, error.__cause__.what, error.__cause__.hint)]
        hint = f"such as {key.name} = {literal(key.example(raw))}"
        return [Finding(path, f"wants {key.wants}, found {found(raw)}", hint)]
    return []
