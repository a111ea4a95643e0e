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
from appliance.values import ListenAddress, Misread, TargetAddress

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Seen:
    """What could be understood of a rule, right or wrong as a whole: what the checks across rules look at."""

    path: Path
    name: str | None = None
    listen: tuple[tuple[Path, ListenAddress], ...] = ()
    to: tuple[tuple[Path, TargetAddress], ...] = ()


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
    raw = document.get("rule", [])
    if isinstance(raw, dict):
        hint = "write [[rule]], with two brackets on each side: a file has a list of rules"
        decoded.findings.append(
            Finding(("rule",), "is one table, where a list of rules is wanted", hint, at_key=True)
        )
        _rule(decoded, ("rule",), raw)
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
    rules = [_rule(decoded, ("rule", index), element) for index, element in enumerate(raw)]
    return [rule for rule in rules if rule is not None]


def _rule(decoded: Decoded, path: Path, raw: object) -> RuleTable | None:
    rule = _table(decoded, RuleTable, path, raw)
    if rule is not None and isinstance(raw, dict):
        listen = _placed((*path, "listen"), raw["listen"], rule.listen)
        to = _placed((*path, "to"), raw["to"], rule.to)
        decoded.rules.append(Seen(path, rule.name, listen, to))
    elif isinstance(raw, dict):
        decoded.rules.append(_seen(path, raw))
    return rule


def _placed(path: Path, raw: object, addresses: tuple[A, ...]) -> tuple[tuple[Path, A], ...]:
    if isinstance(raw, list):
        return tuple(((*path, index), address) for index, address in enumerate(addresses))
    return ((path, addresses[0]),)


def _seen(path: Path, raw: dict[str, object]) -> Seen:
    """Give what is right in a rule that has something wrong."""
    name = raw.get("name")
    wrong_name = _explain_value(keys_of(RuleTable)["name"], path, name)
    return Seen(
        path,
        name if isinstance(name, str) and not wrong_name else None,
        _understood(ListenAddress, (*path, "listen"), raw.get("listen", [])),
        _understood(TargetAddress, (*path, "to"), raw.get("to", [])),
    )


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
        hint = f"such as {key.name} = {literal(key.examples[0])}"
        return [Finding(path, f"wants {key.wants}, found {found(raw)}", hint)]
    return []


def _explain_addresses(kind: type[A], path: Path, raw: object) -> list[Finding]:
    return [
        Finding(path + below, misread.what, misread.hint)
        for below, misread in each_address(kind, raw)
        if isinstance(misread, Misread)
    ]
