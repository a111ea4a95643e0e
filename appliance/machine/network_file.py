"""network.toml from its bytes: the network, or every problem of the text, told as a ruleset's are."""

import difflib
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import UNSET

from appliance.machine.network_model import InterfaceTable, NetworkFile, decode_custom
from appliance.problem import Problem
from appliance.ruleset.finding import Finding, Path, found
from appliance.ruleset.keys import Key, Table, keys_of, literal
from appliance.ruleset.parse import parse
from appliance.ruleset.read import problems
from appliance.values import Misread

_AKA: Final = {"interfaces": "interface", "dhcp": "ipv4", "address": "ipv4", "gateway": "gateway4"}


def read_network(text: bytes, file: str) -> NetworkFile | tuple[Problem, ...]:
    """Read network.toml; `file` is the name that places give it. Never raises, whatever the text holds."""
    parsed = parse(text, file)
    if isinstance(parsed, Problem):
        return (parsed,)
    source, document = parsed
    findings = list(_examine(document))
    if findings:
        return problems(source, findings)
    return msgspec.convert(document, NetworkFile, dec_hook=decode_custom)


def _examine(document: dict[str, object]) -> Iterator[Finding]:
    tables = document.get("interface", [])
    yield from _table(NetworkFile, (), {name: raw for name, raw in document.items() if name != "interface"})
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        yield Finding(("interface",), f"wants a list of tables, found {found(tables)}", "write [[interface]]")
        return
    for index, raw in enumerate(tables):
        yield from _table(InterfaceTable, ("interface", index), raw)
        yield from _contradictions(("interface", index), raw)
    yield from _twice(tables)


def _table(table: Table, path: Path, raw: dict[str, object]) -> Iterator[Finding]:
    known = keys_of(table)
    for name, value in raw.items():
        if name not in known:
            yield Finding((*path, name), "is no known key", _meant(table, name), at_key=True)
        else:
            yield from _value(known[name], (*path, name), value)


def _meant(table: Table, name: str) -> str:
    known = list(keys_of(table))
    close = [_AKA[name]] if _AKA.get(name) in known else difflib.get_close_matches(name[:64], known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def _value(key: Key, path: Path, raw: object) -> Iterator[Finding]:
    try:
        msgspec.convert(raw, key.type, dec_hook=decode_custom)
    except msgspec.ValidationError as error:
        cause = error.__cause__
        hint = f"such as {key.name} = {literal(key.example(raw))}"
        if isinstance(cause, Misread):
            yield Finding(path, cause.what, cause.hint or hint)
        else:
            yield Finding(path, f"wants {key.wants}, found {found(raw)}", hint)


def _contradictions(path: Path, raw: dict[str, object]) -> Iterator[Finding]:
    """Find routers that nothing would use."""
    for gateway, way, automatic in (("gateway4", "ipv4", "dhcp"), ("gateway6", "ipv6", "auto")):
        if gateway in raw and raw.get(way, automatic) in {automatic, "off"}:
            hint = f"give {way} an address, or leave {gateway} out"
            yield Finding((*path, gateway), f"is used only where {way} is an address", hint, at_key=True)


def _twice(tables: list[dict[str, object]]) -> Iterator[Finding]:
    """Find interfaces that two tables are for."""
    seen: dict[object, int] = {}
    for index, raw in enumerate(tables):
        for key in ("name", "mac"):
            if key in raw and (first := seen.setdefault((key, raw[key]), index)) != index:
                what = "is what another table is for, too"
                yield Finding(("interface", index, key), what, others=(("interface", first, key),))
        if "name" not in raw and "mac" not in raw and (first := seen.setdefault(UNSET, index)) != index:
            what = "is the second table without name and mac"
            others: tuple[Path, ...] = (("interface", first),)
            yield Finding(("interface", index), what, "say which interface it is for", others=others)
