"""From a TOML document to the model: every table on its own, so that one mistake hides no other."""

from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from appliance.ruleset.finding import Finding, Path, found
from appliance.ruleset.keys import HEADERS, Key, Table, keys_of, literal, unknown_hint
from appliance.ruleset.model import (
    A,
    DefaultsTable,
    File,
    GatewayTable,
    RuleTable,
    decode_custom,
    each_address,
)
from appliance.ruleset.rules import Protocol
from appliance.values import ListenAddress, Misread, TargetAddress

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Seen:
    """What could be understood of a rule, right or wrong as a whole: what the checks across rules look at."""

    path: Path
    name: str | None = None
    listen: tuple[tuple[Path, ListenAddress], ...] = ()
    to: tuple[tuple[Path, TargetAddress], ...] = ()
    protocol: Protocol | None = Protocol.TCP
    """What it carries, that of [defaults] included; None where that could not be understood."""
    flow_keys: tuple[str, ...] = ()
    """Which keys of UDP flows it has of its own."""
    max_flows: tuple[Path, int] | None = None
    max_flows_per_client: tuple[Path, int] | None = None
    """The caps of its flows, those of [defaults] included, each with its place."""


@dataclass(slots=True)
class Decoded:
    """A document's model, None where there are findings, with what was found and seen on the way."""

    file: File | None = None
    rules: list[Seen] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def decode(document: dict[str, object]) -> Decoded:
    """Decode a whole document."""
    decoded = Decoded()
    _explain_unknown(decoded, File, (), document)
    gateway = _table(decoded, GatewayTable, ("gateway",), document.get("gateway", {}))
    defaults = _table(decoded, DefaultsTable, ("defaults",), document.get("defaults", {}))
    rules = _rules(decoded, document)
    if not decoded.findings and gateway and defaults:
        decoded.file = File(gateway=gateway, defaults=defaults, rule=tuple(rules))
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
    raw, defaults = document.get("rule", []), document.get("defaults")
    defaults = defaults if isinstance(defaults, dict) else {}
    if isinstance(raw, dict):
        hint = "write [[rule]], with two brackets on each side: a file has a list of rules"
        decoded.findings.append(
            Finding(("rule",), "is one table, where a list of rules is wanted", hint, at_key=True)
        )
        _rule(decoded, ("rule",), raw, defaults)
        return []
    if not isinstance(raw, list):
        hint = "write [[rule]] on a line of its own, its keys below"
        decoded.findings.append(Finding(("rule",), f"wants a list of tables, found {found(raw)}", hint))
        return []
    others = (name for name in document if name not in keys_of(File))
    if not raw and not any(unknown_hint(File, name) == "did you mean [[rule]]?" for name in others):
        hint = "add [[rule]], and below it name, listen and to"
        path: Path = ("rule",) if "rule" in document else ()
        decoded.findings.append(Finding(path, "there is no [[rule]], so nothing would be forwarded", hint))
    rules = [_rule(decoded, ("rule", index), element, defaults) for index, element in enumerate(raw)]
    return [rule for rule in rules if rule is not None]


def _rule(decoded: Decoded, path: Path, raw: object, defaults: dict[str, object]) -> RuleTable | None:
    rule = _table(decoded, RuleTable, path, raw)
    if isinstance(raw, dict):
        decoded.rules.append(_seen(path, raw, rule, defaults))
    return rule


def _seen(path: Path, raw: dict[str, object], rule: RuleTable | None, defaults: dict[str, object]) -> Seen:
    """Give what is right in a rule; `rule` is None where something is wrong with it."""
    if rule is None:
        name = _name(path, raw)
        listen = _understood(ListenAddress, (*path, "listen"), raw.get("listen", []))
        to = _understood(TargetAddress, (*path, "to"), raw.get("to", []))
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
        max_flows=_number("max_flows", tables),
        max_flows_per_client=_number("max_flows_per_client", tables),
    )


def _name(path: Path, raw: dict[str, object]) -> str | None:
    name = raw.get("name")
    wrong = _explain_value(keys_of(RuleTable)["name"], path, name)
    return name if isinstance(name, str) and not wrong else None


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


def _understood(kind: type[A], path: Path, raw: object) -> tuple[tuple[Path, A], ...]:
    return tuple(
        (path + below, address)
        for below, address in each_address(kind, raw)
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
    if key.name == "listen":
        return _explain_addresses(ListenAddress, path, raw)
    if key.name == "to":
        return _explain_addresses(TargetAddress, path, raw)
    try:
        msgspec.convert(raw, key.type, dec_hook=decode_custom)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, Misread):
            return [Finding(path, error.__cause__.what, error.__cause__.hint)]
        hint = f"such as {key.name} = {literal(key.example(raw))}"
        return [Finding(path, f"wants {key.wants}, found {found(raw)}", hint)]
    return []


def _explain_addresses(kind: type[A], path: Path, raw: object) -> list[Finding]:
    return [
        Finding(path + below, misread.what, misread.hint)
        for below, misread in each_address(kind, raw)
        if isinstance(misread, Misread)
    ]
