"""What could be understood of a document, right or wrong as a whole: what checks across tables look at."""

from dataclasses import dataclass, field
from typing import Final

from appliance.ruleset.finding import Path
from appliance.ruleset.rules import Protocol
from appliance.values import AllowedTarget, ListenAddress, TargetAddress

TUNNEL: Final[Path] = ("tunnel",)


@dataclass(frozen=True, slots=True)
class Seen:
    """What could be understood of a rule. [tunnel] is one too, where listeners are compared."""

    path: Path
    name: str | None = None
    listen: tuple[tuple[Path, ListenAddress], ...] = ()
    to: tuple[tuple[Path, TargetAddress], ...] = ()
    protocol: Protocol | None = Protocol.TCP
    """What it carries, that of [defaults] included; None where that could not be understood."""
    flow_keys: tuple[str, ...] = ()
    """Which keys of UDP flows it has of its own."""
    session_keys: tuple[str, ...] = ()
    """Which keys of TCP sessions it has of its own."""
    max_flows: tuple[Path, int] | None = None
    max_flows_per_client: tuple[Path, int] | None = None
    """The caps of its flows, those of [defaults] included, each with its place."""
    via: str | None = None
    """The agent it goes through, empty where that could not be understood; None where this host dials."""
    is_transparent: bool = False
    """Whether it asks for the client's address as the source."""


@dataclass(frozen=True, slots=True)
class SeenAgent:
    """What could be understood of an agent; `allow_to` is None where it has none, or a wrong one."""

    path: Path
    name: str | None = None
    allow_to: tuple[AllowedTarget, ...] | None = None


@dataclass(slots=True)
class SeenTunnel:
    """What could be understood of [tunnel] and the agents."""

    is_there: bool = False
    """Whether there is a [tunnel], or what may be meant as one."""
    has_agents: bool = False
    """Whether there are any agents, or what may be meant as such."""
    listen: tuple[tuple[Path, ListenAddress], ...] = ()
    agents: list[SeenAgent] = field(default_factory=list)
