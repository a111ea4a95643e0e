"""Sessions by the thousand, all open at once."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.gateway import Gateway, open_fds, rule, ruleset, wait_for

FDS = 20_000
"""Descriptors of each process: of a worker, and of the one that has all clients."""
PER_WORKER = 9_000
TOKEN = 8
ROOT = Path(__file__).parents[2]
PATIENCE = 120.0


@pytest.fixture(autouse=True)
def _enough_descriptors() -> None:
    """Skip where the hard limit is lower and stays so; in CI that is a failure."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, FDS)))
    except (ValueError, PermissionError):
        reason = f"needs {FDS} file descriptors a process, the hard limit is {hard}"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)


@contextmanager
def program(module: str, *words: object) -> Iterator["subprocess.Popen[str]"]:
    """Start one of the programs of this folder; give it once it has said its first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.capacity.{module}", *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: "subprocess.Popen[str]") -> str:
    """Give the next line that a program says."""
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    assert said, f"{process.args!r} ended with {process.wait()}"
    return said


def go_on(process: "subprocess.Popen[str]") -> None:
    """Have the crowd pass another token through each of its sessions."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert line(process) == "passed"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2])
def test_nine_thousand_sessions_a_worker_are_open_at_once(workers: int) -> None:
    """9,000 sessions live in a worker of 20,000 descriptors, and each passes data while all are open."""
    count = PER_WORKER * workers
    with program("echo") as server:
        port = line(server)
        # Four addresses of one endpoint: the gateway has 28,232 ephemeral ports towards each.
        targets = [f"127.0.0.{number}:{port}" for number in range(1, 5)]
        rules = ruleset(rule("crowd", targets), workers=workers)
        with Gateway.start(rules, wrap=("prlimit", f"--nofile={FDS}:{FDS}")) as gateway:
            before = {pid: open_fds(pid) for pid in gateway.workers}
            with program("crowd", gateway.port("crowd"), count) as crowd:
                assert line(crowd) == "passed"
                live = {pid: open_fds(pid) - before[pid] for pid in gateway.workers}
                go_on(crowd)
                go_on(crowd)
                assert not gateway.events("session"), "a session ended early"
                crowd.communicate(timeout=PATIENCE)
                assert not crowd.returncode
            records = gateway.sessions(count, timeout=PATIENCE)
            wait_for("the descriptors to be closed", lambda: {p: open_fds(p) for p in before} == before)
            assert not gateway.events("listener_paused")
    print(live)
    assert sum(live.values()) == 2 * count
    assert len(records) == count
    assert {(each["stage"], each["cause"]) for each in records} == {("relay", "client_eof")}
    assert {(each["up"], each["down"]) for each in records} == {(3 * TOKEN, 3 * TOKEN)}
    assert len({each["client"] for each in records}) == count


@pytest.mark.timeout(300)
def test_thousands_of_sessions_cut_at_once_leave_a_record_each() -> None:
    """A second SIGTERM ends 5,000 live sessions in one turn; every one has its record, none is dropped."""
    count = 5_000
    with program("echo") as server:
        rules = ruleset(rule("crowd", int(line(server))))
        with (
            Gateway.start(rules, wrap=("prlimit", f"--nofile={FDS}:{FDS}")) as gateway,
            program("crowd", gateway.port("crowd"), count) as crowd,
        ):
            assert line(crowd) == "passed"
            gateway.process.send_signal(signal.SIGTERM)
            gateway.await_event("draining")
            assert not gateway.stop(signal.SIGTERM)
            records = gateway.events("session")
            assert not gateway.events("log_dropped")
    assert len(records) == count
    assert {(each["stage"], each["cause"], each["up"]) for each in records} == {("relay", "drain", TOKEN)}
