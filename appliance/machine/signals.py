"""Signals to PID 1, as events of its loop: a handler alone is not seen before epoll_wait ends (PEP 475)."""

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from appliance.machine.syscalls import Restart, restart
from appliance.net.reactor import IN, Reactor

HEARD: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)


class Signals:
    """The wakeup fd: one byte for each signal."""

    def __init__(self, reactor: Reactor, take: Callable[[bytes], None]) -> None:
        """`take` is called with the numbers of signals that came."""
        self._take = take
        self._mine, self._theirs = socket.socketpair()
        self._mine.setblocking(False)
        self._theirs.setblocking(False)
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        for number in HEARD:
            signal.signal(number, _heard)
        with suppress(OSError):  # in a namespace there is no Ctrl-Alt-Del to be told of
            restart(Restart.CAD_OFF)
        reactor.watch(self._mine.fileno(), IN, self)

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all it is watched for
        """Hand on which signals came."""
        self._take(self._mine.recv(4096))

    def on_fault(self) -> None:
        """Nothing ends."""


def _heard(number: int, frame: object) -> None:
    """Do nothing: the wakeup fd has told the loop."""
