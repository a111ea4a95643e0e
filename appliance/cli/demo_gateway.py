"""The gateway of the demo: a process that ends with the demo, however the demo ends."""

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from types import FrameType
from typing import Final

from appliance.program import command, lifeline

PATIENCE: Final = 20.0
_LOOK: Final = 0.1


class DemoFailedError(Exception):
    """The demo could not show what it should; says what went wrong."""


@contextmanager
def demo_gateway(ruleset: Path) -> Iterator["Popen[bytes]"]:
    """Run `portway run` while the block runs; its log goes where ours does.

    Ready when it tells the service manager so: us, at an address that the kernel picks and that leaves no
    file behind (unix(7), autobind).
    """
    process = None
    theirs, ours = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications, os.fdopen(ours, "wb"):
        notifications.bind("")
        notifications.settimeout(_LOOK)
        try:
            with _Undisturbed():
                process = _start(ruleset, "@" + notifications.getsockname()[1:].decode(), theirs)
            _await_ready(process, notifications)
            yield process
        finally:
            status = _end(process) if process is not None else 0
    if status:
        raise DemoFailedError(f"the gateway ended with status {status}")


def _start(ruleset: Path, address: str, stdin: int) -> "Popen[bytes]":
    """Start it, with the read end of a pipe for its standard input, which it does not read.

    When the last copy of the write end is closed, which is ours, by us or by the kernel after a SIGKILL, the
    kernel sends the gateway SIGTERM (fcntl(2): O_ASYNC, F_SETOWN, F_SETSIG).
    """
    words = [*command(), "run", str(ruleset)]
    environ = {**os.environ, "NOTIFY_SOCKET": address}
    process = Popen(words, stdin=stdin, env=environ, pass_fds=lifeline())  # noqa: S603  this program itself
    fcntl.fcntl(stdin, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(stdin, fcntl.F_SETOWN, process.pid)
    fcntl.fcntl(stdin, fcntl.F_SETFL, os.O_ASYNC)
    os.close(stdin)
    return process


class _Undisturbed:
    """Holds SIGTERM and SIGINT back: between its start and our knowing of it, a process would be left behind.

    Held back by handlers and not by a mask, which the process would inherit.
    """

    def __init__(self) -> None:
        self._came: list[int] = []
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._came:
            signal.raise_signal(self._came[0])


def _await_ready(process: "Popen[bytes]", notifications: socket.socket) -> None:
    for _ in range(int(PATIENCE / _LOOK)):
        if process.poll() is not None:
            raise DemoFailedError("the gateway did not start")
        with suppress(TimeoutError):
            if b"READY=1" in notifications.recv(4096):
                return
    raise DemoFailedError(f"the gateway was not ready within {PATIENCE:.0f} s")


def _end(process: "Popen[bytes]") -> int:
    """End it; where sessions are still live after a while, without them. Give its exit status."""
    for _ in range(2):
        process.send_signal(signal.SIGTERM)  # the second one cuts
        with suppress(TimeoutExpired):
            return process.wait(PATIENCE)
    process.kill()
    return process.wait()
