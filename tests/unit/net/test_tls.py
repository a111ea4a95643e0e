"""TLS sockets: they say what a socket says, in every order of ends, and nothing is lost or invented."""

import os
import random
import select
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from appliance.net.tls import RECORD, TlsSocket
from tests.tls import secure
from tests.unit.net.loop import PATIENCE, open_fds, tcp_pair

ROOM = 1 << 16
ABORT = struct.pack("ii", 1, 0)


@dataclass
class Pair:
    """Both ends of one TLS connection."""

    client: TlsSocket
    server: TlsSocket


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Give a connection over loopback; nothing of it is left afterwards."""
    before = open_fds()
    made = Pair(*secure(*tcp_pair()))
    with pytest.raises(BlockingIOError):
        made.client.recv(ROOM)  # the server's tickets
    yield made
    made.client.close()
    made.server.close()
    assert open_fds() == before


def wire(end: TlsSocket) -> socket.socket:
    """Give what somebody on the wire has, who has no keys."""
    return socket.socket(fileno=os.dup(end.fileno()))


def readable(end: TlsSocket) -> None:
    """Wait until the kernel has something for this end."""
    assert end.pending() or select.select([end], [], [], PATIENCE)[0]


def read(end: TlsSocket, count: int) -> bytes:
    """Read so many bytes."""
    got = bytearray()
    while len(got) < count:
        readable(end)
        try:
            data = end.recv(min(ROOM, count - len(got)))
        except BlockingIOError:
            continue
        assert data, f"the end after {len(got)} bytes"
        got += data
    return bytes(got)


def read_end(end: TlsSocket) -> bytes:
    """Read to the end, whichever it is; raises ConnectionResetError."""
    got = bytearray()
    while True:
        readable(end)
        try:
            data = end.recv(ROOM)
        except BlockingIOError:
            continue
        if not data:
            return bytes(got)
        got += data


def write(end: TlsSocket, data: bytes) -> None:
    """Write all, waiting for room."""
    view = memoryview(data)
    while view:
        try:
            view = view[end.send(view) :]
        except BlockingIOError:
            select.select([], [end], [], PATIENCE)


def fill(end: TlsSocket, data: bytes) -> int:
    """Write until there is no more room; the bytes that were taken."""
    sent = 0
    while True:
        try:
            sent += end.send(memoryview(data)[sent : sent + ROOM])
        except BlockingIOError:
            return sent


def same(one: bytes, other: bytes) -> bool:
    """Compare large payloads; pytest would take minutes to explain how they differ."""
    return one == other


def both(pair: Pair) -> list[tuple[TlsSocket, TlsSocket]]:
    """Give the ends in both orders."""
    return [(pair.client, pair.server), (pair.server, pair.client)]


def test_bytes_both_ways(pair: Pair) -> None:
    """What one end sends is what the other gets, in either direction."""
    for one, other in both(pair):
        data = random.Random(1).randbytes(50_000)
        assert one.send(data) == len(data)
        assert read(other, len(data)) == data


def test_nothing_to_read_would_block(pair: Pair) -> None:
    """A read without a record is BlockingIOError, also where only the server's tickets came."""
    for one, _ in both(pair):
        with pytest.raises(BlockingIOError):
            one.recv(ROOM)
        assert not one.pending()


def test_a_read_takes_all_records_there_is_room_for(pair: Pair) -> None:
    """Full records are joined into one read, and none is split that need not be."""
    data = random.Random(2).randbytes(4 * RECORD)
    assert pair.client.send(data) == len(data)
    buffer = bytearray(ROOM)
    got = b""
    while len(got) < len(data):
        readable(pair.server)
        count = pair.server.recv_into(buffer, ROOM)
        got += buffer[:count]
        assert count % RECORD == 0
        assert not pair.server.pending()
    assert got == data


def test_a_read_smaller_than_a_record_leaves_the_rest_pending(pair: Pair) -> None:
    """What OpenSSL has opened and nobody has taken is told of, as epoll cannot."""
    data = random.Random(3).randbytes(1000)
    pair.client.send(data)
    readable(pair.server)
    got = pair.server.recv(10)
    assert pair.server.pending()
    while pair.server.pending():
        got += pair.server.recv(100)
    assert got == data


