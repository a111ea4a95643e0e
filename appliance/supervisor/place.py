"""A worker as its master knows it."""

from dataclasses import dataclass

from appliance.supervisor.orders import Line


@dataclass(slots=True, eq=False)
class Place:
    """One of the N workers: who holds the place, and how often it was lost."""

    index: int
    pid: int = 0
    line: Line | None = None
    started: float = 0.0
    pause: float = 0.0
    is_ready: bool = False
    is_asked: bool = False
    """It owes a Load. It is never asked twice: the queue of one that is stopped must not fill up."""
    sessions_max: int = 0
    flows_max: int = 0
    sessions: int = 0
    flows: int = 0
    """As it said last."""
