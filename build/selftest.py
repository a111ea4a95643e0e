"""What was frozen is tried, through the binary itself: the end of `make binary`. Standard library only.

For each form: version, check, demo, UDP, SIGTERM within 100 ms. For the single file, whatever of it is
killed: no process and no folder is left. For the folder, certificates and TLS with what is in it (trial.py).
"""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DIST: Final = ROOT / "dist"
TRIAL: Final = ROOT / ".cache" / "freeze" / "work" / "portway" / "trial"

PATIENCE: Final = 20.0
GONE_WITHIN: Final = 2.0
"""Seconds after which nothing may be left of a program that ends or was killed."""

ENDS_WITHIN: Final = 0.1
"""Seconds from SIGTERM to the end of a gateway without sessions, on a machine that does nothing else."""

TRIES: Final = 10

PROCESSES: Final = ("master", "sweeper", "worker")

BAD: Final = '[[rule]]\nname = "web"\nlisen = ":80"\nto = "10.0.0.5:80"\n'
GOOD: Final = '[[rule]]\nname = "web"\nlisten = ":8080"\nto = "10.0.0.5:80"\n'


def main(version: str) -> None:
    """Try both forms, or say what failed and end with 1."""
    started = time.monotonic()
    try:
        for program in (DIST / "folder" / "portway", DIST / "portway"):
            words(program, version)
            datagrams(program)
            prompt_end(program)
        demo(DIST / "portway")
        certificates(DIST / "folder")
        for killed in PROCESSES:
            nothing_left(DIST / "portway", killed)
        killed_while_unpacking(DIST / "portway")
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"selftest: {error}")
    print(f"selftest: passed in {time.monotonic() - started:.1f} s")


def words(program: Path, version: str) -> None:
    """The version is that of this tree; every verb is there; `check` tells a good ruleset from a bad one."""
    told = run(program, "--version")
    assert told == (0, f"portway, version {version}\n", ""), f"{program}: --version gave {told}"
    told = run(program, "--help")  # which imports each
    assert (told[0], told[2]) == (0, ""), f"{program}: --help gave {told}"
    told = run(program, "check", "-", stdin=GOOD)
    assert told[0] == 0, f"{program}: check gave {told}"
    status, _, said = run(program, "check", "-", stdin=BAD)
    wanted = "<stdin>:3:1: rule[0].lisen: is no known key"
    assert (status, wanted in said) == (2, True), f"{program}: check ended with {status}: {said}"


def demo(program: Path) -> None:
    """The demo's requests come back, through a gateway that the program starts from itself."""
    with tempfile.TemporaryDirectory(prefix="selftest-") as folder:
        rules = Path(folder, "rules.toml")
        listen, to = free_port(), free_port()
        rules.write_text(f'[[rule]]\nname = "demo"\nlisten = "127.0.0.1:{listen}"\nto = "127.0.0.1:{to}"\n')
        status, out, said = run(program, "demo", "--once", str(rules))
    assert (status, "Everything arrived as it was sent." in out) == (0, True), (
        f"demo ended with {status}: {said}"
    )


def certificates(folder: Path) -> None:
    """An authority, an agent's certificate and its renewal, and TLS 1.3 between the two, by what was frozen.

    Started as the launcher starts the program, beside a link to its modules and libraries.
    """
    (loader,) = (folder / "lib").iterdir()
    with tempfile.TemporaryDirectory(prefix="selftest-") as place:
        internal, trial = Path(place, "_internal"), Path(place, "trial")
        internal.symlink_to(folder / "app" / "_internal")
        shutil.copy(TRIAL, trial)
        done = subprocess.run(
            [loader, "--library-path", internal.resolve(), "--argv0", trial, trial],
            env={"_PYI_ARCHIVE_FILE": str(trial), "_PYI_PARENT_PROCESS_LEVEL": "-1"},
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert done.returncode == 0, f"{TRIAL.name} ended with {done.returncode}: {done.stderr}"


def datagrams(program: Path) -> None:
    """A datagram goes there and back."""
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        for each in (server, client):
            each.settimeout(PATIENCE)
        server.bind(("127.0.0.1", 0))
        with gateway(program, "--udp", f"127.0.0.1:{server.getsockname()[1]}") as started:
            client.sendto(b"there", ("127.0.0.1", started.port))
            data, flow = server.recvfrom(100)
            server.sendto(data + b" and back", flow)
            assert client.recv(100) == b"there and back", f"{program}: other bytes came back"


def prompt_end(program: Path) -> None:
    """SIGTERM ends a gateway at once, with status 0."""
    took = []
    for _ in range(TRIES):
        with gateway(program) as started:
            end = os.pidfd_open(started.process.pid)  # wait() with a time-out looks after 31, 63 and 113 ms
            at = time.monotonic()
            started.process.terminate()
            select.select([end], [], [], PATIENCE)
            took.append(time.monotonic() - at)
            os.close(end)
            status = started.process.wait(PATIENCE)
        assert status == 0, f"{program}: SIGTERM ended it with {status}"
        # Others take their turns with it: the load average is how many wait for a processor.
        if took[-1] < ENDS_WITHIN * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)):
            return
    raise AssertionError(f"{program}: SIGTERM took {min(took) * 1e3:.0f} ms at best")


