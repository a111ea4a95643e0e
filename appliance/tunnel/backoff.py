"""How long to wait before the next try."""

from collections.abc import Callable
from typing import Final

FIRST: Final = 0.2
LONGEST: Final = 1.0
"""Seconds. Longer pauses would be kinder to a gateway that is gone, and dearer to those who wait for one that
is back: with tries of 2 s each, it is found within 3 s."""


class Backoff:
    """Doubling pauses, each a random one from half of it up: a hundred agents do not come back at once."""

    __slots__ = ("_pause", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` gives numbers from 0 up to 1."""
        self._random = random
        self._pause = FIRST

    def next(self) -> float:
        """Give the next pause, in seconds."""
        pause = self._pause * (0.5 + self._random() / 2)
        self._pause = min(self._pause * 2, LONGEST)
        return pause

    def reset(self) -> None:
        """It went well: begin anew."""
        self._pause = FIRST
