"""A stream that carries datagrams: each whole or not at all, in order, however much the kernel takes."""

import errno
import random
import socket
import struct
from collections.abc import Iterator

import pytest

from appliance.net.reactor import IN
from appliance.net.sockets import Socket
from appliance.tunnel.datagram_channel import READ_BYTES, DatagramChannel
from appliance.wire.datagrams import framed
from tests.tls import secure
from tests.unit.net.loop import Loop, loop, tcp_pair

ROOM = bytearray(1 << 16)
ABORT = struct.pack("ii", 1, 0)


class End:
    """One end: a channel, and what its flow reads from it."""

    def __init__(self, at: Loop, connection: Socket) -> None:
        self.channel = DatagramChannel(at.reactor, connection, bytearray(READ_BYTES))
        self.got: list[bytes] = []
        self.error: OSError | None = None
        at.reactor.watch(connection.fileno(), IN, self)

    def on_event(self, events: int) -> None:  # noqa: ARG002  as a flow: it reads one, whatever it was
        try:
            count = self.channel.recv_into(ROOM)
        except BlockingIOError:
            return
        except OSError as error:
            self.error = error
            self.channel.forget()
            return
        self.got.append(bytes(ROOM[:count]))

    def on_fault(self) -> None:
        raise AssertionError


@pytest.fixture
def at() -> Iterator[Loop]:
    with loop() as made:
        yield made


def ends(at: Loop, *, sealed: bool = False) -> tuple[End, End]:
    one, other = tcp_pair()
    for each in (one, other):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    first, second = secure(one, other) if sealed else (one, other)
    return End(at, first), End(at, second)


def close(*those: End) -> None:
    for end in those:
        if end.error is None:
            end.channel.close()


def test_datagrams_in_one_read_come_one_by_one(at: Loop) -> None:
    """What one read brought is handed on a datagram at a time, empty ones too, without more events."""
    here, there = ends(at)
    sent = [b"one", b"", b"x" * 1400, b"", b"last"]
    there.channel._connection.send(b"".join(map(framed, sent)))
    at.until(lambda: len(here.got) == len(sent))
    assert here.got == sent
    close(here, there)


def test_a_datagram_in_pieces_comes_whole(at: Loop) -> None:
    """A datagram is given once its last byte is there, however it was cut, its length too."""
    here, there = ends(at)
    for byte in framed(b"whole"):
        assert not here.got
        there.channel._connection.send(bytes([byte]))
        at.turn()
    at.until(lambda: here.got)
    assert here.got == [b"whole"]
    close(here, there)


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("seed", range(3))
def test_what_was_taken_arrives(at: Loop, seed: int, *, sealed: bool) -> None:
    """With a peer that reads now and then, each datagram that `send` took arrives, whole and in order."""
    here, there = ends(at, sealed=sealed)
    numbers = random.Random(seed)
    at.turn()
    taken: list[bytes] = []
    dropped = 0
    for count in range(600):
        datagram = count.to_bytes(4, "big") + numbers.randbytes(numbers.choice((0, 5, 200, 1400, 30_000)))
        try:
            assert there.channel.send(datagram) == len(datagram)
        except BlockingIOError:
            dropped += 1
        else:
            taken.append(datagram)
        if numbers.random() < 0.05:
            at.turn()
    assert dropped, "the peer's buffers were never full"
    at.until(lambda: len(here.got) >= len(taken) or here.error is not None)
    assert here.error is None
    assert here.got == taken
    close(here, there)


def test_an_end_in_order_is_a_refusal(at: Loop) -> None:
    """The other end's close comes after its last datagram, as ECONNREFUSED: the flow ended in order."""
    here, there = ends(at)
    there.channel.send(b"last")
    there.channel.close()
    at.until(lambda: here.error)
    assert here.got == [b"last"]
    assert isinstance(here.error, ConnectionRefusedError)


def test_a_reset_is_a_loss(at: Loop) -> None:
    """A connection that was cut says EHOSTUNREACH, as a datagram socket does of an endpoint that is gone."""
    here, there = ends(at)
    there.channel._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    there.channel._connection.close()
    at.until(lambda: here.error)
    assert here.error is not None
    assert here.error.errno == errno.EHOSTUNREACH


def test_sending_after_an_end_in_order_says_so(at: Loop) -> None:
    """Who sends to an end that has closed in order learns that, though datagrams of it were unread."""
    here, there = ends(at)
    there.channel.send(b"unread")
    there.channel.send(b"unread, too")
    there.channel.close()
    refused = None
    while refused is None:
        try:
            here.channel.send(b"late")
        except OSError as error:
            refused = error
    assert isinstance(refused, ConnectionRefusedError), refused
    close(here)


def test_it_has_no_trains_and_no_queue_of_errors(at: Loop) -> None:
    """What only datagram sockets have is refused with the errors by which flows do without it."""
    here, there = ends(at)
    with pytest.raises(OSError, match="trains") as train:
        here.channel.sendmsg_to((memoryview(b"x"),), [(0, 0, b"")], 0, None)
    assert train.value.errno == errno.EOPNOTSUPP
    with pytest.raises(BlockingIOError):
        here.channel.recvmsg()
    assert here.channel.sendmsg_to((memoryview(b"x"),), [], 0, None) == 1
    at.until(lambda: there.got)
    close(here, there)
