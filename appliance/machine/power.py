"""Power button, Ctrl-Alt-Del, and the way down."""

import os
import signal
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from appliance.machine.syscalls import Restart, restart
from appliance.net.reactor import IN, Reactor

INPUTS: Final = "/dev/input"

_EVENT: Final = struct.Struct("@llHHi")
"""struct input_event (linux/input.h): time, type, code, value."""
_KEY: Final = 1
_POWER_KEYS: Final = frozenset((116, 142, 356))
"""KEY_POWER, KEY_SLEEP, KEY_POWER2 (linux/input-event-codes.h): nothing here sleeps."""
_PRESSED: Final = 1


def is_power_pressed(data: bytes) -> bool:
    """Say whether one of these events is the power button going down."""
    whole = len(data) - len(data) % _EVENT.size
    return any(
        kind == _KEY and code in _POWER_KEYS and value == _PRESSED
        for _, _, kind, code, value in _EVENT.iter_unpack(data[:whole])
    )


class Buttons:
    """The input devices, watched for a power button."""

    def __init__(self, reactor: Reactor, pressed: Callable[[], None]) -> None:
        self._reactor = reactor
        self._pressed = pressed
        self._open: set[str] = set()

    def watch(self, folder: str = INPUTS) -> None:
        """Watch the devices that are there and not watched yet."""
        for path in sorted(Path(folder).glob("event*")):
            if str(path) in self._open:
                continue
            with suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._open.add(str(path))
                self._reactor.watch(fd, IN, _Button(self._reactor, fd, self._pressed))


class _Button:
    """One input device."""

    def __init__(self, reactor: Reactor, fd: int, pressed: Callable[[], None]) -> None:
        self._reactor = reactor
        self._fd = fd
        self._pressed = pressed

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN, or that the device is gone
        """Look at what was pressed."""
        try:
            data = os.read(self._fd, 64 * _EVENT.size)
        except BlockingIOError:
            return
        except OSError:  # ENODEV: taken away
            self._reactor.unwatch(self._fd)
            return
        if is_power_pressed(data):
            self._pressed()

    def on_fault(self) -> None:
        """Nothing ends."""


def go_down(how: Restart, before: Callable[[], None]) -> None:
    """End what still runs, write everything to the disks, and turn the machine off or start it anew."""
    with suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    with suppress(OSError):
        before()
    os.sync()
    restart(how)
