"""A stream that carries datagrams: each whole or not at all, in order, however much the kernel takes."""

import errno
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest

from appliance.net.reactor import IN
from appliance.net.sockets import Socket
from appliance.tunnel.datagram_channel import READ_BYTES, DatagramChannel, Phase
from appliance.tunnel.returning import Returning
from appliance.wire.datagrams import END, framed
from tests.tls import secure
from tests.unit.net.loop import Loop, loop, tcp_pair

ROOM = bytearray(1 << 16)
ABORT = struct.pack("ii", 1, 0)


class Home:
    """Where channels come from."""

    def __init__(self) -> None:
        self.is_open = True
        self.awaited: set[Returning] = set()
        self.back: list[Socket] = []
        self.gone = 0

    def awaits(self, returning: Returning) -> bool:
        if self.is_open:
            self.awaited.add(returning)
        return self.is_open

    def came_back(self, returning: Returning, connection: Socket) -> None:
        self.awaited.remove(returning)
        self.back.append(connection)

    def went(self, returning: Returning) -> None:
        self.awaited.remove(returning)
        self.gone += 1


class End:
    """One end: a channel, and what its flow reads from it."""

    def __init__(self, at: Loop, connection: Socket) -> None:
        self.home = Home()
        self.channel = DatagramChannel(
            at.reactor, connection, memoryview(bytearray(READ_BYTES)), self.home, Phase.OPEN
        )
        self.got: list[bytes] = []
        self.error: OSError | None = None
        at.reactor.watch(connection.fileno(), IN, self)

    @classmethod
    def over(cls, at: Loop, connection: Socket) -> "End":
        """Give the end of another flow over a connection that came back, which is watched."""
        at.reactor.unwatch(connection.fileno())
        return cls(at, connection)

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
        end.home.is_open = False
        if end.error is None:
            end.channel.close()


def end_of(at: Loop, *those: End) -> None:
    """End the flow at these ends, as a flow does."""
    for end in those:
        end.channel.forget()
    at.turn()


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


# -- a sealed channel outlives its flow ------------------------------------------------------------


def is_closed(end: End) -> bool:
    return end.channel._connection.fileno() == -1


def talk_again(at: Loop, here: End, there: End) -> None:
    """Both ends have their connection back, watched, with nothing in it: the next flow passes."""
    (one,), (other,) = here.home.back, there.home.back
    first, second = End.over(at, one), End.over(at, other)
    first.channel.send(b"next")
    second.channel.send(b"and back")
    at.until(lambda: first.got and second.got)
    assert (first.got, second.got) == ([b"and back"], [b"next"])
    close(first, second)
    at.turn()


@pytest.mark.parametrize("late", [0, 1, 5])
def test_it_comes_back_when_both_ends_have_ended(at: Loop, late: int) -> None:
    """Whichever ends first; what was sent to who has ended is thrown away."""
    here, there = ends(at, sealed=True)
    there.channel.send(b"first")
    at.until(lambda: here.got)
    end_of(at, here)
    assert not here.home.back
    for _ in range(late):
        there.channel.send(b"late")
    at.until(lambda: there.error)
    assert isinstance(there.error, ConnectionRefusedError)
    at.until(lambda: here.home.back and there.home.back)
    assert not here.home.awaited
    assert not there.home.awaited
    talk_again(at, here, there)


def test_it_comes_back_when_both_end_at_once(at: Loop) -> None:
    """Their words cross, behind datagrams that nobody reads."""
    here, there = ends(at, sealed=True)
    for _ in range(5):
        here.channel.send(b"unread")
        there.channel.send(b"unread")
    end_of(at, here, there)
    at.until(lambda: here.home.back and there.home.back)
    talk_again(at, here, there)


def test_it_comes_back_at_once_where_nothing_was_opened(at: Loop) -> None:
    """The other end knows it already: not a word is said."""
    here, there = ends(at, sealed=True)
    here.channel.phase = Phase.UNUSED
    end_of(at, here)
    assert here.home.back
    there.channel.phase = Phase.UNUSED
    end_of(at, there)
    talk_again(at, here, there)


def test_a_flow_that_ends_while_it_is_dialled_takes_its_channel_along(at: Loop) -> None:
    """The other end waits for an answer, and the end of the channel is one."""
    here, there = ends(at, sealed=True)
    here.channel.phase = Phase.DIALLING
    end_of(at, here)
    at.until(lambda: is_closed(there))
    assert is_closed(here)
    assert not here.home.back


def test_a_channel_with_half_a_datagram_unsent_is_closed(at: Loop) -> None:
    """Nobody could tell it from the next flow's."""
    here, there = ends(at, sealed=True)
    with suppress(BlockingIOError):
        for _ in range(100):
            here.channel.send(b"x" * 60_000)
    assert here.channel._unsent
    end_of(at, here)
    at.until(lambda: is_closed(there))
    assert not here.home.back
    assert not here.home.awaited


def test_a_channel_that_nobody_awaits_is_closed_in_order(at: Loop) -> None:
    """The other end is told all the same."""
    here, there = ends(at, sealed=True)
    here.home.is_open = False
    here.channel.send(b"last")
    end_of(at, here)
    at.until(lambda: there.error)
    assert there.got == [b"last"]
    assert isinstance(there.error, ConnectionRefusedError)
    at.until(lambda: is_closed(there))


def test_what_comes_behind_the_end_costs_the_channel(at: Loop) -> None:
    """Who says more than its end, in one breath, is not trusted with another flow."""
    here, there = ends(at, sealed=True)
    end_of(at, here)
    there.channel._connection.send(END + b"x")
    at.until(lambda: here.home.gone)
    assert is_closed(here)
    there.channel._connection.close()


def test_a_peer_that_is_gone_meanwhile_costs_the_channel(at: Loop) -> None:
    """The wait for its end is over then."""
    here, there = ends(at, sealed=True)
    end_of(at, here)
    there.channel._connection.close()
    at.until(lambda: here.home.gone)
    assert not here.home.back


def test_a_wait_that_is_given_up_closes_the_channel(at: Loop) -> None:
    """As the control channel's end does."""
    here, there = ends(at, sealed=True)
    end_of(at, here)
    (returning,) = here.home.awaited
    returning.give_up()
    at.until(lambda: is_closed(there))
    assert is_closed(here)


def test_an_end_behind_datagrams_of_one_read_is_heard(at: Loop) -> None:
    """All of them are given first, one at a time, and then the end, without another event."""
    here, there = ends(at, sealed=True)
    there.channel._connection.send(framed(b"one") + framed(b"two") + END)
    at.until(lambda: here.error)
    assert here.got == [b"one", b"two"]
    assert isinstance(here.error, ConnectionRefusedError)
    close(there)
    here.channel._connection.close()
