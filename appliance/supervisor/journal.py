"""When a process writes its log: together with other records, and never waiting for the reader.

A record that comes alone is written at the end of its turn. While there are many they wait for one another,
BATCH of them or WAIT seconds: a write in each turn costs 3 us a session at 10,000 sessions a second. When the
reader stalls, the log's fd is watched for OUT; where that would say nothing (the reader is gone, the disk
full), it is tried again after a while. The log itself bounds what waits, drops and counts (`observe.sink`).
"""

from collections.abc import Callable
from typing import Final

from appliance.net.reactor import OUT, Reactor
from appliance.observe.log import Log

BATCH: Final = 64
WAIT: Final = 0.05


class Journal:
    """The log of a process, on its loop."""

    __slots__ = ("_count", "_flushed", "_prepare", "_reactor", "_slot", "_watched", "log")

    def __init__(self, reactor: Reactor, log: Log, prepare: Callable[[], None] = lambda: None) -> None:
        """`prepare` is called before each write, to log what was only noted down so far."""
        self._reactor = reactor
        self._prepare = prepare
        self._count = 0
        self._flushed = 0.0
        self._slot: int | None = None
        self._watched: int | None = None
        self.log = log

    def wrote(self) -> None:
        """Have the log written: a record was queued, or noted down."""
        self._count += 1
        if self._count == BATCH:  # at once: a turn that ends all sessions has more than the log holds
            self.flush()
        elif self._count == 1:
            if self._reactor.now - self._flushed >= WAIT:
                self._reactor.defer(self.flush)
            else:
                self._retry(self._flushed + WAIT)

    def _retry(self, when: float) -> None:
        if self._slot is None:
            self._slot = self._reactor.arm(when, self)

    def flush(self) -> None:
        """Write now: what the reader takes."""
        self._count = 0
        self._flushed = self._reactor.now
        self._prepare()
        if self.log.flush():
            self._unwatch()
        elif (fd := self.log.pollable_fd) is None:
            self._unwatch()
            self._retry(self._flushed + WAIT)
        elif self._watched is None:
            try:
                self._reactor.watch(fd, OUT, self)
            except OSError:  # EPERM: epoll takes no regular file
                self._retry(self._flushed + WAIT)
            else:
                self._watched = fd

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._reactor.unwatch(self._watched)
            self._watched = None

    def on_event(self, events: int) -> None:  # noqa: ARG002  OUT, or HUP and ERR when the reader is gone
        """Write on: the reader has read, or gone."""
        self.flush()

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  as the timers call it
        """Write what has waited."""
        self._slot = None
        self.flush()

    def on_fault(self) -> None:
        """Nothing ends: the log goes on with the next record."""

    def close(self) -> None:
        """Write what is left, as far as the reader takes it, and close."""
        self._unwatch()
        self._prepare()
        self.log.close()
