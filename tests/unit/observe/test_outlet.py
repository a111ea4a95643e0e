"""Lines to real pipes, sockets, terminals and files, whose readers stall, die and come back.

Nobody reads while the writer writes here: were one write to wait for its reader, the test would hang.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

import pytest

from appliance.observe.outlet import open_outlet
from appliance.observe.sink import LineWriter

LIMIT = 64 * 1024


def report(count: int) -> bytes:
    return b"dropped %d\n" % count


def writer_on(fd: int) -> LineWriter:
    return LineWriter(open_outlet(fd), report, LIMIT)


def write_until_dropping(writer: LineWriter) -> int:
    """Write, flushing each turn, until lines are dropped; how many were written."""
    number = 0
    while writer.dropped < 10:
        for _ in range(20):
            writer.write(b"%d %s\n" % (number, b"x" * (number % 400)))
            number += 1
        writer.flush()
    return number


def lines_counted(data: bytes) -> int:
    """Check that lines are whole and in order and each gap is reported in its place; how many there were."""
    expected = 0
    assert data.endswith(b"\n")
    for text in data.splitlines():
        word, rest = text.split(b" ", 1)
        if word == b"dropped":
            expected += int(rest)
        else:
            assert int(word) == expected
            assert rest == b"x" * (expected % 400)
            expected += 1
    return expected


def drain(fd: int, writer: LineWriter) -> bytes:
    """Read what comes while the writer flushes, until it has nothing left."""
    got = bytearray()
    done = False
    while not done:
        done = writer.flush()
        # The writer is done or stalled: either way there are bytes to read, or there is nothing left.
        os.set_blocking(fd, False)
        try:
            while data := os.read(fd, 1 << 16):
                got += data
        except BlockingIOError:
            continue
    return bytes(got)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pipe(opened: ExitStack) -> tuple[FileIO, FileIO]:
    reading, writing = os.pipe()
    return opened.enter_context(FileIO(reading, "r")), opened.enter_context(FileIO(writing, "w"))


def sockets(opened: ExitStack) -> tuple[socket.socket, socket.socket]:
    here, there = socket.socketpair()
    return opened.enter_context(here), opened.enter_context(there)


def test_a_pipe_whose_reader_stalls(opened: ExitStack) -> None:
    """A full pipe costs lines, never time; they are counted where they are missing once it is read again."""
    reading, writing = pipe(opened)
    writer = writer_on(writing.fileno())
    number = write_until_dropping(writer)
    assert writer.pending
    assert writer.pollable_fd is not None
    got = drain(reading.fileno(), writer)
    assert lines_counted(got) == number
    assert b"dropped" in got
    writer.close(0)


def test_the_shell_keeps_its_blocking_pipe(opened: ExitStack) -> None:
    """The inherited description is not switched to non-blocking: other processes write to it too."""
    _, writing = pipe(opened)
    writer = writer_on(writing.fileno())
    write_until_dropping(writer)
    assert os.get_blocking(writing.fileno())
    writer.close(0)
    assert os.get_blocking(writing.fileno())


def test_a_pipe_that_cannot_be_opened_again(opened: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's pipe (EACCES), or no /proc: it does not block either, and blocks again after close."""

    def refuse(path: str, flags: int) -> int:
        raise PermissionError(path, flags)

    reading, writing = pipe(opened)
    monkeypatch.setattr("appliance.observe.outlet.os.open", refuse)
    first, second = writer_on(writing.fileno()), writer_on(writing.fileno())
    assert not os.get_blocking(writing.fileno())
    number = write_until_dropping(first)
    assert lines_counted(drain(reading.fileno(), first)) == number
    second.close(0)
    assert not os.get_blocking(writing.fileno()), (
        "who did not change it must not change it back under the others"
    )
    first.close(0)
    assert os.get_blocking(writing.fileno())


def test_a_pipe_whose_reader_dies(opened: ExitStack) -> None:
    """EPIPE is neither raised nor a signal, and nothing is polled that would answer at once for ever."""
    reading, writing = pipe(opened)
    writer = writer_on(writing.fileno())
    writer.write(b"0 \n")
    assert writer.flush()
    reading.close()
    write_until_dropping(writer)
    assert writer.pollable_fd is None
    assert writer.close(60) >= 10


