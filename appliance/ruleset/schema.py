"""The JSON Schema of a ruleset, made from the model."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from appliance.ruleset.keys import HEADERS, keys_of
from appliance.ruleset.kinds import (
    NOTATIONS,
    AdminAddress,
    AllowedTargets,
    BufferSize,
    Duration,
    Heartbeat,
    ListenAddresses,
    StateDirectory,
    TargetAddresses,
    TunnelAddresses,
)
from appliance.ruleset.model import File
from appliance.ruleset.patterns import (
    ADMIN,
    ALLOWED,
    DIRECTORY,
    DURATION,
    LISTEN,
    SIZE,
    TARGET,
    TUNNEL_LISTEN,
)

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_NOTATIONS: Final = MappingProxyType(
    {
        "Duration": ("A time with its units: d, h, m, s, ms.", DURATION),
        "Size": ("A size with its unit: B, kB, MB, GB, or KiB, MiB, GiB for powers of 1024.", SIZE),
        "AdminAddress": ("A unix socket's path, or @.", ADMIN),
        "Directory": ("The absolute path of a directory.", DIRECTORY),
        "ListenAddress": ("An address to listen on.", LISTEN),
        "TunnelAddress": ("An address to listen on, with one TCP port.", TUNNEL_LISTEN),
        "TargetAddress": ("An address to dial.", TARGET),
        "AllowedTarget": ("A network, address, host name or unix socket, with ports.", ALLOWED),
    }
)
_NAMES: Final[Mapping[type, str]] = MappingProxyType(
    {
        Duration: "Duration",
        Heartbeat: "Duration",
        BufferSize: "Size",
        AdminAddress: "AdminAddress",
        StateDirectory: "Directory",
        ListenAddresses: "ListenAddress",
        TunnelAddresses: "TunnelAddress",
        TargetAddresses: "TargetAddress",
        AllowedTargets: "AllowedTarget",
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
    if kind in NOTATIONS:
        return {"anyOf": [notation, {"type": "array", "items": notation, "minItems": 1}]}
    return notation


def _notations() -> dict[str, object]:
    return {
        name: {"type": "string", "description": description, "pattern": pattern}
        for name, (description, pattern) in _NOTATIONS.items()
    }
