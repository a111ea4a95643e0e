"""The line writer, against every way an outlet can behave."""

import contextlib
import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from appliance.observe.outlet import Outlet, nowhere
from appliance.observe.sink import LineWriter


def report(count: int) -> bytes:
    return b"dropped %d\n" % count


def line(number: int, size: int) -> bytes:
    return b"%d %s\n" % (number, b"x" * size)


def lines_counted(data: bytes) -> int:
    """Check that lines are whole and in order and each gap is reported in its place; how many there were."""
    expected = 0
    assert not data or data.endswith(b"\n")
    for text in data.splitlines():
        word, rest = text.split(b" ", 1)
        if word == b"dropped":
            expected += int(rest)
        else:
            assert int(word) == expected
            assert rest.strip(b"x") == b""
            expected += 1
    return expected


@dataclass
class Reader:
    """An outlet that does what its script says: takes so many bytes, or fails with an errno."""

    block: int = 4096
    script: list[int | OSError] = field(default_factory=list)
    got: bytearray = field(default_factory=bytearray)
    calls: int = 0
    closed: bool = False
    fd: int = 77

    def write(self, data: bytes) -> int:
        assert len(data) <= self.block or data.count(b"\n") == 1, "a block is no longer than it may be"
        self.calls += 1
        step = self.script.pop(0) if self.script else len(data)
        if isinstance(step, OSError):
            raise step
        self.got += data[:step]
        return min(step, len(data))

    def close(self) -> None:
        self.closed = True

    def outlet(self) -> Outlet:
        return Outlet(self.fd, self.write, self.block, self.close)


AGAIN = BlockingIOError(errno.EAGAIN, "")
GONE = BrokenPipeError(errno.EPIPE, "")
FULL = OSError(errno.ENOSPC, "")

steps = st.one_of(st.sampled_from([AGAIN, GONE, FULL]), st.integers(0, 60))
sizes = st.one_of(st.integers(0, 70), st.lists(st.integers(0, 70), max_size=6))
"""A line by itself, or a batch of lines."""
turns = st.lists(st.tuples(st.lists(sizes, max_size=6), st.lists(steps, max_size=4)))
Turns = list[tuple[list[int | list[int]], list[int | OSError]]]


def put(writer: LineWriter, number: int, sizes: int | list[int]) -> int:
    """Write a line, or a batch of lines at once, numbered from `number`; the next number."""
    if isinstance(sizes, int):
        writer.write(line(number, sizes))
        return number + 1
    writer.write_lines(b"".join(line(number + index, size) for index, size in enumerate(sizes)))
    return number + len(sizes)


@given(turns, st.sampled_from([1, 16, 40, 4096]), st.sampled_from([0, 30, 100, 1000]))
def test_whole_lines_in_order_whatever_the_reader_does(turns: Turns, block: int, limit: int) -> None:
    """Any lines and batches, any pattern of short writes and errors: whole lines, in order, losses counted.

    And a turn's flush ends, says truly whether all is out, and no more than the limit is held.
    """
    reader = Reader(block)
    writer = LineWriter(reader.outlet(), report, limit)
    number = 0
    for sizes, script in turns:
        for size in sizes:
            number = put(writer, number, size)
        held = sum(map(len, writer._lines)) + sum(map(len, writer._blocks))
        assert held == writer._queued <= limit + len(report(number))
        reader.script = list(script)
        assert writer.flush() is not writer.pending
    reader.script = []
    assert writer.flush()
    assert lines_counted(bytes(reader.got)) == number
    lost = sum(int(text.split()[1]) for text in reader.got.splitlines() if text.startswith(b"dropped"))
    assert writer.dropped == lost


@given(turns, st.sampled_from([16, 4096]))
def test_close_counts_what_could_not_be_written(turns: Turns, block: int) -> None:
    """Written, reported and counted at the end are together all lines that came."""
    reader = Reader(block)
    made: list[bytes] = []

    def counted(count: int) -> bytes:
        made.append(report(count))
        return made[-1]

    writer = LineWriter(reader.outlet(), counted, 100)
    number = 0
    for sizes, script in turns:
        for size in sizes:
            number = put(writer, number, size)
        reader.script = [*script, GONE]
        writer.flush()
    reader.script = [GONE]
    lost = writer.close(0)
    whole = bytes(reader.got).rpartition(b"\n")[0].splitlines()
    written = sum(not text.startswith(b"dropped") for text in whole)
    reports = sum(text.startswith(b"dropped") for text in whole)
    assert written + lost == number + len(made) - reports
    assert reader.closed


def test_a_turn_is_one_write() -> None:
    """The lines of one turn go out together."""
    reader = Reader()
    writer = LineWriter(reader.outlet(), report)
    for number in range(5):
        writer.write(line(number, 50))
    assert writer.flush()
    assert reader.calls == 1


def test_nothing_to_write_is_no_write() -> None:
    """A turn without records makes no system call."""
    reader = Reader()
    writer = LineWriter(reader.outlet(), report)
    assert writer.flush()
    assert not writer.pending
    assert reader.calls == 0


def test_blocks_are_cut_between_lines() -> None:
    """No write is longer than the outlet's block, unless one line is, and each ends with a line's end."""
    taken: list[bytes] = []

    def write(data: bytes) -> int:
        taken.append(data)
        return len(data)

    writer = LineWriter(Outlet(77, write, 200, lambda: None), report)
    for number, size in enumerate([90, 90, 90, 500, 10, 10, 180, 30]):
        writer.write(line(number, size))
    assert writer.flush()
    assert all(data.endswith(b"\n") for data in taken)
    assert [len(data.splitlines()) for data in taken] == [2, 1, 1, 2, 1, 1]
    assert lines_counted(b"".join(taken)) == 8


