"""How many datagrams to read at one event.

An event says that there is something to read, not how much. Reading once a turn costs an epoll event for each
datagram; reading until EAGAIN costs an exception for each event (1 us, CPython 3.11). So a socket is read as
often as it was worth lately: twice as often once that many were there, and when less is found, so many, with
more patience before the next try.
"""

from typing import Final

LONGEST_PATIENCE: Final = 64
"""Events that found all they asked for, before more is asked for, at the most."""


class Burst:
    """How often to read one socket at its next event."""

    __slots__ = ("_has_grown", "_most", "_patience", "credit", "size")

    def __init__(self, most: int) -> None:
        self._most = most
        self._patience = 1
        self._has_grown = False
        """Whether more is there, as often as is read now, is still to be seen."""
        self.credit = 1
        """Events that have to be filled before more is asked for. Who finds more than 1 here takes 1 off
        instead of calling `filled`, which saves 0.1 us."""
        self.size = 1

    def filled(self) -> bool:
        """All the reads found something; True when there will be more of them next time."""
        if self._has_grown:
            self._has_grown = False
            self.credit = self._patience = max(1, self._patience // 2)
        self.credit -= 1
        if self.credit > 0 or self.size >= self._most:
            return False
        self.size = min(self.size * 2, self._most)
        self._has_grown = True
        self.credit = 1
        return True

    def emptied(self, taken: int) -> None:
        """After `taken` reads there was nothing left."""
        self.size = max(1, taken)
        self._has_grown = False
        self.credit = self._patience = min(self._patience * 2, LONGEST_PATIENCE)
