"""Session ids: ULIDs, 26 characters of Crockford's base 32, that sort by time.

    01KARPYX5V   4T9Q2M7XKD   000042
    48 bits      50 bits      30 bits
    ms, UTC      the worker   counter

Source of the form: github.com/ulid/spec.
"""

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

    __slots__ = ("_age", "_count", "_head", "_page", "_tail", "_worker")

    def __init__(self, worker: int) -> None:
        self._worker = _digits(worker, 5)
        self._count = -1
        self._page = self._age = -1
        self._head = self._tail = ""

    def next(self, now: float) -> str:
        """Give the next id; `now` is the wall clock, seconds since 1970."""
        ms = int(now * 1000)
        count = self._count = self._count + 1
        # The upper digits change every 17 minutes and every 1,024 ids: only the lower ones are looked up.
        if ms >> 20 != self._age:
            self._age = ms >> 20
            self._head = _digits(self._age, 3)
        if count >> 10 != self._page:
            self._page = count >> 10
            self._tail = self._worker + _digits(self._page, 2)
        low = _PAIRS[ms >> 10 & _MASK] + _PAIRS[ms & _MASK]
        return self._head + low + self._tail + _PAIRS[count & _MASK]


def _digits(number: int, pairs: int) -> str:
    """Write the low 10 x `pairs` bits as twice as many digits."""
    return "".join(_PAIRS[number >> 10 * place & _MASK] for place in reversed(range(pairs)))
