"""The keys of the model, as messages and the reference page need them."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import inspect

from appliance.ruleset.model import DefaultsTable, File, GatewayTable, RuleTable
from appliance.ruleset.tunnel_tables import AgentTable, TunnelTable

Table = type[msgspec.Struct]
Kind = type[object]

HEADERS: Final[Mapping[Table, str]] = MappingProxyType(
    {
        RuleTable: "[[rule]]",
        DefaultsTable: "[defaults]",
        GatewayTable: "[gateway]",
        TunnelTable: "[tunnel]",
        AgentTable: "[[agent]]",
    }
)
"""The tables of a file as their headers are written, the one most keys belong to first."""

_HEADER_OF: Final = MappingProxyType({header.strip("[]"): header for header in HEADERS.values()})

_LONGEST_COMPARED: Final = 64


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table.

    `default` is the value that leaving it out stands for; None where it may not be left out, and where that
    stands for no value: `otherwise` then says in words what it means. `for_flows` is for UDP flows alone,
    `for_sessions` for TCP sessions. `custom` is its kind where msgspec does not know it (`kinds`).
    """

    name: str
    type: object
    description: str
    wants: str
    examples: tuple[object, ...]
    aka: tuple[str, ...]
    is_required: bool
    default: str | None
    otherwise: str | None
    for_flows: bool
    for_sessions: bool
    custom: Kind | None

    def example(self, raw: object) -> object:
        """Give the example that is nearest to what was written instead."""
        texts = [example for example in self.examples if isinstance(example, str)]
        written = raw[:_LONGEST_COMPARED].lower() if isinstance(raw, str) else ""
        return next(iter(difflib.get_close_matches(written, texts, n=1)), self.examples[0])


@cache
def keys_of(table: Table) -> Mapping[str, Key]:
    """Give the keys a table may have, by name, in the model's order."""
    info = inspect.type_info(table)
    fields = info.fields if isinstance(info, inspect.StructType) else ()
    types = {field.encode_name: field.type for field in msgspec.structs.fields(table)}
    return MappingProxyType(
        {field.encode_name: _key(table, field, types[field.encode_name]) for field in fields}
    )


def _key(table: Table, field: inspect.Field, type_: object) -> Key:
    meta = field.type if isinstance(field.type, inspect.Metadata) else inspect.Metadata(field.type)
    schema, extra = meta.extra_json_schema or {}, meta.extra or {}
    return Key(
        name=field.encode_name,
        type=type_,
        description=schema.get("description", ""),
        wants=extra.get("wants", ""),
        examples=tuple(schema.get("examples", ())),
        aka=extra.get("aka", ()),
        is_required=field.required,
        default=_default(field),
        otherwise=_otherwise(table, field, extra),
        for_flows=extra.get("for_flows", False),
        for_sessions=extra.get("for_sessions", False),
        custom=meta.type.cls if isinstance(meta.type, inspect.CustomType) else None,
    )


def _default(field: inspect.Field) -> str | None:
    if field.default is not msgspec.NODEFAULT:
        return str(field.default)
    return None if field.default_factory is msgspec.NODEFAULT else str(field.default_factory())


def _otherwise(table: Table, field: inspect.Field, extra: Mapping[str, str]) -> str | None:
    """Say what leaving a key out means where that is no value; most keys of a rule are in [defaults] too."""
    if field.required or _default(field) is not None:
        return None
    if table is RuleTable and field.encode_name in DefaultsTable.__struct_encode_fields__:
        return "as [defaults] has it"
    return extra.get("otherwise")


def literal(example: object) -> str:
    """Write an example as TOML."""
    if isinstance(example, list):
        return f"[{', '.join(literal(item) for item in example)}]"
    return f'"{example}"' if isinstance(example, str) else str(example)


def unknown_hint(table: Table, name: str) -> str:
    """Say what may have been meant by a key that `table` does not have."""
    if homes := _homes(name):
        return f"it belongs in {homes}"
    if meant := _alias(table, name) or _nearest(name):
        if table is File and meant in _HEADER_OF:
            return f"did you mean {_HEADER_OF[meant]}?"
        if meant in _HEADER_OF:
            return f"did you mean {_HEADER_OF[meant]}, on a line of its own?"
        return (
            f"did you mean {meant}?"
            if meant in keys_of(table)
            else f"did you mean {meant}, in {_homes(meant)}?"
        )
    if table is File:
        return f"a file has {', '.join(HEADERS.values())}"
    return f"{HEADERS[table]} has {', '.join(keys_of(table))}"


def _homes(name: str) -> str:
    return " or ".join(header for table, header in HEADERS.items() if name in keys_of(table))


def _alias(table: Table, name: str) -> str | None:
    """Give the key of the table that another program's word stands for."""
    return next((key.name for key in keys_of(table).values() if name.lower() in {key.name, *key.aka}), None)


def _nearest(name: str) -> str | None:
    known = [key for table in (File, *HEADERS) for key in keys_of(table)]
    # Comparing is quadratic in the key's length, and no key of the model is near one of many characters.
    close = difflib.get_close_matches(name[:_LONGEST_COMPARED].lower(), known, n=1)
    return close[0] if close else None
