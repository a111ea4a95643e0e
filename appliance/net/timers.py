"""Deadlines, coarse and cheap.

Nearly every deadline of a gateway is cancelled, or moved, before it fires: a session's connect deadline
lives for a millisecond, its idle deadline moves with each byte. A heap of deadlines costs 0.3 us for each
move and keeps the cancelled ones until they are due: 5,000 sessions a second with idle_timeout = "1h"
would keep 18 million of them. So:

- a deadline goes into the slot of its 1/16 s, a plain set: arming and cancelling are one set operation
  each, and a cancelled handler is gone at once;
- a handler that is called looks at its own last activity and arms itself again when it was called too
  early, so activity costs one attribute store;
- only the numbers of the slots in use are in a heap, and an empty slot never wakes anybody.
"""

import heapq
import math
from typing import Final, Protocol

SLOTS_PER_SECOND: Final = 16
"""A deadline is kept late by 1/16 s at the most, and never early."""


class DeadlineHandler(Protocol):
    """Whoever waits for a deadline; compared by identity."""

    def on_deadline(self, now: float) -> None:
        """Act, or arm again when it is not time yet."""

    def on_fault(self) -> None:
        """End what this handler stands for: its own code raised."""


class Timers:
    """The deadlines of one loop. Times are seconds of the caller's monotonic clock."""

    __slots__ = ("_deadline", "_heap", "_slot", "_slots", "_waiting", "due")

    def __init__(self) -> None:
        self._slots: dict[int, set[DeadlineHandler]] = {}
        self._heap: list[int] = []
        self._deadline = -math.inf
        """The one armed last, and where: all that begins in one turn of the loop has the same (0.25 us)."""
        self._slot = 0
        self._waiting: set[DeadlineHandler] = set()
        self.due = math.inf
        """No handler needs a call before this time. It may be early (after a cancel), never late."""

    def arm(self, deadline: float, handler: DeadlineHandler) -> int:
        """Have the handler called once `deadline` has passed; the slot returned is for `cancel`."""
        if deadline == self._deadline:
            self._waiting.add(handler)
            return self._slot
        slot = math.ceil(deadline * SLOTS_PER_SECOND)
        waiting = self._slots.get(slot)
        if waiting is None:
            waiting = self._slots[slot] = {handler}
            heapq.heappush(self._heap, slot)
            if slot < self.due * SLOTS_PER_SECOND:
                self.due = slot / SLOTS_PER_SECOND
        else:
            waiting.add(handler)
        self._deadline, self._slot, self._waiting = deadline, slot, waiting
        return slot

    def cancel(self, slot: int, handler: DeadlineHandler) -> None:
        """Forget an armed handler; one that was called or cancelled already is no error."""
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting.discard(handler)

    def take_due(self, now: float) -> list[DeadlineHandler]:
        """Return the handlers whose deadline has passed, each once, and forget them."""
        ready: list[DeadlineHandler] = []
        heap, slots = self._heap, self._slots
        self._deadline = -math.inf
        limit = now * SLOTS_PER_SECOND
        while heap and (heap[0] <= limit or not slots[heap[0]]):
            ready.extend(slots.pop(heapq.heappop(heap)))
        self.due = heap[0] / SLOTS_PER_SECOND if heap else math.inf
        return ready

    def __len__(self) -> int:
        """How many handlers are armed."""
        return sum(map(len, self._slots.values()))
