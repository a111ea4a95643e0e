"""Trains: asked for where they come, given up where not, and never joined into one datagram."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from socket import SOL_UDP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.net.trains import (
    LONGEST_WAIT,
    PATIENCE,
    UDP_GRO,
    Sense,
    segment_control,
    segment_size,
    segments,
)

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def pair() -> Iterator[Pair]:
    """Make a sender that is connected to a receiver."""
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        sender.connect(receiver.getsockname())
        yield sender, receiver


def joins(receiver: socket.socket) -> bool:
    return bool(receiver.getsockopt(SOL_UDP, UDP_GRO))


def received(receiver: socket.socket) -> list[tuple[int, int]]:
    """Read all there is: the length of each buffer, and the segment size told."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            data, controls, _, _ = receiver.recvmsg(1 << 16, 128)
        except BlockingIOError:
            return found
        found.append((len(data), segment_size(controls)))


def give_up(sense: Sense) -> int:
    """Let datagrams come on their own until the sense asks no more; give how many that took."""
    count = 0
    while sense.asks:
        sense.single_came()
        count += 1
        assert count < 10_000
    return count


def runs_until_it_asks(sense: Sense) -> int:
    count = 0
    while not sense.asks:
        sense.run_came()
        count += 1
        assert count < 100_000
    return count


def test_a_run_has_the_socket_asked_for_trains() -> None:
    """The first run of equal datagrams is enough, and it is the socket that is asked."""
    with pair() as (_, receiver):
        sense = Sense(receiver)
        assert not joins(receiver)
        sense.run_came()
        assert sense.asks
        assert joins(receiver)


def test_where_no_train_comes_it_is_given_up() -> None:
    """After so many datagrams on their own the socket is read as before; one train begins the count anew."""
    with pair() as (_, receiver):
        sense = Sense(receiver)
        sense.run_came()
        for _ in range(PATIENCE - 1):
            sense.single_came()
        sense.train_came()
        assert give_up(sense) == PATIENCE
        assert not joins(receiver)


def test_each_try_in_vain_makes_the_next_one_rarer() -> None:
    """Runs that are no trains (a sensor's readings) cost less and less, but never end the tries."""
    with pair() as (_, receiver):
        sense = Sense(receiver)
        waits = []
        for _ in range(9):
            waits.append(runs_until_it_asks(sense))
            give_up(sense)
        assert waits == [1, 5, 17, 65, 257, 1025, LONGEST_WAIT + 1, LONGEST_WAIT + 1, LONGEST_WAIT + 1]


def test_a_train_makes_the_next_try_early() -> None:
    """Where asking paid, the first pause is the short one again."""
    with pair() as (_, receiver):
        sense = Sense(receiver)
        for _ in range(4):
            runs_until_it_asks(sense)
            give_up(sense)
        runs_until_it_asks(sense)
        sense.train_came()
        give_up(sense)
        assert runs_until_it_asks(sense) == 5


def test_it_is_not_given_up_while_something_waits() -> None:
    """What waits may be a train, which would be read as one datagram: the bounds would be lost."""
    with pair() as (sender, receiver):
        sense = Sense(receiver)
        sense.run_came()
        sender.sendmsg([b"x" * 3000], [segment_control(1000)])
        for _ in range(3 * PATIENCE):
            sense.single_came()
        assert sense.asks
        assert joins(receiver)
        assert received(receiver) == [(3000, 1000)]
        give_up(sense)
        sender.sendmsg([b"x" * 3000], [segment_control(1000)])
        assert received(receiver) == [(1000, 0)] * 3


def test_a_kernel_without_trains_is_asked_once() -> None:
    """Before Linux 5.0 the option does not exist: everything goes on as it was."""

    class Old:
        asked = 0

        def setsockopt(self, *_: object) -> None:
            self.asked += 1
            raise OSError(92, "Protocol not available")

    old = Old()
    sense = Sense(old)  # type: ignore[arg-type]
    for _ in range(10_000):
        sense.run_came()
    assert (sense.asks, old.asked) == (False, 1)


@pytest.mark.parametrize("last", [1, 999, 1000])
def test_a_train_is_told_and_sent_as_one(last: int) -> None:
    """The control messages are the kernel's: a train arrives with its size, the last one perhaps shorter."""
    with pair() as (sender, receiver):
        receiver.setsockopt(SOL_UDP, UDP_GRO, 1)
        sender.sendmsg([b"x" * (4000 + last)], [segment_control(1000)])
        sender.send(b"alone")
        assert received(receiver) == [(4000 + last, 1000), (5, 0)]


def test_other_control_messages_tell_no_size() -> None:
    """Only UDP's own one does, whatever number another level's has."""
    assert segment_size([]) == 0
    assert segment_size([(socket.IPPROTO_IP, UDP_GRO, b"\1\0\0\0"), (SOL_UDP, 1, b"\1\0\0\0")]) == 0
    assert segment_size([(socket.IPPROTO_IP, 8, bytes(12)), (SOL_UDP, UDP_GRO, b"\xb0\4\0\0")]) == 1200


@given(st.integers(0, 65_507), st.integers(0, 65_507))
def test_segments_are_counted_as_they_are_cut(count: int, size: int) -> None:
    """As many as a loop over them would find; without a size, or of nothing, it is one datagram."""
    assert segments(count, size) == (len(range(0, count, size)) if size and count else 1)
