"""The JSON Schema of a ruleset, made from the model."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from appliance.ruleset.keys import HEADERS, keys_of
from appliance.ruleset.model import AdminAddress, BufferSize, Duration, File, ListenAddresses, TargetAddresses
from appliance.ruleset.patterns import ADMIN, DURATION, LISTEN, SIZE, TARGET

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_NOTATIONS: Final = MappingProxyType(
    {
        "Duration": ("A time with its units: d, h, m, s, ms.", DURATION),
        "Size": ("A size with its unit: B, kB, MB, GB, or KiB, MiB, GiB for powers of 1024.", SIZE),
        "AdminAddress": ("A unix socket's path, or @.", ADMIN),
        "ListenAddress": ("An address to listen on.", LISTEN),
        "TargetAddress": ("An address to dial.", TARGET),
    }
)
_NAMES: Final[Mapping[type, str]] = MappingProxyType(
    {
        Duration: "Duration",
        BufferSize: "Size",
        AdminAddress: "AdminAddress",
        ListenAddresses: "ListenAddress",
        TargetAddresses: "TargetAddress",
    }
)


def json_schema() -> dict[str, object]:
    """Give the schema (draft 2020-12) of what `read` takes, but for the checks that compare values."""
    _, components = msgspec.json.schema_components([File], schema_hook=_custom)
    for table in HEADERS:
        properties = components[table.__name__]["properties"]
        for key in keys_of(table).values():
            if key.default is not None:
                properties[key.name]["default"] = key.default
            elif key.otherwise:
                properties[key.name]["description"] += f" Left out: {key.otherwise}."
    root = components.pop(File.__name__)
    return {"$schema": DIALECT, **root, "title": "Portway ruleset", "$defs": {**components, **_notations()}}


def _custom(kind: type) -> dict[str, object]:
    """Describe the types msgspec does not know (its `schema_hook`)."""
    notation: dict[str, object] = {"$ref": f"#/$defs/{_NAMES[kind]}"}
    if kind in {ListenAddresses, TargetAddresses}:
        return {"anyOf": [notation, {"type": "array", "items": notation, "minItems": 1}]}
    return notation


def _notations() -> dict[str, object]:
    return {
        name: {"type": "string", "description": description, "pattern": pattern}
        for name, (description, pattern) in _NOTATIONS.items()
    }
