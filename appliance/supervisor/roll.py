"""The roll: which agents are connected, told to whoever asks (the admin socket's `agents`)."""

from collections.abc import Callable
from typing import Final

from appliance.net.reactor import Reactor
from appliance.supervisor.admin import Answer
from appliance.supervisor.generation import Generation
from appliance.supervisor.orders import AskLinks, Links
from appliance.supervisor.place import Place
from appliance.supervisor.status import AgentLink, Agents

PATIENCE: Final = 1.0
"""Seconds that a worker has to answer; what a silent one would have said is left out."""


class Roll:
    """What the workers say of their links."""

    __slots__ = ("_calls", "_generation", "_number", "_reactor")

    def __init__(self, reactor: Reactor, generation: Callable[[], Generation]) -> None:
        self._reactor = reactor
        self._generation = generation
        self._number = 0
        self._calls: dict[int, _Call] = {}

    def agents(self, request: bytes, answer: Answer) -> None:  # noqa: ARG002  a verb; this one has no keys
        """Answer with Agents once every worker has said what it has, or had its time."""
        places = [place for place in self._generation().places if place.is_ready and place.line is not None]
        self._number += 1
        call = self._calls[self._number] = _Call(self._number, set(places), answer, self._calls)
        for place in places:
            if place.line is not None:
                place.line.say(AskLinks(self._number))
        self._reactor.arm(self._reactor.now + PATIENCE, call)
        call.settle()

    def heard(self, place: Place, told: Links) -> None:
        """A worker has said what it has, or a part of it."""
        if (call := self._calls.get(told.number)) is not None:
            call.links.extend(told.links)
            if not told.has_more:
                call.silent.discard(place)
            call.settle()

    def lost(self, place: Place) -> None:
        """No more is to be expected of a worker."""
        for call in tuple(self._calls.values()):
            call.silent.discard(place)
            call.settle()


class _Call:
    """One who asked, and the workers that have not answered yet."""

    __slots__ = ("_answer", "_calls", "_number", "links", "silent")

    def __init__(self, number: int, silent: set[Place], answer: Answer, calls: "dict[int, _Call]") -> None:
        self._number = number
        self._answer = answer
        self._calls = calls
        self.silent = silent
        self.links: list[AgentLink] = []

    def settle(self) -> None:
        """Answer, if nobody is silent."""
        if not self.silent:
            self._end()

    def _end(self) -> None:
        if self._calls.pop(self._number, None) is not None:
            links = sorted(self.links, key=lambda link: (link.agent, link.since, link.worker))
            self._answer(Agents(links=tuple(links)))

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  there is one deadline
        """The silent have had their time."""
        self._end()

    def on_fault(self) -> None:
        """Nothing ends."""
