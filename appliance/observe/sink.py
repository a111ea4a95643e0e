"""The queue between the log and stdout: lines in, whole lines out, in order, never a wait.

A reader that stalls or goes away costs lines, never time: what does not fit is dropped and counted, and
the count is reported in the log where the lines are missing.
"""

import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from appliance.observe.outlet import Outlet, is_torn, nowhere

QUEUE_LIMIT: Final = 1 << 20
"""Bytes held for a reader that does not read."""


class LineWriter:
    """Writes lines to an outlet, a whole batch at a time, and keeps at most `limit` bytes of them.

    `report` makes the line that says how many were dropped; it stands where they would have stood.
    When the limit is reached every new line is dropped until half of the queue has gone, so that a slow
    reader gets runs of lines with one report between, not a report for every line.
    """

    __slots__ = (
        "_blocked",
        "_blocks",
        "_closed",
        "_limit",
        "_lines",
        "_outlet",
        "_queued",
        "_report",
        "_room",
        "_unreported",
        "dropped",
    )

    def __init__(self, outlet: Outlet, report: Callable[[int], bytes], limit: int = QUEUE_LIMIT) -> None:
        self._outlet = outlet
        self._report = report
        self._limit = limit
        self._room = limit
        self._queued = 0
        self._lines: list[bytes] = []
        """Whole lines, one or many in each."""
        self._blocks: deque[bytes] = deque()
        self._blocked = False
        self._closed = False
        self._unreported = 0
        self.dropped = 0

    @property
    def pending(self) -> bool:
        """Whether a flush has something to do."""
        return self._queued > 0 or self._unreported > 0

    @property
    def pollable_fd(self) -> int | None:
        """The descriptor to poll for OUT, while waiting for that helps: the reader has stalled.

        None when all is written, and when the reader is gone: poll would return at once, for ever.
        """
        return self._outlet.fd if self._blocked else None

    def write(self, line: bytes) -> None:
        """Queue one record, newline included, or drop and count it."""
        queued = self._queued + len(line)
        if queued > self._room:
            self._drop(1)
            return
        self._queued = queued
        self._lines.append(line)

    def write_lines(self, lines: bytes) -> None:
        """Queue records of one line each, the first of them that fit; drop and count the others."""
        if self._queued + len(lines) > self._room:
            fitting = lines.rfind(b"\n", 0, max(0, self._room - self._queued)) + 1
            self._drop(lines.count(b"\n", fitting))
            lines = lines[:fitting]
        if lines:
            self._queued += len(lines)
            self._lines.append(lines)

    def mend(self) -> None:
        """Begin with a new line, where a process that was killed has left half of one."""
        if not self._blocks and self._lines[:1] != [b"\n"] and is_torn(self._outlet.fd):
            self._lines.insert(0, b"\n")
            self._queued += 1

    def flush(self) -> bool:
        """Write what the outlet takes now. True when nothing is left. Never blocks, never raises.

        False asks to be called again: when pollable_fd can be written to, or after a while.
        """
        if not self._queued and not self._unreported:
            return True
        self._blocked = False
        while (self._queued or self._unreported) and self._step():
            pass
        return not self._queued and not self._unreported

    def close(self, timeout: float) -> int:
        """Write what is left, waiting up to `timeout` seconds; how many lines were dropped in all.

        A report that could not be written is counted as a line.
        """
        deadline = time.monotonic() + timeout
        while not self.flush() and self._blocked:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            poll = select.poll()
            poll.register(self._outlet.fd, select.POLLOUT)
            poll.poll(left * 1000)
        self.dropped += sum(held.count(b"\n") for held in (*self._lines, *self._blocks))
        self._outlet.close()
        self._outlet = nowhere()
        self._lines.clear()
        self._blocks.clear()
        self._queued = self._unreported = 0
        self._blocked = False
        self._room = -1
        self._closed = True
        return self.dropped

    def _drop(self, count: int) -> None:
        self._room = -1
        self.dropped += count
        if not self._closed:
            self._unreported += count

    def _step(self) -> bool:
        """Write one block; False when that is all for now."""
        if self._unreported and self._queued <= self._limit // 2:
            self._tell()
        if not self._blocks and not self._pack():
            return False
        block = self._blocks[0]
        try:
            taken = self._outlet.write(block)
        except BlockingIOError:
            taken = 0
        except OSError:
            # The reader is gone or the disk full. Both may come back: the next flush tries again, which
            # costs a system call, and polling would be no help.
            return False
        self._queued -= taken
        if taken == len(block):
            self._blocks.popleft()
            return True
        # The rest of a line goes out before anything else does.
        self._blocks[0] = block[taken:]
        self._blocked = not taken
        return taken > 0

    def _tell(self) -> None:
        line = self._report(self._unreported)
        self._unreported = 0
        self._room = self._limit
        self._lines.append(line)
        self._queued += len(line)

    def _pack(self) -> bool:
        """Join the queued lines into blocks the outlet may be given, cut between lines."""
        lines = self._lines
        if not lines:
            return False
        self._lines = []
        if self._queued <= self._outlet.block:
            self._blocks.append(b"".join(lines))
            return True
        # A record longer than PIPE_BUF is a block of its own. A pipe may take part of it, and another
        # worker's line may then come between its parts: no session record is that long, a traceback can.
        block: list[bytes] = []
        size = 0
        for piece in chain.from_iterable(_cut(queued, self._outlet.block) for queued in lines):
            if size + len(piece) > self._outlet.block and block:
                self._blocks.append(b"".join(block))
                block, size = [], 0
            block.append(piece)
            size += len(piece)
        self._blocks.append(b"".join(block))
        return True


def _cut(lines: bytes, block: int) -> Iterator[bytes]:
    """Cut between lines: pieces of `block` bytes at most, or of one line where that is longer."""
    start = 0
    while len(lines) - start > block:
        end = lines.rfind(b"\n", start, start + block) + 1 or lines.index(b"\n", start + block) + 1
        yield lines[start:end]
        start = end
    if start < len(lines):
        yield lines[start:]
