"""Servers and clients that other people wrote: found, started on an address of their own, awaited, ended."""

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

from appliance.observe.names import deviations
from tests.e2e import needs
from tests.e2e.gateway import PATIENCE, Gateway, Record, wait_for

LONGEST = 200.0
"""Seconds that a client program may take on a busy machine before it counts as stuck."""
GRACE = 20.0

ORDERLY = frozenset({"client_eof", "endpoint_eof"})
RESET = frozenset({"client_reset", "endpoint_reset"})

Address = tuple[str, int]

_numbers = itertools.count(1)


def find(name: str) -> str:
    """Find a program, also where Debian keeps those that are not on everybody's PATH."""
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    places += sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True)  # noqa: PTH207  a PATH is text
    return shutil.which(name, path=os.pathsep.join(places)) or needs.program(name)


def free_address() -> Address:
    """Give a port at an address of 127.0.0.0/8 that is our own: nobody takes it before its server."""
    high, low = divmod(os.getpid() % 65536, 256)
    host = f"127.{32 + next(_numbers) % 32}.{high}.{low}"
    with socket.socket() as probe:
        probe.bind((host, 0))
        return host, int(probe.getsockname()[1])


def answers(address: Address) -> bool:
    """Whether a server accepts connections there."""
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(
    command: Sequence[str],
    ready: Callable[[], object],
    folder: Path,
    *,
    user: pwd.struct_passwd | None = None,
    stop: int = signal.SIGTERM,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server until the block is left; it is ready by then."""
    name = Path(command[0]).name
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, **as_user(user)
        )

    def is_ready() -> object:
        assert process.poll() is None, f"{name} ended: {log.read_text(errors='replace')[-2000:]}"
        return ready()

    try:
        wait_for(f"{name} to be ready: {log}", is_ready, 3 * PATIENCE)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(stop)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(
    command: Sequence[str],
    *,
    status: int = 0,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    user: pwd.struct_passwd | None = None,
    cwd: Path | None = None,
) -> bytes:
    """Run a client to its end and give its stdout; fail when it ends with another status."""
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        timeout=LONGEST,
        check=False,
        env={**os.environ, "LC_ALL": "C", **(env or {})},
        cwd=cwd,
        **as_user(user),
    )
    said = (done.stdout[-2000:] + done.stderr[-2000:]).decode(errors="replace")
    assert done.returncode == status, f"{command} ended with {done.returncode}: {said}"
    return done.stdout


def succeeds(command: Sequence[str]) -> bool:
    """Run a program that asks a server whether it is ready."""
    return not subprocess.run(command, timeout=LONGEST, check=False).returncode


def as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Give what Popen wants to become a user."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def plain_user(*names: str) -> pwd.struct_passwd | None:
    """Give the first of these users there is when we are root, for programs that refuse to run as root."""
    if os.geteuid():
        return None
    there = {each.pw_name: each for each in pwd.getpwall()}
    return next(there[name] for name in names if name in there)


@contextmanager
def folder_of(user: pwd.struct_passwd | None) -> Iterator[Path]:
    """Give a new folder that the user can reach and write to; pytest's are its own user's."""
    with tempfile.TemporaryDirectory(prefix="portway-real-") as name:
        if user is not None:
            os.chown(name, user.pw_uid, user.pw_gid)
        yield Path(name)


def records(gateway: Gateway, rule: str, count: int = 1, causes: Collection[str] = ORDERLY) -> list[Record]:
    """Wait for a rule's session records; check that there are `count`, and what each of them says."""

    def found() -> list[Record]:
        return [each for each in gateway.events("session") if each["rule"] == rule]

    wait_for(f"{count} records of {rule}", lambda: len(found()) >= count)
    those = found()
    assert len(those) == count, those
    for record in those:
        assert not deviations(record), record
        assert record["stage"] == "relay", record
        assert record["cause"] in causes, record
    assert len({record["session"] for record in those}) == count
    assert not gateway.events("internal_error")
    return those
