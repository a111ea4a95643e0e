"""Counts that several workers share: each adds to its own, and reads those of all.

A cap of a rule or of a client holds for the gateway, and the kernel spreads a rule's flows over its workers.
So every worker keeps what it counts in a part of one shared memory that only it writes; a cap looks at the
sum. Nothing is locked: an aligned 8 byte store is whole, and a count read a moment too early or late is what
two clients at the same moment would make of it anyway.

A part is a word that says whether it was ever used, and a hash table with open addressing: a row of keys, 0
for none, and a row of counts. Pages that are never written cost no memory.
"""

from typing import Final

WORD: Final = 8
_MASK: Final = (1 << 64) - 1
_FULL: Final = 0.75


def tally_bytes(workers: int, slots: int) -> int:
    """Say how much memory a tally takes."""
    return workers * (1 + 2 * slots) * WORD


class Tally:
    """The counts of one worker, and the sums over all."""

    __slots__ = ("_counts", "_keys", "_mask", "_parts", "_used")

    def __init__(self, memory: memoryview, workers: int, worker: int) -> None:
        """`memory` is zeroed, shared, of `tally_bytes` for a power of two of slots; `worker` is an index."""
        words = memory.cast("Q")
        size = len(words) // workers
        slots = size // 2
        if slots & (slots - 1):
            raise ValueError("a tally has a power of two of slots")
        self._mask = slots - 1
        self._parts = [
            (words[start + 1 : start + 1 + slots], words[start + 1 + slots : start + size])
            for start in range(0, workers * size, size)
        ]
        self._keys, self._counts = self._parts[worker]
        self._used = 0
        if words[worker * size]:  # by a worker that has died: what it counted has ended with it
            self._clear()
        words[worker * size] = 1

    def total(self, key: int) -> int:
        """Give what all workers together have counted under a key (any 64 bits)."""
        key = key & _MASK or 1
        return sum([_count(*part, self._slot(part[0], key)) for part in self._parts])

    def add(self, key: int, count: int) -> None:
        """Count, in this worker's part."""
        key = key & _MASK or 1
        slot = self._slot(self._keys, key)
        if not self._keys[slot]:
            if self._used > self._mask * _FULL:
                self._drop_zeros()
                slot = self._slot(self._keys, key)
            self._used += 1
            self._counts[slot] = 0
            self._keys[slot] = key
        self._counts[slot] += count

    def _slot(self, keys: memoryview, key: int) -> int:
        """Find a key's slot, or the free one where it would be."""
        slot, mask = key & self._mask, self._mask
        while keys[slot] not in (0, key):
            slot = (slot + 1) & mask
        return slot

    def _drop_zeros(self) -> None:
        """Make room: forget the keys under which nothing is counted."""
        counted = [(key, count) for key, count in zip(self._keys, self._counts, strict=True) if count]
        if len(counted) > self._mask * _FULL:
            raise ValueError("a tally with more keys than it has slots for")
        self._clear()
        for key, count in counted:
            self._used += 1
            slot = self._slot(self._keys, key)
            self._counts[slot] = count
            self._keys[slot] = key

    def _clear(self) -> None:
        self._keys[:] = memoryview(bytes(len(self._keys) * WORD)).cast("Q")
        self._used = 0


def _count(keys: memoryview, counts: memoryview, slot: int) -> int:
    """Read a slot's count; what stands beside no key is left over."""
    return int(counts[slot]) if keys[slot] else 0