def test_a_pipe_whose_reader_was_never_there(opened: ExitStack) -> None:
    """A pipe that is broken from the start (it cannot be opened again: ENXIO) takes nothing, quietly."""
    reading, writing = pipe(opened)
    reading.close()
    writer = writer_on(writing.fileno())
    number = write_until_dropping(writer)
    assert writer.close(60) == number
    assert os.get_blocking(writing.fileno())


def test_a_fifo_whose_reader_comes_back(opened: ExitStack, tmp_path: Path) -> None:
    """After the reader of a fifo was restarted the log goes on, with what it missed and how much is lost."""
    path = tmp_path / "log"
    os.mkfifo(path)
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(path, os.O_WRONLY)
    opened.callback(os.close, writing)
    writer = writer_on(writing)
    os.close(first)
    number = write_until_dropping(writer)
    assert writer.pollable_fd is None
    second = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    opened.callback(os.close, second)
    assert lines_counted(drain(second, writer)) == number
    writer.close(0)


def test_a_socket_whose_reader_stalls(opened: ExitStack) -> None:
    """Stdout under systemd is a unix stream socket; it stays blocking for whoever shares it."""
    here, there = sockets(opened)
    writer = writer_on(here.fileno())
    number = write_until_dropping(writer)
    assert os.get_blocking(here.fileno())
    assert lines_counted(drain(there.fileno(), writer)) == number
    there.close()
    writer.write(b"x\n")
    assert not writer.flush()
    assert writer.pollable_fd is None
    assert writer.close(60) > 0


def test_a_terminal_that_is_stopped(opened: ExitStack) -> None:
    """A terminal nobody reads from (Ctrl-S, a dead ssh) costs lines, never time."""
    there, here = os.openpty()
    opened.callback(os.close, there)
    opened.callback(os.close, here)
    tty.setraw(here)
    writer = writer_on(here)
    number = write_until_dropping(writer)
    assert writer.pollable_fd is not None
    assert os.get_blocking(here)
    got = bytearray()
    # What a terminal took shows on its other side when the kernel gets to it: so the reader may wait.
    while not got.endswith(b"\n") or not writer.flush() or lines_counted(bytes(got)) < number:
        writer.flush()
        got += os.read(there, 1 << 16)
    writer.close(0)


def test_a_file(tmp_path: Path) -> None:
    """A file gets every line, and is written with one call a turn."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = writer_on(fd)
    for number in range(100):
        writer.write(b"%d %s\n" % (number, b"x" * number))
    assert writer.flush()
    os.close(fd)
    writer.write(b"100 %s\n" % (b"x" * 100))
    assert writer.close(0) == 0
    assert lines_counted(path.read_bytes()) == 101


def test_a_file_that_is_truncated_under_way(tmp_path: Path) -> None:
    """After logrotate's copytruncate the log begins at the start of the file, with no hole before it."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)  # as behind `>`
    writer = writer_on(fd)
    writer.write(b"before\n")
    assert writer.flush()
    os.truncate(path, 0)
    writer.write(b"after\n")
    assert writer.flush()
    os.write(fd, b"stderr\n")  # 2>&1, or who shares the file else
    writer.close(0)
    os.close(fd)
    assert path.read_bytes() == b"after\nstderr\n"


def test_a_full_disk() -> None:
    """ENOSPC is counted, not raised."""
    fd = os.open("/dev/full", os.O_WRONLY)
    writer = writer_on(fd)
    os.close(fd)
    number = write_until_dropping(writer)
    assert writer.pollable_fd is None
    assert writer.close(60) == number


def test_a_closed_descriptor(opened: ExitStack) -> None:
    """With stdout closed from the start nothing is written to the client that gets its number next."""
    client, gateway = sockets(opened)
    _, stdout = pipe(opened)
    number = stdout.fileno()
    os.close(number)
    writer = writer_on(number)
    os.dup2(gateway.fileno(), number)
    writer.write(b"0 \n")
    assert not writer.flush()
    assert writer.close(60) == 1
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)


def test_a_descriptor_closed_later(opened: ExitStack) -> None:
    """When someone closes stdout and a client gets its number, lines still go where stdout went."""
    reading, writing = pipe(opened)
    writer = writer_on(writing.fileno())
    client, gateway = sockets(opened)
    os.dup2(gateway.fileno(), writing.fileno())
    writer.write(b"0 \n")
    assert writer.flush()
    assert reading.read(100) == b"0 \n"
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    writer.close(0)


