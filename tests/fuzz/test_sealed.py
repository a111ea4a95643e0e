"""Any stream of pieces, over real TLS: bytes come back, and what is no such stream is a reset."""

import fcntl
import os
import socket
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.net.relay import COPY_BYTES
from appliance.net.sealed import END, PIECE
from appliance.net.sockets import abort_on_close
from appliance.net.tls import RECORD, TlsSocket
from tests.unit.net.loop import loop
from tests.unit.net.ways import Joined, Room, join, piece, say_goodbye, sealed_pair

SMALL_ROOM = 1000
"""Bytes that a reluctant sink takes at once: few, and still not a turn for each byte."""

SIZES = (
    st.integers(1, 40) | st.integers(RECORD - 3, RECORD + 3) | st.integers(COPY_BYTES - 4, COPY_BYTES + 99)
)
"""Bytes at once: within a record, around a full one, and around what is read in one turn."""


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Cut it into these sizes, over and over."""
    at = number = 0
    while at < len(data):
        size = sizes[number % len(sizes)] if sizes else len(data)
        yield data[at : at + size]
        at, number = at + size, number + 1


def records(sizes: list[int], total: int) -> list[int]:
    """Make no more records than a test has time for."""
    return sizes if total < 2000 else [max(size, SMALL_ROOM) for size in sizes]


@dataclass
class Speech:
    """What one side says, how it is cut into what is written at once, and how the other side takes it."""

    size: int
    seed: bytes
    """It, over and over, is what is said."""
    pieces: list[int]
    writes: list[int]
    refusals: int
    most: int
    reads_every: int
    """So many turns are between two reads."""

    @property
    def data(self) -> bytes:
        """Give what is said."""
        return (self.seed * (self.size // len(self.seed) + 1))[: self.size]

    def plain(self) -> list[bytes]:
        """Give what a side without TLS writes."""
        return list(cut(self.data, records(self.writes, self.size)))

    def sealed(self) -> list[bytes]:
        """Give what a side with TLS writes."""
        stream = b"".join(map(piece, cut(self.data, records(self.pieces or [PIECE], self.size)))) + END
        return list(cut(stream, records(self.writes, len(stream))))

    def room(self) -> Room:
        """Give what the sink between the two takes."""
        return Room(self.refusals, self.most)


SPEECHES = st.builds(
    Speech,
    size=st.lists(SIZES, max_size=3).map(sum),
    seed=st.binary(min_size=1, max_size=7),
    pieces=st.lists(SIZES.map(lambda size: min(size, PIECE)), max_size=3),
    writes=st.lists(SIZES, max_size=3),
    refusals=st.integers(0, 3),
    most=st.sampled_from([SMALL_ROOM, RECORD, RECORD + 1, 1 << 30]),
    reads_every=st.integers(1, 3),
)


def speak(left: list[bytes], to: socket.socket | TlsSocket) -> None:
    """Write as much as there is room for."""
    with suppress(BlockingIOError):
        while left:
            sent = to.send(left[0])
            if sent == len(left[0]):
                left.pop(0)
            else:
                left[0] = left[0][sent:]


def converse(joined: Joined, up: Speech, down: Speech) -> tuple[bytes, bytes]:
    """Have both sides say all they have, and end; give what the endpoint and the client heard."""
    joined.connection.room, joined.accepted.room = up.room(), down.room()
    joined.client.setblocking(False)
    asks, answers = up.plain(), down.sealed()
    turn, is_shut = 0, False

    def is_over() -> bool:
        nonlocal turn, is_shut
        turn += 1
        speak(asks, joined.client)
        speak(answers, joined.endpoint)
        if not asks and not is_shut:
            is_shut = True
            joined.client.shutdown(socket.SHUT_WR)
        if not turn % up.reads_every:
            joined.heard()
        if not turn % down.reads_every:
            joined.got()
        return joined.told.is_over

    joined.at.until(is_over)
    joined.at.until(lambda: model(joined.heard())[1] is not None and len(joined.got()) == joined.down.moved)
    return joined.heard(), joined.got()


def check_conversation(joined: Joined, up: Speech, down: Speech) -> None:
    """Hold what is held of any session that ends in order."""
    heard, got = converse(joined, up, down)
    asked, rest, _ = model(heard)
    assert not joined.told.reset
    assert len(joined.told.ended) == 1
    assert (asked == up.data, rest) == (True, b"")
    assert (got == down.data) is True
    assert (joined.up.moved, joined.down.moved) == (len(up.data), len(down.data))
    assert not joined.connection.pending()


@settings(max_examples=60)
@given(
    st.lists(st.tuples(SPEECHES, SPEECHES), min_size=1, max_size=3),
)
def test_bytes_come_back(sessions: list[tuple[Speech, Speech]]) -> None:
    """However they are written, and taken; and the connection serves the next session the same."""
    with sealed_pair() as (connection, endpoint), loop() as at:
        for up, down in sessions:
            joined = Joined(at, connection, endpoint)
            try:
                check_conversation(joined, up, down)
            finally:
                joined.leave()


def model(stream: bytes) -> tuple[bytes, bytes | None, bool]:
    """Say what a client may get of a stream, what follows its end (None: it has none), and if it is wrong."""
    data = b""
    while len(stream) >= len(END):
        size = int.from_bytes(stream[: len(END)], "big")
        stream = stream[len(END) :]
        if size > PIECE:
            return data, None, True
        if not size:
            return data, stream, False
        data += stream[:size]
        stream = stream[size:]
    return data, None, False


def test_the_model() -> None:
    """What the streams below are held against is right where it is easily seen."""
    assert model(b"") == (b"", None, False)
    assert model(b"\0\0\0\1a\0\0\0\2b") == (b"ab", None, False)
    assert model(b"\0\0\0\1a\0") == (b"a", None, False)
    assert model(b"\0\0\0\1a\0\0\0\0\0\0\0\0") == (b"a", END, False)
    assert model(b"\0\0\0\1a\0\4\0\0b") == (b"a", None, True)


PARTS = (
    st.binary(max_size=5)
    | st.binary(min_size=1, max_size=20).map(piece)
    | st.just(END)
    | st.sampled_from([RECORD - 4, RECORD, COPY_BYTES, PIECE])
)
"""Of a stream; a number is a piece of so many bytes."""


def cut_the_wire(end: TlsSocket) -> None:
    """Send a FIN without a goodbye."""
    with socket.socket(fileno=os.dup(end.fileno())) as wire:
        wire.shutdown(socket.SHUT_WR)


def unheard(end: TlsSocket) -> int:
    """Count the bytes that the peer's kernel does not have yet (SIOCOUTQ, tcp(7))."""
    count = bytearray(4)
    fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, count)
    return int.from_bytes(count, sys.byteorder)


