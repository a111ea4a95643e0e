"""Asking the workers how they are, and telling of the whole gateway (the admin socket's `status`)."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Final

from appliance import __version__
from appliance.net.reactor import Reactor
from appliance.observe.lines import utc_times
from appliance.observe.log import wall_clock
from appliance.supervisor.admin import Answer
from appliance.supervisor.binding import Bound
from appliance.supervisor.generation import Generation
from appliance.supervisor.orders import Ask, Load
from appliance.supervisor.place import Place
from appliance.supervisor.status import (
    ListenerStatus,
    State,
    Status,
    WorkerState,
    WorkerStatus,
)

PATIENCE: Final = 1.0
"""Seconds that a worker has to answer. Its loop turns within milliseconds, also under load."""


class Census:
    """What the master knows of its workers and listeners, told to whoever asks."""

    def __init__(
        self,
        reactor: Reactor,
        generation: Generation,
        state: Callable[[], State],
    ) -> None:
        self._reactor = reactor
        self.turn_to(generation)
        self._state = state
        self._started = reactor.now
        self._started_text = utc_times()(wall_clock())
        self._rounds: dict[_Round, None] = {}

    def turn_to(self, generation: Generation) -> None:
        """Tell of this generation from now on: it is the one that accepts clients."""
        self._places = generation.places
        self._listeners = list(_ranges(generation.binder.bound))
        self._ruleset = generation.origin

    def status(self, request: bytes, answer: Answer) -> None:  # noqa: ARG002  a verb; this one has no keys
        """Answer with a Status once every worker has said how it is, or had its time."""
        silent = {place for place in self._places if place.is_ready and place.line is not None}
        for place in silent:
            if not place.is_asked and place.line is not None:
                place.is_asked = True
                place.line.say(Ask())
        current = _Round(silent, lambda: answer(self._status(silent)), self._rounds)
        self._rounds[current] = None
        self._reactor.arm(self._reactor.now + PATIENCE, current)
        self._settle()

    def heard(self, place: Place, load: Load) -> None:
        """A worker has answered."""
        place.is_asked = False
        place.sessions, place.flows = load.sessions, load.flows
        self.lost(place)

    def lost(self, place: Place) -> None:
        """No more is to be expected of a worker."""
        for current in self._rounds:
            current.silent.discard(place)
        self._settle()

    def _settle(self) -> None:
        for current in tuple(self._rounds):
            if not current.silent:
                current.end()

    def _status(self, silent: set[Place]) -> Status:
        return Status(
            version=__version__,
            pid=os.getpid(),
            state=self._state(),
            started=self._started_text,
            up=round(self._reactor.now - self._started, 3),
            ruleset=self._ruleset,
            workers=tuple(_worker(place, is_silent=place in silent) for place in self._places),
            listeners=tuple(_listener(run) for run in self._listeners),
        )


class _Round:
    """One who asked, and the workers that have not answered yet."""

    __slots__ = ("_end", "_rounds", "silent")

    def __init__(self, silent: set[Place], end: Callable[[], None], rounds: "dict[_Round, None]") -> None:
        self.silent = silent
        self._end = end
        self._rounds = rounds

    def end(self) -> None:
        """Answer, once."""
        if self in self._rounds:
            del self._rounds[self]
            self._end()

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  there is one deadline
        """The silent have had their time."""
        self.end()

    def on_fault(self) -> None:
        """Nothing ends."""


def _worker(place: Place, *, is_silent: bool) -> WorkerStatus:
    state = WorkerState.READY
    if not place.pid:
        state = WorkerState.GONE
    elif not place.is_ready:
        state = WorkerState.STARTING
    elif is_silent:
        state = WorkerState.SILENT
    return WorkerStatus(
        index=place.index,
        pid=place.pid,
        state=state,
        ready=state is WorkerState.READY,
        sessions=place.sessions,
        sessions_max=place.sessions_max,
        flows=place.flows,
        flows_max=place.flows_max,
    )


def _listener(run: list[Bound]) -> ListenerStatus:
    first, last = run[0], run[-1]
    address = first.address if first is last else f"{first.address}-{_host_and_port(last)[1]}"
    is_bound = all(listening.fileno() >= 0 for bound in run for listening in bound.sockets)
    return ListenerStatus(rule=first.rule.name, protocol=first.protocol, address=address, bound=is_bound)


def _ranges(bound: Iterable[Bound]) -> Iterator[list[Bound]]:
    """Put neighbouring ports of a rule together: a range is told as one listener, not a thousand."""
    kinds: dict[tuple[str, str, str], list[Bound]] = {}
    for one in bound:
        kinds.setdefault((one.rule.name, one.protocol, _host_and_port(one)[0]), []).append(one)
    for alike in kinds.values():
        alike.sort(key=lambda one: _host_and_port(one)[1])
        for _, run in groupby(
            enumerate(alike), lambda numbered: _host_and_port(numbered[1])[1] - numbered[0]
        ):
            yield [one for _, one in run]


def _host_and_port(bound: Bound) -> tuple[str, int]:
    """Take an address of the log apart; a unix socket's has no port."""
    if bound.address.startswith("unix:"):
        return bound.address, 0
    host, _, port = bound.address.rpartition(":")
    return host, int(port)
