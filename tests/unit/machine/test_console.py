"""The serial console: what it does not take is held, and nothing waits for it for ever."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from appliance.machine import console
from appliance.machine.console import Console, open_device
from appliance.net.reactor import Reactor


@dataclass
class Line:
    """A console whose other end is a pipe that somebody reads, or not."""

    console: Console
    end: int
    source: int
    """Where processes write their log."""

    def read(self) -> bytes:
        """Take what the line holds."""
        read = b""
        while True:
            try:
                read += os.read(self.end, 1 << 16)
            except BlockingIOError:
                return read


def fault(error: BaseException) -> None:
    """Nothing here may raise."""
    raise error


@pytest.fixture
def line() -> Iterator[Line]:
    """A line that nobody reads yet."""
    reactor = Reactor(fault)
    reading, source = os.pipe2(os.O_NONBLOCK)
    end, device = os.pipe2(os.O_NONBLOCK)
    yield Line(Console(reactor, reading, device), end, source)
    reactor.close()
    for fd in (reading, source, end, device):
        os.close(fd)


def test_the_last_words_are_written(line: Line) -> None:
    """What is held and what is in the pipe is on the line when the machine stops."""
    line.console.write(b"held\n")
    os.write(line.source, b"last words\n")
    line.console.finish()
    assert line.read() == b"held\nlast words\n"


def test_a_stopped_line_stops_no_machine(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A console that takes nothing (Ctrl-S) is waited for a few seconds, not for ever."""
    monkeypatch.setattr(console, "_PATIENCE", 0.01)
    line.console.write(b"x" * (1 << 17))
    line.console.finish()
    assert 0 < len(line.read()) < 1 << 17


def test_what_is_held_is_bounded(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a stopped console is to be shown the latest whole lines stay."""
    monkeypatch.setattr(console, "_MOST_HELD", 1000)
    line.console.write(b"x" * (1 << 17) + b"\n")
    for number in range(1000):
        line.console.write(b"line %d\n" % number)
    taken = line.read()
    line.console.flush()
    held = line.read()
    assert set(taken) <= set(b"x")
    assert 900 < len(held) <= 1000
    assert held.startswith(b"line ")
    assert held.endswith(b"line 999\n")


def test_no_console(tmp_path: str) -> None:
    """Where there is no console, what would be written is taken and gone."""
    device = open_device(f"{tmp_path}/none")
    assert os.write(device, b"nobody reads") == 12
    os.close(device)
