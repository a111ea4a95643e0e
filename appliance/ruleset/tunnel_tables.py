"""What a ruleset file may say of tunnels: where agents come in, who they are, what goes through which.

As in `model`, which has the other tables.
"""

from functools import partial
from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType, field

from appliance.ruleset.kinds import DEFAULT_STATE, AllowedTargets, Heartbeat, StateDirectory, TunnelAddresses
from appliance.ruleset.rules import Encryption

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$(?!\n)"
"""Python's `$` also matches before a last line end, which JSON Schema's does not: hence `(?!\\n)`."""

Via = Annotated[
    str,
    Meta(
        pattern=NAME_PATTERN,
        description=(
            "The agent that dials the endpoints: the name of an [[agent]]. `to` is then as the agent sees "
            "it: 127.0.0.1 is the agent's host, and host names are resolved there."
        ),
        examples=["office"],
        extra={
            "wants": "the name of an [[agent]]",
            "otherwise": "this host dials the endpoints itself",
            "aka": ("agent", "gateway_to", "through", "tunnel"),
        },
    ),
]
TunnelListen = Annotated[
    TunnelAddresses,
    Meta(
        description=(
            'Where agents come in, over TCP: one address or a list, each with one port. ":7443" is the port '
            "on every address of both families. Port 0 lets the kernel pick one."
        ),
        examples=[":7443", ["192.0.2.1:7443", "[2001:db8::1]:7443"]],
        extra={
            "wants": "an address or a list of them",
            "aka": ("address", "bind", "bind_addr", "bind_port", "port"),
        },
    ),
]
State = Annotated[
    StateDirectory,
    Meta(
        description=(
            "The directory of what has to be remembered: the key that makes the agents' certificates, and "
            "which of these were made, revoked and seen. It belongs to the user the gateway runs as."
        ),
        examples=[DEFAULT_STATE],
        extra={
            "wants": "an absolute path",
            "aka": ("ca", "data_dir", "dir", "directory", "state_dir", "state_directory"),
        },
    ),
]
HeartbeatEvery = Annotated[
    Heartbeat,
    Meta(
        description=(
            "How often gateway and agent tell each other that they are there. Who is not heard for twice as "
            "long is gone."
        ),
        examples=["2s"],
        extra={
            "wants": "a duration from 200ms to 1m",
            "aka": ("heartbeat_interval", "keepalive", "ping", "ping_interval"),
        },
    ),
]
_ENCRYPTION: Final = {
    "wants": '"tls" or "none"',
    "otherwise": "as [tunnel] has it",
    "aka": ("encrypt", "encrypted", "tls", "use_encryption"),
}
TunnelEncryption = Annotated[
    Encryption,
    Meta(
        description=(
            "What keeps others from reading the sessions on the way between gateway and agent: TLS 1.3; or "
            "none, where the link is protected already, as a VPN is. Orders are encrypted in any case."
        ),
        examples=["tls", "none"],
        extra=_ENCRYPTION,
    ),
]
AgentName = Annotated[
    str,
    Meta(
        pattern=NAME_PATTERN,
        description=(
            "What `via`, `portway enroll` and the log call the agent; no two of them share one. At most 63 "
            "letters, digits, dots, hyphens and underscores, the first a letter or digit."
        ),
        examples=["office"],
        extra={
            "wants": "at most 63 letters, digits, dots, hyphens and underscores, the first a letter or digit",
            "aka": ("id", "title"),
        },
    ),
]
AllowTo = Annotated[
    AllowedTargets,
    Meta(
        description=(
            "What may be reached through the agent, and nothing else: one or a list of networks, addresses, "
            "host names and unix sockets, with ports. Every target of a rule has to be in it, port by port. "
            "A host name is in it by name; or else the address that it leads to has to be in one of the "
            "networks, which the agent decides when it dials."
        ),
        examples=[
            ["192.168.1.0/24:22", "192.168.1.10:80-89"],
            "10.0.0.0/8:*",
            "[2001:db8::]/64:443",
            "db.internal:5432",
        ],
        extra={
            "wants": "a network with ports or a list of them",
            "otherwise": "what the rules name that go via it",
            "aka": ("allowed", "allowed_to", "permit", "targets"),
        },
    ),
]


class TunnelTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where agents come in, from networks that only dial out."""

    listen: TunnelListen
    state: State
    heartbeat: HeartbeatEvery = field(default_factory=partial(Heartbeat, 2))
    encryption: TunnelEncryption = Encryption.TLS


class AgentTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may serve the rules that go `via` this name: one program, or several that share them."""

    name: AgentName
    allow_to: AllowTo | UnsetType = UNSET
    encryption: TunnelEncryption | UnsetType = UNSET
