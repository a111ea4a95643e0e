"""What a gateway says of itself over its admin socket: the words of both sides.

Little is imported here: `portway status --healthy` runs every few seconds.
"""

from enum import StrEnum, unique

from msgspec import Struct


@unique
class State(StrEnum):
    """How far the gateway is."""

    STARTING = "starting"
    """Not every worker has accepted clients yet."""
    READY = "ready"
    DRAINING = "draining"


@unique
class WorkerState(StrEnum):
    """How a worker is."""

    STARTING = "starting"
    """It runs, and does not accept yet."""
    READY = "ready"
    """It accepts clients, and has just answered."""
    SILENT = "silent"
    """It accepted clients, and does not answer: it is stopped, or stuck."""
    GONE = "gone"
    """It has ended. Unless the gateway drains, another one is about to be started in its place."""


class RulesetStatus(Struct, frozen=True):
    """The ruleset that is in force."""

    path: str
    """As it was given; `-` for standard input. An agent's: what it joined by."""
    sha256: str
    """Of the ruleset's bytes, in hexadecimal. Empty for an agent, which has none."""
    rules: int
    """How many there are."""


class WorkerStatus(Struct, frozen=True, kw_only=True):
    """One worker. What it has not said (yet) is 0."""

    index: int
    pid: int
    state: WorkerState
    ready: bool
    sessions: int
    sessions_max: int
    flows: int
    flows_max: int


class ListenerStatus(Struct, frozen=True, kw_only=True):
    """One address of a rule, or a range of its ports."""

    rule: str
    protocol: str
    address: str
    """As in the log; of neighbouring ports `0.0.0.0:16384-16483`."""
    bound: bool
    """Every port of it."""


class Status(Struct, frozen=True, kw_only=True):
    """A gateway as a whole."""

    version: str
    pid: int
    state: State
    started: str
    """RFC 3339, UTC."""
    up: float
    """Seconds since then."""
    ruleset: RulesetStatus
    workers: tuple[WorkerStatus, ...]
    listeners: tuple[ListenerStatus, ...]

    @property
    def trouble(self) -> str | None:
        """Say in a clause why the gateway is not healthy; None when it is."""
        if self.state is State.DRAINING:
            return "the gateway is draining"
        for what, fine in (
            ("worker", [worker.ready for worker in self.workers]),
            ("listener", [listener.bound for listener in self.listeners]),
        ):
            if bad := fine.count(False):
                is_not = "is not" if bad == 1 else "are not"
                should = "ready" if what == "worker" else "bound"
                return f"{bad} of {len(fine)} {what}s {is_not} {should}"
        return "the gateway is starting" if self.state is State.STARTING else None


class Failure(Struct, frozen=True, omit_defaults=True):
    """The reply to a request that was not answered. Any other reply reads as one without an error."""

    error: str = ""


class Reloaded(Struct, frozen=True):
    """What a reload did, in listeners: addresses, each of their ports and protocols apart."""

    rules: int
    kept: int
    opened: int
    closed: int


class AgentLink(Struct, frozen=True, kw_only=True):
    """One control channel of an agent."""

    agent: str
    serial: str
    peer: str
    since: str
    worker: int
    ready: int
    sessions: int
    rtt_ms: float | None
    version: str


class Agents(Struct, frozen=True):
    """The agents that are connected."""

    links: tuple[AgentLink, ...]
