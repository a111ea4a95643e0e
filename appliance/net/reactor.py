"""The event loop of one process: one epoll set, its deadlines, and what is put off to a turn's end.

Theory of operation
-------------------
A *turn* is: wait for events, hand each to its handler, call the handlers whose deadline has passed, do some
of the work that is queued, run what was deferred, close what was forgotten. Everything else hangs on a few
facts about epoll and file descriptors:

1. An fd number is reused the moment it is closed. Within one batch, handler 1 may close fd 8, handler 2
   accept a client and get 8 back, and the batch still holds an event for the old 8: `select.epoll` returns
   nothing but the number, so the newcomer would get it. (HAProxy tags epoll data with a generation, nginx
   with an instance bit; Python cannot.) So `forget` takes effect at once, and the close itself is deferred
   to the turn's end, when no event of the batch is left.
2. close() takes a socket out of the epoll set by itself once no other descriptor shares its open file
   (epoll(7), Q6). Workers never fork and never duplicate a session's socket, so the usual end of a session
   costs no epoll_ctl. The master forks: a child has copies until it has closed them, and what the master
   forgets it must `unwatch` before, or whoever has the number next gets the old file's events.
3. Events are level-triggered: what is left unread is reported again, so no handler must read to EAGAIN,
   and one busy session cannot starve the others: it gets one event a turn. The price is that an event
   nobody takes spins the loop: whoever does not want IN takes it off, and EPOLLHUP and EPOLLERR, which
   cannot be taken off, end the watch (`relay`).
4. Signals: PEP 475 restarts epoll_wait after a handler ran, so a handler that sets a flag is seen when the
   wait ends, not before. Processes that care about signals watch a `signal.set_wakeup_fd` socket here.

A handler that raises has a fault: the exception is caught here and nowhere else, reported through
`on_fault`, and the handler is told by `on_fault()` of its own to end what it stands for.
"""

import select
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from appliance.net.timers import DeadlineHandler, Timers

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERR: Final = select.EPOLLERR
HUP: Final = select.EPOLLHUP
EXCLUSIVE: Final = select.EPOLLEXCLUSIVE

FOREVER: Final = 86400.0
"""A wait of a day or more is one without an end."""

MAX_EVENTS: Final = 256
"""Events taken in one turn. Python allocates 12 bytes for each at every wait; the rest comes next turn."""

LEAST_WORK: Final = 2
"""Queued tasks that are done in one turn, however short it was. A TLS handshake's step takes 0.3-1.6 ms, and
with a hundred of them in a turn every session waits for a tenth of a second."""


class Handler(Protocol):
    """Whoever owns a watched fd."""

    def on_event(self, events: int) -> None:
        """Take the events (epoll bits) of the fd."""

    def on_fault(self) -> None:
        """End what this handler stands for: its own code raised."""


class Work(Protocol):
    """Something that takes long, for a turn: a millisecond; compared by identity."""

    def do(self) -> None:
        """Do it."""

    def on_fault(self) -> None:
        """End what it stands for: its own code raised."""


class _Forgotten:
    """Stands in for a handler that was forgotten in this turn, until its fd is closed."""

    def on_event(self, events: int) -> None:
        """Drop an event that was meant for a session that ended earlier in this batch."""

    def on_fault(self) -> None:
        """Nothing to end."""


_FORGOTTEN: Final = _Forgotten()


