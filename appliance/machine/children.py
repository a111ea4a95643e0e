"""PID 1's two children: the gateway, and the process that sets the clock."""

import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from appliance.machine import clock
from appliance.machine.privileges import give_up
from appliance.machine.rules import Candidate
from appliance.machine.syscalls import Capability
from appliance.net.reactor import IN, Reactor
from appliance.observe.log import make_log

Serve = Callable[[Candidate, str], int]
"""Run a gateway, with its admin socket at this address, until a signal ends it; its exit status."""

READY: Final = "\0portway/machine/ready"
"""Where the gateway says READY=1 (sd_notify(3)): an abstract unix address."""

ADMIN: Final = "/run/portway/admin.sock"
FILES: Final = 1 << 20
"""Open files of a process: fs.nr_open's default, which the kernel allows without being asked."""

_OUTPUTS: Final = (1, 2)


def start_gateway(serve: Serve, candidate: Candidate, output: int) -> int:
    """Fork the gateway, with `output` as stdout and stderr; its process id. Raises OSError."""

    def run() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
        give_up("portway")
        os.environ["NOTIFY_SOCKET"] = "@" + READY[1:]
        return serve(candidate, ADMIN)

    return _fork(run, output)


def start_clock(servers: tuple[str, ...], output: int) -> int:
    """Fork the process that keeps the clock as these servers say; its process id. Raises OSError."""

    def run() -> int:
        give_up("portway-clock", keep=(Capability.SYS_TIME,))
        clock.keep(servers, make_log(_OUTPUTS[0], tty=False))
        return 0

    return _fork(run, output)


def _fork(run: Callable[[], int], output: int) -> int:
    # What exists by now stays: a collection in the child need not write into pages that both share.
    gc.collect()
    gc.freeze()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if not pid:
            _become(run, output)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _become(run: Callable[[], int], output: int) -> NoReturn:
    """Let go of all that is PID 1's, run, and never come back."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()
        for fd in _OUTPUTS:
            os.dup2(output, fd)
        os.closerange(max(_OUTPUTS) + 1, 4096)  # PID 1 has opened no more
        status = run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  whatever it is, PID 1's stack is not ours to unwind
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(status)


class Readiness:
    """Hears the gateway say that it is ready."""

    def __init__(self, reactor: Reactor, ready: Callable[[], None]) -> None:
        self._ready = ready
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._socket.bind(READY)
        reactor.watch(self._socket.fileno(), IN, self)

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all it is watched for
        """Take what the gateway says."""
        with suppress(BlockingIOError):
            if b"READY=1" in self._socket.recv(4096).split(b"\n"):
                self._ready()

    def on_fault(self) -> None:
        """Nothing ends."""


def how_ended(status: int) -> dict[str, object]:
    """Give a wait status as fields of a record: exit_status or signal."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return {"exit_status": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:  # a real-time signal
        return {"signal": f"SIG{-code}"}