def test_writing_without_room_would_block_and_goes_on(pair: Pair) -> None:
    """A write takes what there is room for; the rest, offered again, arrives behind it."""
    data = random.Random(4).randbytes(16 << 20)
    sent = fill(pair.client, data)
    assert 0 < sent < len(data)
    with pytest.raises(BlockingIOError):
        pair.client.send(data[sent : sent + ROOM])
    assert same(read(pair.server, sent - RECORD), data[: sent - RECORD])
    write(pair.client, data[sent : sent + ROOM])
    assert same(read(pair.server, RECORD + ROOM), data[sent - RECORD : sent + ROOM])


def test_no_bytes_are_written(pair: Pair) -> None:
    """A write of nothing is no record, and no end either."""
    assert pair.client.send(b"") == 0
    with pytest.raises(BlockingIOError):
        pair.server.recv(ROOM)


def say_goodbye(end: TlsSocket) -> None:
    """Send a close_notify, as another implementation may."""
    with suppress(ssl.SSLWantReadError):
        end._records.shutdown()  # type: ignore[attr-defined]


def test_a_close_notify_is_an_end(pair: Pair) -> None:
    """It comes behind the bytes before it, and is said again whenever one asks."""
    pair.client.send(b"last words")
    say_goodbye(pair.client)
    assert read_end(pair.server) == b"last words"
    assert pair.server.recv(ROOM) == b""


def test_bytes_and_end_in_one_read(pair: Pair) -> None:
    """An end that a read meets behind full records is not lost: `pending` says it."""
    for one, other in both(pair)[:1]:
        one.send(b"x" * RECORD)
        say_goodbye(one)
        wait_for_bytes(other, RECORD + 22 + 24)
        buffer = bytearray(ROOM)
        assert other.recv_into(buffer, ROOM) == RECORD
        assert other.pending()
        assert other.recv_into(buffer, ROOM) == 0


def test_bytes_and_truncation_in_one_read(pair: Pair) -> None:
    """Neither is an error: the bytes before it are given, and `pending` says that there is more to hear."""
    for one, other in both(pair)[:1]:
        one.send(b"x" * RECORD)
        one.close()
        wait_for_bytes(other, RECORD)
        buffer = bytearray(ROOM)
        assert other.recv_into(buffer, ROOM) == RECORD
        if not other.pending():  # the FIN came later
            readable(other)
        with pytest.raises(ConnectionResetError):
            other.recv_into(buffer, ROOM)


def wait_for_bytes(end: TlsSocket, count: int) -> None:
    """Wait until the kernel holds so many for this end."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
    readable(end)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def test_truncation_is_a_reset(pair: Pair) -> None:
    """A FIN without close_notify is never an orderly end, however often one asks."""
    pair.client.send(b"half of it")
    with wire(pair.client) as raw:
        raw.shutdown(socket.SHUT_WR)
    assert read(pair.server, 10) == b"half of it"
    for _ in range(3):
        readable(pair.server)
        with pytest.raises(ConnectionResetError):
            pair.server.recv(ROOM)


def test_abort_is_a_reset_for_reads_and_writes(pair: Pair) -> None:
    """RST is what it is for any socket."""
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    pair.client.close()
    readable(pair.server)
    with pytest.raises(ConnectionResetError):
        pair.server.recv(ROOM)
    with pytest.raises(ConnectionError):
        pair.server.send(b"x")


@pytest.mark.parametrize("seed", range(30))
def test_bytes_that_are_no_records_are_a_reset(pair: Pair, seed: int) -> None:
    """Whatever somebody without keys puts on the wire: what was sealed before is read, and no more."""
    dice = random.Random(seed)
    pair.client.send(b"sealed")
    kind = dice.randbytes(1) if seed % 2 else b"\x17\x03\x03"
    with wire(pair.client) as raw:
        raw.send(kind + dice.randbytes(dice.choice([5, 40, 400, 40_000])))
        raw.shutdown(socket.SHUT_WR)
    assert read(pair.server, 6) == b"sealed"
    with pytest.raises(ConnectionResetError):
        read_end(pair.server)


def test_options_are_those_of_the_connection(pair: Pair) -> None:
    """TCP's options, names and family are the socket's own."""
    pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert pair.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert pair.client.getpeername() == pair.server.getsockname()
    assert pair.client.family == socket.AF_INET


def test_a_resumed_session_is_authenticated_too(pair: Pair) -> None:
    """With a ticket the handshake is half the work, and both sides still know whose certificate it was."""
    client, server = secure(*tcp_pair(), session=pair.client.session)
    assert client.session_reused
    assert server.session_reused
    assert server.getpeercert() == pair.server.getpeercert() != {}
    assert client.getpeercert() == pair.client.getpeercert() != {}
    client.close()
    server.close()
