"""A real gateway process under test: started on a ruleset, awaited, read, and ended.

    with Gateway.start(ruleset_text) as gateway:
        port = gateway.port("web")
        ...
        record = gateway.session(timeout=5)

The log goes to a file (or wherever `stdout` says); `events` follows it. Every wait has a deadline and says
what it had seen when it passed. Leaving the block stops the gateway, and fails when it did not end with
status 0 or logged an internal_error: no test passes over a fault.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.program import SWEEPER, program

Record = dict[str, Any]

PATIENCE = 20.0
"""Seconds a wait may take on a busy machine before it counts as failed."""


def wait_for(what: str, condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Poll until the condition holds; the pause between looks is short, and no test depends on its length."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    """The live child processes of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def workers_of(pid: int) -> list[int]:
    """The live workers of a master, which the single file gives a child of another kind."""
    return [child for child in children(pid) if name(child) != SWEEPER]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    return sum(int(word) for word in _stat(pid)[11:13]) / os.sysconf("SC_CLK_TCK")


def state(pid: int) -> str:
    """The state letter of a process (proc(5)): Z is a zombie."""
    return _stat(pid)[0]


def name(pid: int) -> str:
    """The name of a process (proc(5), comm); empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def open_fds(pid: int) -> int:
    """How many descriptors a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def resident_bytes(pid: int) -> int:
    """Resident set size of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Gateway:
    """A running `portway run`."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path, log: Path) -> None:
        self.process = process
        self.folder = folder
        self.log = log
        self._read = 0

    @classmethod
    @contextmanager
    def start(
        cls,
        ruleset: str,
        *,
        verb: tuple[str, ...] = ("run", "{ruleset}"),
        form: str | None = None,
        stdout: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        wrap: tuple[str, ...] = (),
        **popen: Any,
    ) -> Iterator[Self]:
        """Start on a ruleset's text and wait until it is ready.

        `stdout`: where the log goes instead of the file that `events` reads; then readiness is the caller's
        business. `wrap`: a command to start it under, such as ("prlimit", "--nofile=100:100"). `verb`: what
        to do, "{ruleset}" being the file's name. `form`: another one than `--form` says.
        """
        with tempfile.TemporaryDirectory(prefix="portway-test-") as place:
            folder = Path(place)
            path = folder / "rules.toml"
            path.write_text(ruleset)
            log = folder / "log"
            with log.open("ab") as lines, (folder / "stderr").open("wb") as complaints:
                process = subprocess.Popen(
                    [*wrap, *program(form), *(word.format(ruleset=path) for word in verb)],
                    stdin=subprocess.DEVNULL,
                    stdout=lines if stdout is None else stdout,
                    stderr=complaints,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                    **popen,
                )
            gateway = cls(process, folder, log)
            try:
                if stdout is None:
                    gateway.await_event("ready")
                yield gateway
                gateway.stop()
                gateway.check()
            finally:
                gateway.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    # -- what it says ---------------------------------------------------------------------------------

    @property
    def stderr(self) -> str:
        """What it wrote to stderr."""
        return (self.folder / "stderr").read_text()

    def events(self, name: str | None = None) -> list[Record]:
        """Every whole line of the log so far; with a name only those events."""
        lines = self.log.read_bytes().split(b"\n")[:-1]
        records: list[Record] = []
        torn = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:  # what a worker had written of its last one when it was killed
                torn.append(line)
        killed = [record for record in records if record["event"] == "worker_ended" and "signal" in record]
        assert len(torn) <= len(killed), torn
        return records if name is None else [record for record in records if record["event"] == name]

    def await_event(self, name: str, count: int = 1, timeout: float = PATIENCE) -> list[Record]:
        """Wait until at least `count` events of that name are in the log; return them all."""

        def there() -> bool:
            if self.process.poll() is not None and name != "stopped":
                raise AssertionError(f"the gateway ended ({self.process.returncode}): {self.stderr}")
            return len(self.events(name)) >= count

        wait_for(f"{count} x {name} in {self.log.read_text()[-2000:]!r}", there, timeout)
        return self.events(name)

    def sessions(self, count: int = 1, timeout: float = PATIENCE) -> list[Record]:
        """Wait for `count` session records; return all there are."""
        return self.await_event("session", count, timeout)

    def session(self, timeout: float = PATIENCE) -> Record:
        """Wait for the first session record, and check that there is just one."""
        (record,) = self.sessions(1, timeout)
        return record

    def port(self, rule: str, index: int = 0) -> int:
        """The port that a rule's listener number `index` got."""
        listening = [event for event in self.events("listening") if event["rule"] == rule]
        return int(listening[index]["listener"].rpartition(":")[2])

    def address(self, rule: str, index: int = 0) -> tuple[str, int]:
        """Where a client reaches that listener."""
        return "127.0.0.1", self.port(rule, index)

    @property
    def workers(self) -> list[int]:
        """The pids of the live workers, in order of their start."""
        return workers_of(self.process.pid)

    # -- ending ---------------------------------------------------------------------------------------

    def stop(self, number: int = signal.SIGTERM, timeout: float = PATIENCE) -> int:
        """Signal it and wait for its end; return the status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def check(self) -> None:
        """Fail on whatever a gateway must never leave behind."""
        assert self.process.returncode == 0, self.stderr
        assert not self.events("internal_error"), self.events("internal_error")
        assert "Traceback" not in self.stderr, self.stderr

    def kill(self) -> None:
        """End it and its workers, whatever state they are in."""
        if self.process.poll() is None:
            workers = self.workers
            self.process.kill()
            self.process.wait()
            for pid in workers:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def rule(name: str, to: str | int | list[str], listen: str = "127.0.0.1:0", **more: str | int) -> str:
    """Write one [[rule]]; a port number as `to` is one on 127.0.0.1. Numbers stay numbers."""
    target = json.dumps(f"127.0.0.1:{to}" if isinstance(to, int) else to)
    lines = [f'[[rule]]\nname = "{name}"\nlisten = "{listen}"\nto = {target}']
    lines += [f"{key} = {json.dumps(value)}" for key, value in more.items()]
    return "\n".join(lines) + "\n\n"


def ruleset(*rules: str, workers: int = 1, drain: str = "5s") -> str:
    """Write a ruleset of these rules."""
    return f'[gateway]\nworkers = {workers}\ndrain_timeout = "{drain}"\n\n' + "".join(rules)
