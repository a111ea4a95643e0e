"""What a process does again and again, on its loop."""

from collections.abc import Callable

from appliance.net.reactor import Reactor


class Repeated:
    """A task that is done every so many seconds, for good."""

    __slots__ = ("_pause", "_reactor", "_task")

    def __init__(self, reactor: Reactor, pause: float, task: Callable[[], None]) -> None:
        self._reactor = reactor
        self._pause = pause
        self._task = task
        reactor.arm(reactor.now + pause, self)

    def on_deadline(self, now: float) -> None:
        """Do it, and again later."""
        self._reactor.arm(now + self._pause, self)
        self._task()

    def on_fault(self) -> None:
        """Nothing ends."""
