"""A loop under test: its clock is ours, its faults are seen, and nothing of it is left afterwards."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.net.reactor import Reactor

PATIENCE = 20.0
"""Seconds a wait may take on a busy machine before it counts as failed."""


@dataclass
class Clock:
    """Monotonic seconds, moved by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Loop:
    """A reactor, its clock, and what went wrong in it."""

    reactor: Reactor
    clock: Clock
    faults: list[BaseException]

    def turn(self) -> None:
        """Handle what is ready now."""
        self.reactor.turn(0.0)

    def until(self, condition: Callable[[], object]) -> None:
        """Turn until the condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"not within {PATIENCE} s"
            self.reactor.turn(0.01)


@contextmanager
def loop() -> Iterator[Loop]:
    """Make a loop; a test that expects faults takes them out of `faults`."""
    clock = Clock()
    faults: list[BaseException] = []
    made = Loop(Reactor(faults.append, clock), clock, faults)
    try:
        yield made
    finally:
        made.reactor.close()
    assert not faults, faults


@dataclass(eq=False)
class Watcher:
    """A handler that keeps what it is told, and then does what the test wants."""

    then: Callable[[], object] = lambda: None
    events: list[int] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    faults: int = 0

    def on_event(self, events: int) -> None:
        self.events.append(events)
        self.then()

    def on_deadline(self, now: float) -> None:
        self.deadlines.append(now)
        self.then()

    def on_fault(self) -> None:
        self.faults += 1


def open_fds() -> set[int]:
    """Give the fds of this process."""
    found = list(Path("/proc/self/fd").iterdir())
    return {int(each.name) for each in found if each.is_symlink()}  # the listing's own is gone by now


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Connect two sockets over loopback: the dialling one, the accepted one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]