def leave(end: TlsSocket, how: str) -> None:
    """End the connection in one of the ways there are."""
    match how:
        case "goodbye":
            say_goodbye(end)
        case "cut":
            cut_the_wire(end)
        case "abort":
            abort_on_close(end)
            end.close()


@settings(max_examples=150)
@given(
    st.lists(PARTS, max_size=8),
    st.lists(st.integers(1, 30) | st.just(RECORD), max_size=4),
    st.sampled_from(["stay", "goodbye", "cut", "abort"]),
    st.booleans(),
    st.integers(0, 3),
)
@example([piece(b"one"), b"\0\4\0\0"], [], "stay", False, 0)
@example([piece(b"one"), END + b"x"], [], "stay", False, 0)
@example([RECORD, END], [1], "abort", True, 0)
@example([PIECE, END], [1], "abort", True, 0)
@example([piece(b"one"), END + b"x"], [], "stay", True, 0)
def test_any_peer(
    parts: list[bytes | int], sizes: list[int], how: str, is_up_over: bool, refusals: int
) -> None:
    """Whatever it writes: the client gets what its pieces have, and an end only where it said one."""
    stream = b"".join(piece(bytes(part)) if isinstance(part, int) else part for part in parts)
    data, rest, is_wrong = model(stream)
    with join() as joined:
        joined.accepted.room.refusals = refusals
        if is_up_over:
            joined.client.shutdown(socket.SHUT_WR)
            joined.at.until(lambda: joined.up.ended)
        left = list(cut(stream, records(sizes, len(stream))))

        def is_said() -> bool:
            speak(left, joined.endpoint)
            joined.got()
            return joined.told.is_over or not left

        joined.at.until(is_said)
        # What is on its way is lost by an abort, and the end with it.
        joined.at.until(lambda: joined.told.is_over or not unheard(joined.endpoint))
        leave(joined.endpoint, how)
        if is_up_over and rest is not None:
            joined.at.until(lambda: joined.told.is_over)
            assert joined.told.ended == [joined.down]
        elif is_wrong or rest or how != "stay":
            joined.at.until(lambda: joined.told.is_over)
            assert joined.told.reset
        elif rest is not None:
            joined.at.until(lambda: joined.down.ended)
        joined.comes_to_rest()
        assert data.startswith(joined.got())
        if joined.told.ended or how != "abort":
            joined.gets(data)
            assert joined.down.moved == len(data)
