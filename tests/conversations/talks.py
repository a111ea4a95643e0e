"""Running conversations: the two processes of the driver, and what they say afterwards."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec

from tests.conversations.peer import Account, Report

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
"""Seconds for a whole run; one that is stuck says so by itself long before."""


def _start(module: str, *words: object, reads: bool) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.conversations.{module}", *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _end(process: "subprocess.Popen[bytes]", report: Path) -> Report:
    _, complaints = process.communicate(timeout=PATIENCE)
    assert not process.returncode, complaints.decode()
    return msgspec.json.decode(report.read_bytes(), type=Report)


def hold(port: int, seed: int, numbers: range, at_once: int, folder: Path) -> dict[int, Account]:
    """Hold these conversations through `port`; give what each client has to say."""
    report = folder / f"clients-{numbers.start}"
    client = _start("client", port, seed, numbers.start, len(numbers), at_once, report, reads=False)
    try:
        return by_number(_end(client, report))
    finally:
        client.kill()
        client.wait()


def by_number(report: Report) -> dict[int, Account]:
    """Sort accounts by conversation; each has one at the most."""
    accounts = {account.number: account for account in report.accounts}
    assert len(accounts) == len(report.accounts), "a conversation reached two endpoints"
    return accounts


class Servers:
    """The endpoint process."""

    def __init__(self, process: "subprocess.Popen[bytes]", report: Path) -> None:
        self._process = process
        self._report = report
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1].decode()
        self.port = int(line)

    @classmethod
    @contextmanager
    def start(cls, seed: int, folder: Path) -> Iterator[Self]:
        """Start it, and know its port."""
        report = folder / "servers"
        process = _start("server", seed, report, reads=True)
        try:
            yield cls(process, report)
        finally:
            process.kill()
            process.communicate()

    def end(self) -> Report:
        """Have it end once its last conversation has, and say what it knows."""
        return _end(self._process, self._report)
