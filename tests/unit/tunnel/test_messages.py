"""Messages over a connection: never a byte too many is read, and nothing waits for a peer."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from appliance.net.reactor import IN, OUT
from appliance.tunnel.messages import MOST_UNSENT, ClosedError, Messages
from appliance.wire.messages import FROM_AGENT, FROM_GATEWAY, Limit, MessageError, Ping, Renew, framed
from tests.unit.net.loop import Loop, Watcher, loop


@dataclass
class Pair:
    """Messages, and the test at the other end."""

    at: Loop
    messages: Messages
    watcher: Watcher
    peer: socket.socket


@pytest.fixture
def pair() -> Iterator[Pair]:
    with loop() as at:
        ours, peer = socket.socketpair()
        with ours, peer:
            watcher = Watcher()
            at.reactor.watch(ours.fileno(), IN, watcher)
            yield Pair(at, Messages(at.reactor, ours, Limit.AGENT), watcher, peer)


def test_a_message_in_pieces(pair: Pair) -> None:
    """A message is given once its last byte is there, and not before."""
    for byte in framed(Ping(7)):
        assert pair.messages.take(FROM_AGENT) is None
        pair.peer.send(bytes([byte]))
    assert pair.messages.take(FROM_AGENT) == Ping(7)
    assert pair.messages.take(FROM_AGENT) is None


def test_what_follows_is_left_in_the_kernel(pair: Pair) -> None:
    """Behind a message not one byte is read: on a data channel it is the session's."""
    pair.peer.send(framed(Ping(1)) + framed(Ping(2)) + b"the session's")
    assert pair.messages.take(FROM_AGENT) == Ping(1)
    assert pair.messages.take(FROM_AGENT) == Ping(2)
    assert pair.messages.connection.recv(100) == b"the session's"


def test_an_end_is_told(pair: Pair) -> None:
    """The peer's close is its end, even in the middle of a message."""
    pair.peer.send(framed(Ping(1))[:-1])
    pair.peer.close()
    with pytest.raises(ClosedError):
        pair.messages.take(FROM_AGENT)


def test_a_longer_message_is_none(pair: Pair) -> None:
    """One that is longer than its place allows is refused by its length, before its body is read."""
    pair.peer.send((Limit.AGENT + 1).to_bytes(2, "big"))
    with pytest.raises(MessageError):
        pair.messages.take(FROM_AGENT)


def test_the_longest_message(pair: Pair) -> None:
    """One that is as long as its place allows is taken."""
    filler = Limit.AGENT - len(framed(Renew(""))) + 2
    pair.peer.send(framed(Renew("x" * filler)))
    assert pair.messages.take(FROM_AGENT) == Renew("x" * filler)


def test_a_message_of_another_place_is_none(pair: Pair) -> None:
    """A message that is not expected here is refused."""
    pair.peer.send(framed(Renew("")))
    with pytest.raises(MessageError):
        pair.messages.take(FROM_GATEWAY)


def test_what_finds_no_room_is_sent_later(pair: Pair) -> None:
    """Messages that the kernel has no room for go out, whole and in order, when there is some."""
    pair.messages.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    said = [Renew(f"{number:04}" * 500) for number in range(60)]
    for message in said:
        pair.messages.say(message)
    pair.at.turn()
    assert not pair.watcher.events, "there is no room yet"
    pair.watcher.then = pair.messages.on_room
    theirs = Messages(pair.at.reactor, pair.peer, Limit.AGENT)
    got: list[object] = []

    def read() -> bool:
        while (message := theirs.take(FROM_AGENT)) is not None:
            got.append(message)
        return len(got) == len(said)

    pair.at.until(read)
    assert got == said
    assert set(pair.watcher.events) == {OUT}
    pair.at.turn()
    seen = len(pair.watcher.events)
    pair.at.turn()
    assert len(pair.watcher.events) == seen, "it is watched for room that nobody wants"


def test_a_peer_that_reads_nothing_is_given_up(pair: Pair) -> None:
    """What waits for a peer is bounded: beyond that the connection counts as broken."""

    def say_much() -> None:
        for _ in range(1000):
            pair.messages.say(Renew("x" * 8000))

    with pytest.raises(TimeoutError):
        say_much()
    assert len(pair.messages._unsent) < MOST_UNSENT + 10_000


def test_a_first_message_is_sent_whole_or_not(pair: Pair) -> None:
    """`say_whole` raises where there is no room, and for a connection that is broken."""
    pair.messages.say_whole(Ping(3))
    assert pair.peer.recv(100) == framed(Ping(3))
    pair.messages.connection.setblocking(False)

    def say_much() -> None:
        for _ in range(1000):
            pair.messages.say_whole(Renew("x" * 8000))

    with pytest.raises(BlockingIOError):
        say_much()
    pair.peer.close()
    with pytest.raises(OSError, match="pipe"):
        pair.messages.say_whole(Ping(4))