def test_a_batch_is_cut_as_its_lines_would_be() -> None:
    """Lines queued together go out in blocks too, the longest there may be, with what was queued before."""
    taken: list[bytes] = []

    def write(data: bytes) -> int:
        taken.append(data)
        return len(data)

    writer = LineWriter(Outlet(77, write, 200, lambda: None), report)
    writer.write(line(0, 20))
    number = put(writer, 1, [90, 90, 90, 500, 10, 10, 180, 30])
    assert put(writer, number, [20, 20]) == 11
    assert writer.flush()
    assert all(data.endswith(b"\n") for data in taken)
    assert [len(data.splitlines()) for data in taken] == [1, 2, 1, 1, 2, 1, 3]
    assert lines_counted(b"".join(taken)) == 11


def test_a_batch_loses_only_what_does_not_fit() -> None:
    """The lines of a batch that are within the limit are kept, to the byte; the others are counted."""
    for limit, kept in ((59, 4), (60, 5), (61, 5), (11, 0)):
        reader = Reader()
        writer = LineWriter(reader.outlet(), report, limit)
        put(writer, 0, [9] * 9)  # 12 bytes each
        assert writer.dropped == 9 - kept
        put(writer, 9, [1] * 3)
        assert writer.flush()
        assert lines_counted(bytes(reader.got)) == 12
        assert len(reader.got.splitlines()) == kept + 1


def test_polling_is_offered_only_while_it_helps() -> None:
    """A stalled reader may be polled for; a reader that is gone, or that took all, may not: it would spin."""
    reader = Reader()
    writer = LineWriter(reader.outlet(), report)
    turns: list[tuple[list[int | OSError], int | None]] = [
        ([AGAIN], 77),
        ([GONE], None),
        ([5, AGAIN], 77),
        ([5, FULL], None),
        ([0], 77),
        ([], None),
    ]
    for script, polled in turns:
        reader.script = list(script)
        writer.write(line(0, 10))
        assert writer.flush() is (script == [])
        assert writer.pollable_fd == polled


def test_a_reader_that_is_gone_costs_one_call_a_turn() -> None:
    """After EPIPE or ENOSPC a turn tries one write, and the first that works brings what was held."""
    reader = Reader(script=[GONE, FULL, GONE, FULL])
    writer = LineWriter(reader.outlet(), report, limit=100)
    writer.write(line(0, 90))
    writer.write(line(1, 90))
    for turn in range(4):
        assert not writer.flush()
        assert reader.calls == turn + 1
    assert writer.flush()
    assert reader.got.splitlines()[1:] == [b"dropped 1"]
    assert lines_counted(bytes(reader.got)) == 2


def test_a_slow_reader_gets_runs_of_lines() -> None:
    """Once full, nothing is taken until half has gone: one report for a run of losses, not one for each."""
    reader = Reader(block=100, script=[AGAIN])
    writer = LineWriter(reader.outlet(), report, limit=1000)
    number = 0
    for _ in range(200):
        for _ in range(3):
            writer.write(line(number, 20))
            number += 1
        reader.script = [24, AGAIN]
        writer.flush()
    reader.script = []
    assert writer.flush()
    assert lines_counted(bytes(reader.got)) == number
    reports = reader.got.count(b"dropped")
    # 600 lines of 24 bytes, a third of them read: a run is half the limit, some 20 lines.
    assert 2 < reports < 15


def test_a_line_longer_than_the_limit_is_dropped_and_reported() -> None:
    """One monstrous line does not stop the ones after it."""
    reader = Reader()
    writer = LineWriter(reader.outlet(), report, limit=100)
    writer.write(line(0, 500))
    assert writer.pending
    assert writer.flush()
    writer.write(line(1, 10))
    assert writer.flush()
    assert lines_counted(bytes(reader.got)) == 2


def test_a_closed_stdout_takes_nothing() -> None:
    """With stdout closed from the start lines are dropped and counted; nothing is raised."""
    writer = LineWriter(nowhere(), report, limit=100)
    for number in range(20):
        writer.write(line(number, 20))
        assert not writer.flush()
    assert writer.pollable_fd is None
    assert writer.close(60) == 20


def test_after_close_lines_are_counted() -> None:
    """What is written after the end is dropped, counted, and asks for no flush for ever."""
    reader = Reader()
    writer = LineWriter(reader.outlet(), report)
    assert writer.close(0) == 0
    writer.write(line(0, 1))
    put(writer, 1, [1, 1])
    assert writer.dropped == 3
    assert writer.flush()
    assert not reader.got


def test_close_waits_for_a_slow_reader() -> None:
    """At the end the rest is written as the reader reads, not thrown away at the first EAGAIN."""
    with Path(os.devnull).open("wb") as always_writable:
        reader = Reader(block=100, fd=always_writable.fileno())
        writer = LineWriter(reader.outlet(), report)
        for number in range(10):
            writer.write(line(number, 40))
        reader.script = [AGAIN, 50, AGAIN]
        assert writer.close(60) == 0
    assert lines_counted(bytes(reader.got)) == 10


def test_close_gives_up_when_its_time_is_over() -> None:
    """A reader that never reads again does not keep the process from ending; what it missed is counted."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        outlet = Outlet(writing, lambda data: os.write(writing, data), 4096, lambda: None)
        writer = LineWriter(outlet, report)
        for number in range(10):
            writer.write(line(number, 40))
        assert writer.close(0.01) == 10
    finally:
        os.close(reading)
        os.close(writing)