class Reactor:
    """One epoll loop. Not thread-safe, except for `wake`."""

    __slots__ = (
        "_clock",
        "_closing",
        "_deferred",
        "_epoll",
        "_handlers",
        "_on_fault",
        "_running",
        "_work",
        "crowd",
        "now",
        "timers",
    )

    def __init__(
        self, on_fault: Callable[[BaseException], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._handlers: dict[int, Handler] = {}
        self._deferred: list[Callable[[], object]] = []
        self._closing: list[Callable[[], object]] = []
        self._work: OrderedDict[Work, None] = OrderedDict()
        self._on_fault = on_fault
        self._clock = clock
        self._running = False
        self.timers = Timers()
        self.now = clock()
        """Monotonic seconds, read once a turn."""
        self.crowd = 0
        """Events of this turn: how many wait for one another."""

    # -- watching -------------------------------------------------------------------------------------

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Put an fd into the epoll set (EPOLL_CTL_ADD) and hand its events to the handler. Raises OSError."""
        self._epoll.register(fd, events)  # ENOSPC, ENOMEM: fs.epoll.max_user_watches (epoll(7))
        self._handlers[fd] = handler

    def rewatch(self, fd: int, events: int) -> None:
        """Change the events an fd is watched for (EPOLL_CTL_MOD)."""
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Take an fd out of the epoll set (EPOLL_CTL_DEL); it stays open and keeps no handler."""
        self._epoll.unregister(fd)
        self._handlers[fd] = _FORGOTTEN

    def hand_over(self, fd: int, handler: Handler) -> None:
        """Give a watched fd to another handler, without a system call."""
        self._handlers[fd] = handler

    def nudge(self, fd: int) -> None:
        """Hand IN to the fd's handler: it has bytes to read that epoll does not know of."""
        self._handlers[fd].on_event(IN)

    def forget(self, fd: int, close: Callable[[], object]) -> None:
        """Drop the fd's handler now, and close it at the end of the turn (see the theory, 1 and 2)."""
        self._handlers[fd] = _FORGOTTEN
        self._closing.append(close)

    # -- later ----------------------------------------------------------------------------------------

    def defer(self, task: Callable[[], object]) -> None:
        """Run a task at the end of this turn, before what was forgotten in it is closed."""
        self._deferred.append(task)

    def queue(self, work: Work) -> None:
        """Have some work done in this turn or, where there is much of it, in one of the next.

        What is queued already keeps its place.
        """
        self._work[work] = None

    def unqueue(self, work: Work) -> None:
        """Have it done no more; what is not queued is no error."""
        self._work.pop(work, None)

    def arm(self, deadline: float, handler: DeadlineHandler) -> int:
        """Have the handler's `on_deadline` called once the deadline has passed."""
        return self.timers.arm(deadline, handler)

    # -- running --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Turn until `stop`."""
        self._running = True
        while self._running:
            self.turn()

    def stop(self) -> None:
        """Let `run` return after this turn."""
        self._running = False

    def turn(self, longest: float = FOREVER) -> None:
        """Wait for events, for `longest` seconds at the most, and handle them."""
        wait = (
            0.0 if self._deferred or self._closing or self._work else min(longest, self.timers.due - self.now)
        )
        # `now` is as old as this turn's handlers are slow; reading the clock again costs more than that.
        batch = self._epoll.poll(max(wait, 0.0) if wait < FOREVER else -1, MAX_EVENTS)
        self.now = now = self._clock()
        self.crowd = len(batch)
        handlers = self._handlers
        for fd, events in batch:
            handler = handlers[fd]
            try:
                handler.on_event(events)
            except Exception as fault:  # noqa: BLE001  the one place where a bug is caught
                self._fault(fault, handler.on_fault)
        if now >= self.timers.due:
            self._expire(now)
        if self._work:
            self._do_some(now)
        if self._deferred or self._closing:
            self._end_turn()

    def _do_some(self, now: float) -> None:
        """Do LEAST_WORK, and more for as long as this turn's events took: half of a busy loop is for them."""
        until = 2 * self._clock() - now
        done = 0
        while self._work and (done < LEAST_WORK or self._clock() < until):
            done += 1
            work, _ = self._work.popitem(last=False)
            try:
                work.do()
            except Exception as fault:  # noqa: BLE001  as above
                self._fault(fault, work.on_fault)

    def _expire(self, now: float) -> None:
        for waiting in self.timers.take_due(now):
            try:
                waiting.on_deadline(now)
            except Exception as fault:  # noqa: BLE001  as above
                self._fault(fault, waiting.on_fault)

    def _end_turn(self) -> None:
        deferred, self._deferred = self._deferred, []
        self._run(deferred)
        closing, self._closing = self._closing, []
        self._run(closing)

    def _run(self, tasks: list[Callable[[], object]]) -> None:
        for task in tasks:
            try:
                task()
            except Exception as fault:  # noqa: BLE001  as above
                self._fault(fault, None)

    def _fault(self, fault: BaseException, end: Callable[[], None] | None) -> None:
        self._on_fault(fault)
        if end is not None:
            try:
                end()
            except Exception as second:  # noqa: BLE001  as above
                self._on_fault(second)

    def abandon(self) -> None:
        """In a forked child: close the parent's epoll set, and what was forgotten in the turn of the fork.

        Nobody else would: whose fd it was has let go of it, and its peer would wait for the end of a copy.
        What is deferred is the parent's, too.
        """
        self._epoll.close()
        self._run(self._closing)

    def close(self) -> None:
        """Run what is deferred, close what is forgotten, and the epoll set."""
        self._end_turn()
        self._epoll.close()

    def __len__(self) -> int:
        """How many fds are watched."""
        return sum(handler is not _FORGOTTEN for handler in self._handlers.values())
