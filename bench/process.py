"""Programs the benchmark starts: on which core, into which log, until ready, and their end."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

READY_DEADLINE_S = 15.0
END_DEADLINE_S = 5.0
POLL_S = 0.02
READY_POLL_S = 0.005
# Below net.ipv4.ip_local_port_range, so that no outgoing connection takes the port before its listener does.
LISTEN_PORTS = range(11_000, 32_000)

Address = tuple[str, int]


class FailedError(Exception):
    """A program did not become ready, or a load did not run clean."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the relay and the load run; None leaves both to the scheduler."""

    relay: int | None
    load: int | None


def on_core(argv: Sequence[str], core: int | None) -> list[str]:
    """Build the command line that runs `argv` on one core (taskset replaces itself, the pid stays)."""
    return list(argv) if core is None else ["taskset", "-c", str(core), *argv]


def free_port(host: str, kind: socket.SocketKind = socket.SOCK_STREAM, count: int = 1) -> int:
    """Find a port of `host` that nobody is bound to, the first of `count` such ports in a row."""
    while True:
        first = random.choice(LISTEN_PORTS[: len(LISTEN_PORTS) - count + 1])
        with ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.socket(socket.AF_INET, kind)).bind((host, port))
            except OSError:
                continue
            return first


class Program:
    """One started program and all it forked, ended together."""

    def __init__(self, argv: Sequence[str], log: Path, core: int | None = None) -> None:
        self.name = argv[0]
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                on_core(argv, core),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # its children share its process group, which ends with it
            )

    @property
    def pid(self) -> int:
        """The pid of its first process."""
        return self._popen.pid

    def failed(self) -> str | None:
        """Why it is no longer running, with the end of its log; None while it runs."""
        code = self._popen.poll()
        return None if code is None else f"{self.name} ended with {code}: {self.tail()}"

    def tail(self) -> str:
        """Quote the last lines it wrote."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-5:]) or "(it wrote nothing)"

    def end(self) -> None:
        """End it: SIGTERM, and SIGKILL for what is left of its process group after a grace period."""
        if self._popen.poll() is None:
            self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(END_DEADLINE_S)
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


def await_ready(programs: Sequence[Program], ready: Callable[[], bool], what: str) -> None:
    """Ask `ready` until it says so; FailedError when a program ends first or the deadline passes."""
    deadline = time.monotonic() + READY_DEADLINE_S
    while not ready():
        for program in programs:
            if reason := program.failed():
                raise FailedError(reason)
        if time.monotonic() > deadline:
            raise FailedError(f"{what} was not ready in {READY_DEADLINE_S:g} s: {programs[0].tail()}")
        time.sleep(READY_POLL_S)


def answers_http(address: Address) -> bool:
    """Whether an HTTP request to `address` is answered with 200: the whole path works."""
    try:
        with socket.create_connection(address, timeout=1.0) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
