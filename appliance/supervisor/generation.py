"""A generation: a ruleset in force, what is bound for it, and the workers that serve it.

There is one, and for the time of a reload also the one before: its workers accept until the new ones do.
"""

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from appliance.policy.tally import tally_bytes
from appliance.ruleset import Ruleset
from appliance.supervisor.binding import Binder
from appliance.supervisor.place import Place
from appliance.supervisor.status import Failure, Reloaded, RulesetStatus
from appliance.supervisor.tunnels import Plan

TALLY_SLOTS: Final = 1 << 17
"""Keys that a worker may count under: rules, and clients, of which there are no more than flows; those are
bounded by the host's ephemeral ports (`supervisor.limits`)."""


@dataclass(slots=True, eq=False)
class Generation:
    """What belongs to one ruleset."""

    ruleset: Ruleset
    origin: RulesetStatus
    binder: Binder
    workers: int
    plan: Plan | None = None
    """Its tunnels."""
    is_retired: bool = False
    """Another one has taken its place: its workers drain."""
    places: list[Place] = field(init=False)
    tally: mmap.mmap = field(init=False)
    """In which its workers count flows together (`policy.tally`)."""

    def __post_init__(self) -> None:
        self.places = [Place(index) for index in range(self.workers)]
        self.tally = mmap.mmap(-1, tally_bytes(self.workers, TALLY_SLOTS))

    @property
    def is_alive(self) -> bool:
        """Whether one of its workers is there."""
        return any(place.pid for place in self.places)


Loaded: TypeAlias = tuple[Ruleset, RulesetStatus, int]
"""A ruleset, which one it is, and how many workers it wants on this host."""

Reread: TypeAlias = Callable[[], Loaded | str]
"""Read the ruleset once more; a sentence where it has problems."""


def cannot_reload() -> str:
    """Stand for a ruleset that came from no file."""
    return "there is no file to read again: restart to apply a new ruleset"


Reload: TypeAlias = Reloaded | Failure
