"""Sessions with TLS on one side or both: every end is told, and told once there is room to tell it."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from appliance.net.pipes import PipePool
from appliance.net.reactor import IN, Reactor
from appliance.net.relay import Relay, Relayed
from appliance.net.sealed import SealedDirection
from appliance.net.tls import RECORD, TlsSocket
from tests.tls import secure
from tests.unit.net.loop import Loop, loop, tcp_pair


class Reluctant(TlsSocket):
    """One that has no room for a close_notify, for a while."""

    refusals = 0
    asked = 0

    def shutdown(self, how: int, /) -> None:
        self.asked += 1
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError
        super().shutdown(how)


@dataclass
class Told:
    """The session as its directions see it."""

    ended: list[SealedDirection] = field(default_factory=list)
    reset: int = 0
    lost: int = 0

    def relay_ended(self, last: SealedDirection) -> None:
        self.ended.append(last)

    def relay_reset(self, by: SealedDirection, *, as_sink: bool) -> None:  # noqa: ARG002
        self.reset += 1

    def sink_lost(self, direction: SealedDirection) -> None:  # noqa: ARG002
        self.lost += 1

    def first_bytes(self, direction: SealedDirection) -> None:
        """Not looked at here."""

    def on_fault(self) -> None:
        raise AssertionError


class Joined:
    """A plain client and a TLS endpoint, and what is between them."""

    def __init__(self, at: Loop, stack: ExitStack) -> None:
        self.at = at
        self.client, client = (stack.enter_context(each) for each in tcp_pair())
        near, far = tcp_pair()
        self.endpoint: TlsSocket
        self.connection: Reluctant
        self.connection, self.endpoint = secure(near, far, kind=Reluctant)
        self.told = Told()
        relay = Relay(at.reactor, PipePool(0))
        session: Relayed = self.told  # type: ignore[assignment]  # it knows one kind of direction only
        self.up = SealedDirection(relay, session, client, self.connection)
        self.down = SealedDirection(relay, session, self.connection, client)
        self.up.back, self.down.back = self.down, self.up
        for way in (self.up, self.down):
            at.reactor.watch(way.fd, IN, way)

    @property
    def reactor(self) -> Reactor:
        return self.at.reactor


@pytest.fixture
def joined() -> Iterator[Joined]:
    """Give a session's two directions."""
    with ExitStack() as stack, loop() as at:
        made = Joined(at, stack)
        yield made
        for way in (made.up, made.down):
            at.reactor.forget(way.fd, way.source.close)
            way.stop()
        made.endpoint.close()


def received(joined: Joined) -> bytes:
    """Read what the endpoint has, up to the close_notify."""
    got = bytearray()

    def ended() -> bool:
        try:
            data = joined.endpoint.recv(1 << 16)
        except BlockingIOError:
            return False
        got.extend(data)
        return not data

    joined.at.until(ended)
    return bytes(got)


def test_an_end_without_room_is_told_later(joined: Joined) -> None:
    """The direction waits for room with its source unwatched, does not spin, and tells it then."""
    joined.connection.refusals = 3
    joined.client.sendall(b"last words")
    joined.client.shutdown(socket.SHUT_WR)
    assert received(joined) == b"last words"
    assert joined.connection.asked == 4
    assert joined.up.ended
    assert not joined.up.ending
    asked = joined.connection.asked
    for _ in range(5):
        joined.at.turn()
    assert joined.connection.asked == asked
    joined.endpoint.send(b"answer")
    joined.at.until(lambda: joined.down.moved == 6)
    assert joined.client.recv(10) == b"answer"


def test_the_last_end_without_room_is_told_before_the_session_ends(joined: Joined) -> None:
    """An end that ends the session is no less told: unsaid it would be a truncation."""
    joined.endpoint.shutdown(socket.SHUT_WR)
    joined.at.until(lambda: joined.down.ended)
    assert not joined.told.ended
    joined.connection.refusals = 2
    joined.client.shutdown(socket.SHUT_WR)
    joined.at.until(lambda: joined.told.ended)
    assert joined.told.ended == [joined.up]
    assert received(joined) == b""


def test_an_end_that_waits_for_room_meets_a_reset(joined: Joined) -> None:
    """A sink that is reset meanwhile ends the wait."""
    joined.connection.refusals = 1 << 30
    joined.client.shutdown(socket.SHUT_WR)
    joined.at.until(lambda: joined.up.ending)
    joined.endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    joined.endpoint.close()
    joined.at.until(lambda: joined.told.reset)
    assert not joined.told.ended


def test_an_end_behind_full_records_is_heard(joined: Joined) -> None:
    """What the source took from the kernel with them is asked for, since epoll does not tell of it."""
    data = b"x" * (2 * RECORD)
    joined.endpoint.send(data)
    joined.endpoint.shutdown(socket.SHUT_WR)
    joined.at.until(lambda: joined.down.ended)
    assert joined.down.moved == len(data)
    assert not joined.down.splicing


def test_a_truncation_is_passed_on_as_a_reset(joined: Joined) -> None:
    """A FIN without close_notify is no end."""
    joined.endpoint.send(b"half of it")
    joined.endpoint.close()
    joined.at.until(lambda: joined.told.reset)
    assert not joined.told.ended


def test_an_end_after_a_loss_is_no_end(joined: Joined) -> None:
    """Where a write has met the client's reset, a read gives EOF: it is not passed on as one.

    The kernel tells of a reset once. A close_notify would make an upload that was aborted a complete one.
    """
    joined.client.sendall(b"half of it")
    joined.at.until(lambda: joined.up.moved == 10)
    joined.at.reactor.unwatch(joined.up.fd)
    joined.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    joined.client.close()
    joined.endpoint.send(b"answer")
    joined.at.until(lambda: joined.told.lost)
    joined.at.reactor.watch(joined.up.fd, IN, joined.up)
    joined.at.until(lambda: joined.told.ended or joined.told.reset)
    assert joined.told.ended == [joined.up]
    assert joined.endpoint.recv(100) == b"half of it"
    with pytest.raises(BlockingIOError):
        joined.endpoint.recv(100)
    assert not joined.connection.asked