@pytest.mark.parametrize("kind", ["pipe", "socket", "file"])
def test_an_outlet_leaks_nothing(kind: str, opened: ExitStack, tmp_path: Path) -> None:
    """The outlet's own descriptor is above stdin, stdout and stderr, is not inherited, and is closed."""
    if kind == "pipe":
        fd = pipe(opened)[1].fileno()
    elif kind == "socket":
        fd = sockets(opened)[0].fileno()
    else:
        fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        opened.callback(os.close, fd)
    outlet = open_outlet(fd)
    assert outlet.fd != fd
    assert outlet.fd > 2
    assert fcntl.fcntl(outlet.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    outlet.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(outlet.fd)


PROCESS = """
import json, select, sys
from appliance.observe.outlet import open_outlet
from appliance.observe.sink import LineWriter

def report(count):
    return json.dumps({"process": me, "dropped": count}).encode() + b"\\n"

me = int(sys.argv[1])
writer = LineWriter(open_outlet(1), report, 200_000)
sys.stdin.readline()
for number in range(1500):
    line = json.dumps({"process": me, "number": number, "fill": "x" * (number * 37 % 3900)})
    writer.write(line.encode() + b"\\n")
    if number % 3 == 0 and not writer.flush() and number % 30 == 0 and writer.pollable_fd is not None:
        poll = select.poll()
        poll.register(writer.pollable_fd, select.POLLOUT)
        poll.poll()
writer.close(60)
"""


@pytest.mark.parametrize("kind", ["pipe", "socket", "file"])
def test_processes_that_share_stdout_do_not_mix_their_lines(
    kind: str, opened: ExitStack, tmp_path: Path
) -> None:
    """Every line of four workers comes whole, each worker's in order, each loss counted in its place."""
    if kind == "pipe":
        reading, writing = os.pipe()
    elif kind == "socket":
        here, there = socket.socketpair()
        reading, writing = there.detach(), here.detach()
    else:
        writing = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        reading = os.open(tmp_path / "log", os.O_RDONLY)
    processes = [
        opened.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, str(index)], stdin=subprocess.PIPE, stdout=writing
            )
        )
        for index in range(4)
    ]
    os.close(writing)
    got = bytearray()

    def read() -> None:
        while data := os.read(reading, 1 << 16):
            got.extend(data)

    reader = threading.Thread(target=read)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
    if kind != "file":
        reader.start()
    assert [process.wait() for process in processes] == [0] * 4
    if kind == "file":
        reader.start()
    reader.join()
    os.close(reading)
    check_processes(bytes(got))


def check_processes(data: bytes) -> None:
    """Each line parses; numbers and drops of each process add up to what it wrote."""
    expected = [0] * 4
    for text in data.splitlines():
        record = json.loads(text)
        if "dropped" in record:
            expected[record["process"]] += record["dropped"]
        else:
            assert record["number"] == expected[record["process"]]
            expected[record["process"]] += 1
    assert expected == [1500] * 4


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"next\n"),
        (b"whole\n", b"whole\nnext\n"),
        (b"whole\nhalf of", b"whole\nhalf of\nnext\n"),
    ],
    ids=["empty", "whole", "torn"],
)
def test_what_was_torn_is_kept_apart(tmp_path: Path, before: bytes, after: bytes) -> None:
    """Behind the half of a line that a process left when it was killed, the next record begins a line."""
    path = tmp_path / "log"
    path.write_bytes(before)
    with FileIO(os.open(path, os.O_WRONLY | os.O_APPEND), "w") as file:
        writer = writer_on(file.fileno())
        writer.write(b"next\n")
        writer.mend()
        writer.mend()
        assert writer.close(0) == 0
    assert path.read_bytes() == after


def test_a_pipe_is_not_mended() -> None:
    """Nobody can look at what a pipe has taken."""
    reading, writing = os.pipe()
    with FileIO(reading, "r") as reader, FileIO(writing, "w"):
        writer = writer_on(writing)
        writer.mend()
        writer.write(b"next\n")
        assert writer.close(0) == 0
        assert reader.read(100) == b"next\n"
