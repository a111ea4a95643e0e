"""Telling of strangers without letting them fill the log: one record for many refusals of a kind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.net.reactor import Reactor
from appliance.outcome import Refusal

WINDOW: Final = 10.0
"""Seconds in which refusals of a kind are one record, after the first one."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Who was refused, and why; of `count` like it the last one."""

    peer: str
    refusal: Refusal
    agent: str = ""
    error: str = ""
    count: int = 1


class Refusals:
    """The refusals of one worker."""

    __slots__ = ("_held", "_reactor", "_report")

    def __init__(self, reactor: Reactor, report: Callable[[Refused], None]) -> None:
        self._reactor = reactor
        self._report = report
        self._held: dict[tuple[Refusal, str], list[Refused]] = {}
        """Of each kind and agent, those of this window that are not told of yet: how many, and the last."""

    def add(self, refused: Refused) -> None:
        """Tell of a refusal: now, where it is the first of its kind for a while, or with others."""
        key = refused.refusal, refused.agent
        if key in self._held:
            count = self._held[key][0].count + 1 if self._held[key] else 1
            self._held[key] = [Refused(refused.peer, refused.refusal, refused.agent, refused.error, count)]
            return
        if not self._held:
            self._reactor.arm(self._reactor.now + WINDOW, self)
        self._held[key] = []
        self._report(refused)

    def on_deadline(self, now: float) -> None:
        """The window is over: tell of what it had."""
        held, self._held = self._held, {}
        for kept in held.values():
            for refused in kept:
                self._report(refused)
                self._held[refused.refusal, refused.agent] = []
        if self._held:
            self._reactor.arm(now + WINDOW, self)

    def on_fault(self) -> None:
        """Nothing ends."""
