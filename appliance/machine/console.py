"""The serial console: the log's lines, and a screen for people, without ever waiting for the line.

Every process of the machine writes its log into one pipe; PID 1 reads it and writes to /dev/console. While
the console does not take what it has, the pipe is not read: it fills, and the writers drop and count.
"""

import os
import select
import time
from collections import deque
from contextlib import suppress
from typing import Final

from appliance.net.reactor import IN, OUT, Reactor

DEVICE: Final = "/dev/console"
KEPT: Final = 20
"""Lines that are kept for the report of a crash."""

_LARGEST: Final = 1 << 16
_LONGEST_KEPT: Final = 500
_MOST_HELD: Final = 1 << 18
"""Bytes that are held for a console which does not take them (Ctrl-S): the latest."""
_PATIENCE: Final = 5.0
"""Seconds that a machine which stops waits for its console."""


class Console:
    """PID 1's end of the pipe and of the console."""

    def __init__(self, reactor: Reactor, source: int, device: int) -> None:
        """`source` is the pipe to read, `device` the console; both non-blocking, owned by this object."""
        self._reactor = reactor
        self._source = source
        self._device = device
        self._held = bytearray()
        self._is_reading = self._is_writing = False
        self._part = b""
        self.last: deque[str] = deque(maxlen=KEPT)
        """The latest lines."""
        self._read_on()

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all it is watched for
        """Take what the machine's processes wrote."""
        try:
            data = os.read(self._source, _LARGEST)
        except BlockingIOError:
            return
        self._keep(data)
        self.write(data)

    def _keep(self, data: bytes) -> None:
        *lines, self._part = (self._part + data).split(b"\n")
        self._part = self._part[-_LONGEST_KEPT:]
        self.last.extend(line[:_LONGEST_KEPT].decode(errors="replace") for line in lines)

    def write(self, data: bytes) -> None:
        """Write, or hold what the console does not take yet."""
        self._held += data
        self.flush()
        if (excess := len(self._held) - _MOST_HELD) > 0:  # cut where a line ends
            del self._held[: self._held.find(b"\n", excess - 1) + 1 or excess]

    def flush(self) -> None:
        """Write what is held; go on reading once it is all written."""
        while self._held:
            try:
                taken = os.write(self._device, self._held)
            except BlockingIOError:
                self._wait()
                return
            except OSError:  # EIO: the line is gone; nobody reads
                taken = len(self._held)
            del self._held[:taken]
        self._read_on()

    def _wait(self) -> None:
        if self._is_reading:
            self._reactor.unwatch(self._source)
            self._is_reading = False
        if not self._is_writing:
            self._reactor.watch(self._device, OUT, _Writable(self))
            self._is_writing = True

    def _read_on(self) -> None:
        if self._is_writing:
            self._reactor.unwatch(self._device)
            self._is_writing = False
        if not self._is_reading:
            self._reactor.watch(self._source, IN, self)
            self._is_reading = True

    def on_fault(self) -> None:
        """Nothing ends."""

    def drain(self) -> None:
        """Take what is in the pipe now."""
        if self._is_reading:
            self.on_event(IN)

    def finish(self) -> None:
        """Write what there still is, waiting a little for the console: the machine stops."""
        with suppress(OSError):
            while data := os.read(self._source, _LARGEST):
                self._keep(data)
                self._held += data
        until = time.monotonic() + _PATIENCE
        with suppress(OSError):
            while self._held and (left := until - time.monotonic()) > 0:
                if select.select([], [self._device], [], left)[1]:
                    with suppress(BlockingIOError):
                        del self._held[: os.write(self._device, self._held)]


class _Writable:
    """The console takes more."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_event(self, events: int) -> None:  # noqa: ARG002  OUT, or that the line is gone
        """Write on."""
        self._console.flush()

    def on_fault(self) -> None:
        """Nothing ends."""


def open_pipe(uid: int, gid: int) -> tuple[int, int]:
    """Make the pipe: PID 1's end, and the one that every process has as stdout and stderr.

    A writer opens its end anew (`observe.outlet`), which only the pipe's owner may.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    os.fchown(writing, uid, gid)
    return reading, writing


def open_device(path: str = DEVICE) -> int:
    """Open the console; where there is none, /dev/null, which takes all. Raises OSError."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except OSError:  # ENODEV: no driver registered one
        return os.open(os.devnull, flags)
