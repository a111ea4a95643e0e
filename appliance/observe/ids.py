"""Session ids: ULIDs, 26 characters of Crockford's base 32, that sort by time.

    01KARPYX5V   4T9Q2M7XKD   000042
    48 bits      50 bits      30 bits
    ms, UTC      the worker   counter

Source of the form: github.com/ulid/spec.
"""

from collections.abc import Iterator
from itertools import count
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no I, L, O, U."""

WORKER_BITS: Final = 50
"""How many random bits a worker brings."""

_PAIRS: Final = tuple(high + low for high in ALPHABET for low in ALPHABET)
_MASK: Final = 1023


class Ids:
    """The ids of one worker's sessions.

    `worker` is a number of WORKER_BITS random bits, drawn anew by each process: it keeps workers,
    restarts and hosts apart. The counter keeps a worker's own ids apart and never starts again, so an id
    is unique even when the clock is set back. It sorts by time as far as the clock does, and within a
    millisecond by the order of the calls, until the counter wraps (each 1,073,741,824 ids).
    """

    __slots__ = ("_age", "_head", "_ms", "_tail", "_time")

    def __init__(self, worker: int, first: int = 0) -> None:
        """`first` is where the counter begins: a multiple of 1,024."""
        self._ms = self._age = -1
        self._head = self._time = ""
        self._tail = _tails(worker, first).__next__

    def next(self, now: float) -> str:
        """Give the next id; `now` is the wall clock, seconds since 1970."""
        ms = int(now * 1000)
        # Under load many ids are of one millisecond: 0.18 us each instead of 0.28 (one of another: 0.3). The
        # upper six digits change every 17 minutes.
        if ms != self._ms:
            self._ms = ms
            if ms >> 20 != self._age:
                self._age = ms >> 20
                self._head = _digits(self._age, 3)
            self._time = self._head + _PAIRS[ms >> 10 & _MASK] + _PAIRS[ms & _MASK]
        return self._time + self._tail()


def _tails(worker: int, first: int) -> Iterator[str]:
    """Give the last 16 digits: the worker and the counter, of which most ids change the lowest pair only."""
    own = _digits(worker, 5)
    for page in count(first >> 10):
        tail = own + _digits(page, 2)
        for low in _PAIRS:
            yield tail + low


def _digits(number: int, pairs: int) -> str:
    """Write the low 10 x `pairs` bits as twice as many digits."""
    return "".join(_PAIRS[number >> 10 * place & _MASK] for place in reversed(range(pairs)))