def nothing_left(program: Path, killed: str) -> None:
    """Of a gateway of which a process was killed, SIGTERM leaves neither process nor folder."""
    with private_folder() as folder, gateway(program, folder=folder) as started:
        os.kill(started.pids()[killed], signal.SIGKILL)
        if killed == "worker":
            wait_for("the worker's end", lambda: '"worker_ended"' in started.said())
        started.process.terminate()
        started.process.wait(PATIENCE)
        wait_for(f"{killed} killed: nothing left", lambda: is_clean(folder), GONE_WITHIN)


def killed_while_unpacking(program: Path) -> None:
    """A program killed in the midst of unpacking leaves nothing either."""
    for delay in (0.0, 0.001, 0.003, 0.01, 0.02, 0.03):
        with private_folder() as folder:
            process = subprocess.Popen(
                [program, "--version"], env=environment(folder), stdout=subprocess.DEVNULL
            )
            time.sleep(delay)
            process.kill()
            process.wait()
            wait_for("killed while unpacking: nothing left", lambda: is_clean(folder), GONE_WITHIN)


class Started:
    """A gateway, and its log."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, folder: Path) -> None:
        self.process = process
        self._log = log
        self._folder = folder

    def said(self) -> str:
        """Give all of the log."""
        return self._log.read_text()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        found = re.search(r'"listener":"127\.0\.0\.1:(\d+)"', self.said())
        assert found is not None, self.said()
        return int(found[1])

    def pids(self) -> dict[str, int]:
        """Its processes, by what they are."""
        found = {"master": self.process.pid}
        for pid in processes_of(self._folder):
            if pid != self.process.pid:
                found["sweeper" if name_of(pid) == "portway-sweeper" else "worker"] = pid
        assert set(found) == set(PROCESSES), found
        return found


@contextmanager
def gateway(program: Path, *more: str, folder: Path | None = None) -> Iterator[Started]:
    """Run `portway forward` from a free port until the block ends."""
    with private_folder() as own, Path(own, "log").open("wb") as log:
        folder = folder or own
        to = () if more and more[-1][0] != "-" else ("127.0.0.1:9",)
        command = [program, "forward", "127.0.0.1:0", *more, *to]
        process = subprocess.Popen(command, env=environment(folder), stdout=log, stderr=log)
        started = Started(process, Path(log.name), folder)
        try:
            wait_for("ready", lambda: '"ready"' in started.said() or process.poll() is not None)
            assert process.poll() is None, started.said()
            yield started
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE)


def run(program: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run it to its end; nothing may be left of it. Give status, stdout and stderr."""
    with private_folder() as folder:
        done = subprocess.run(
            [program, *arguments], env=environment(folder), input=stdin,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        wait_for(f"{arguments[0]}: nothing left", lambda: is_clean(folder), GONE_WITHIN)
    return done.returncode, done.stdout, done.stderr


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder to unpack into, by whose name every process of a program is known."""
    with tempfile.TemporaryDirectory(prefix="selftest-") as folder:
        yield Path(folder)


def environment(folder: Path) -> dict[str, str]:
    """Unpack into that folder."""
    return {**os.environ, "TMPDIR": str(folder)}


def is_clean(folder: Path) -> bool:
    """Whether no process and nothing unpacked is left."""
    return not processes_of(folder) and not list(folder.glob("portway-*"))


def processes_of(folder: Path) -> list[int]:
    """Find the processes that were started with that folder; forks have the environment of their parent."""
    marker = f"TMPDIR={folder}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def name_of(pid: int) -> str:
    """Its name (proc(5), comm)."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def free_port() -> int:
    """Find a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(what: str, condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Look until it holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.005)


if __name__ == "__main__":
    main(sys.argv[1])
