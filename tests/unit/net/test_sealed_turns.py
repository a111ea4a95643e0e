"""A sealed source whose peer lies: however it packs its pieces, the others of the loop have their turns."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest

from appliance.net.pipes import PipePool
from appliance.net.reactor import IN
from appliance.net.relay import Direction, Relay
from appliance.net.sealed import END, MOST_PIECES, MOST_READS, Opening, Sealing
from tests.tls import secure
from tests.unit.net.loop import Loop, loop, tcp_pair

PIECE = b"\0\0\0\3abc"
"""One that no number of fills a record: so one of them always goes on in the next."""

A_TURN = 2 * MOST_PIECES * 3
"""Bytes of an event's pieces, and of those that were left to this turn by the last."""


@dataclass
class Told:
    """The session as its directions see it."""

    ended: int = 0
    reset: int = 0

    def relay_ended(self, last: Direction) -> None:  # noqa: ARG002
        self.ended += 1

    def relay_reset(self, by: Direction, *, as_sink: bool) -> None:  # noqa: ARG002
        self.reset += 1

    def sink_lost(self, direction: Direction) -> None:
        """Not looked at here."""

    def first_bytes(self, direction: Direction) -> None:
        """Not looked at here."""

    def on_fault(self) -> None:
        raise AssertionError


class Joined:
    """A sealed peer, a plain one, and what is between them."""

    def __init__(self, at: Loop, stack: ExitStack) -> None:
        self.at = at
        self.plain, sink = (stack.enter_context(each) for each in tcp_pair())
        source, self.sealed = secure(*tcp_pair())
        self.told = Told()
        relay = Relay(at.reactor, PipePool(0))
        self.opening = Opening(relay, self.told, source, sink)
        self.sealing = Sealing(relay, self.told, sink, source)
        self.opening.back, self.sealing.back = self.sealing, self.opening
        for way in (self.opening, self.sealing):
            at.reactor.watch(way.fd, IN, way)


@pytest.fixture
def joined() -> Iterator[Joined]:
    """Give a session's two directions."""
    with ExitStack() as stack, loop() as at:
        made = Joined(at, stack)
        yield made
        for way in (made.opening, made.sealing):
            at.reactor.forget(way.fd, way.source.close)
            way.stop()
        made.sealed.close()


def test_pieces_are_taken_some_at_a_time(joined: Joined) -> None:
    """Pieces of a few bytes, of which each record has thousands, are opened some a turn."""
    count = 3 * 16384
    assert joined.sealed.send(PIECE * count) == len(PIECE) * count
    joined.at.until(lambda: joined.opening.moved)
    most, before = joined.opening.moved, joined.opening.moved
    for _ in range(100):
        joined.at.turn()
        most, before = max(most, joined.opening.moved - before), joined.opening.moved
    assert 0 < most <= A_TURN


def test_all_of_the_pieces_are_delivered(joined: Joined) -> None:
    """What is left for later turns is not lost, nor its end; and later turns are free of it."""
    count = 3 * 16384
    joined.sealed.send(PIECE * count + END)
    joined.at.until(lambda: joined.opening.ended)
    assert joined.opening.moved == 3 * count
    got = bytearray()
    while len(got) < 3 * count:
        got += joined.plain.recv(1 << 16)
    assert got == b"abc" * count
    assert not joined.told.reset
    assert not joined.at.reactor._deferred


def test_records_are_taken_some_at_a_time(joined: Joined) -> None:
    """A piece in records of a byte each is opened MOST_READS of them a turn, and comes as a whole."""
    joined.sealed.send(b"\0\0\1\0")
    for _ in range(256):
        joined.sealed.send(b"x")
    most = 0
    while joined.opening.moved < 256:
        before = joined.opening.moved
        joined.at.turn()
        most = max(most, joined.opening.moved - before)
    assert most <= MOST_READS
    assert joined.plain.recv(256, socket.MSG_WAITALL) == b"x" * 256


def test_pieces_that_come_meanwhile_do_not_add_up(joined: Joined) -> None:
    """However many events there are while pieces wait for their turn, a turn takes no more for it."""
    most = 0
    for _ in range(300):
        with suppress(BlockingIOError):
            joined.sealed.send(PIECE * 3000)
        before = joined.opening.moved
        joined.at.turn()
        most = max(most, joined.opening.moved - before)
    assert most <= A_TURN


def test_a_session_that_ends_leaves_its_pieces(joined: Joined) -> None:
    """Pieces that wait for their turn when the session ends are not looked at any more."""
    joined.sealed.send(PIECE * 16384)
    joined.at.until(lambda: joined.opening.moved)
    joined.opening.stop()
    joined.opening.back = joined.sealing
    moved = joined.opening.moved
    joined.at.reactor.unwatch(joined.opening.fd)
    for _ in range(3):
        joined.at.turn()
    assert joined.opening.moved == moved
