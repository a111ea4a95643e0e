"""The two directions of a session whose endpoint speaks TLS, and both of its ends in the test's hands."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from appliance.net.pipes import PipePool
from appliance.net.reactor import IN, Reactor
from appliance.net.relay import Direction, Relay
from appliance.net.sealed import END, LENGTH, Opening, Sealing
from appliance.net.tls import TlsSocket
from tests.tls import secure
from tests.unit.net.loop import Loop, loop, tcp_pair

ROOM = 1 << 16
"""One read of a test."""


def piece(data: bytes) -> bytes:
    """Write a piece as it is on the wire."""
    return len(data).to_bytes(LENGTH, "big") + data


def opened(stream: bytes) -> tuple[list[bytes], bytes]:
    """Take pieces apart, up to the end of the direction and without it; give what follows it, too."""
    pieces = []
    while stream and not stream.startswith(END):
        size = LENGTH + int.from_bytes(stream[:LENGTH], "big")
        assert len(stream) >= size
        pieces.append(stream[LENGTH:size])
        stream = stream[size:]
    return pieces, stream.removeprefix(END)


def say_goodbye(end: TlsSocket) -> None:
    """Send a close_notify, as another implementation may; it is no direction's end."""
    with suppress(ssl.SSLError):  # the peer's own is outstanding
        end._records.shutdown()  # type: ignore[attr-defined]


@dataclass
class Room:
    """How much a sink takes."""

    refusals: int = 0
    """So many writes find none."""
    most: int = 1 << 30
    """Bytes that one write finds."""
    asked: list[int] = field(default_factory=list)
    """The sizes that were offered."""

    def allowed(self, size: int) -> int:
        """Say how many of these bytes to take."""
        self.asked.append(size)
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError
        return min(size, self.most)


class ReluctantTls(TlsSocket):
    """A connection that takes what the test allows."""

    room: Room

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:  # type: ignore[override]
        return super().send(data[: self.room.allowed(len(data))], flags)


class ReluctantSocket(socket.socket):
    """A client that takes what the test allows."""

    room: Room

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:  # type: ignore[override]
        return super().send(data[: self.room.allowed(len(data))], flags)


@dataclass
class Told:
    """The session as its directions see it."""

    reactor: Reactor
    ended: list[Direction] = field(default_factory=list)
    reset: list[tuple[Direction, bool]] = field(default_factory=list)
    lost: list[Direction] = field(default_factory=list)
    first: list[Direction] = field(default_factory=list)

    def relay_ended(self, last: Direction) -> None:
        self.ended.append(last)
        self._is_over(last)

    def relay_reset(self, by: Direction, *, as_sink: bool) -> None:
        self.reset.append((by, as_sink))
        self._is_over(by)

    def _is_over(self, by: Direction) -> None:
        """Leave the sockets alone from now on, as a session does."""
        for way in (by, by.back):
            way.stop()
            if not way.detached:
                self.reactor.unwatch(way.fd)

    def sink_lost(self, direction: Direction) -> None:
        self.lost.append(direction)

    def first_bytes(self, direction: Direction) -> None:
        assert direction.moved == 0
        self.first.append(direction)

    def on_fault(self) -> None:
        raise AssertionError

    @property
    def is_over(self) -> bool:
        """How the session ended is known."""
        return bool(self.ended or self.reset)


class Joined:
    """A plain client and a TLS endpoint, and the directions between them."""

    def __init__(self, at: Loop, connection: ReluctantTls, endpoint: TlsSocket) -> None:
        self.at = at
        self.connection = connection
        self.endpoint = endpoint
        self.client, accepted = tcp_pair()
        self.accepted = ReluctantSocket(fileno=accepted.detach())
        self.connection.room = Room()
        self.accepted.room = Room()
        self.told = Told(at.reactor)
        relay = Relay(at.reactor, PipePool(0))
        self.up = Sealing(relay, self.told, self.accepted, self.connection)
        self.down = Opening(relay, self.told, self.connection, self.accepted)
        self.up.back, self.down.back = self.down, self.up
        for way in (self.up, self.down):
            at.reactor.watch(way.fd, IN, way)
        self._heard, self._got = bytearray(), bytearray()

    def heard(self) -> bytes:
        """Give all that the endpoint has had so far, lengths included."""
        with suppress(BlockingIOError):
            while data := self.endpoint.recv(ROOM):
                self._heard += data
        return bytes(self._heard)

    def got(self) -> bytes:
        """Give all that the client has had so far."""
        with suppress(BlockingIOError):
            while data := self.client.recv(ROOM, socket.MSG_DONTWAIT):
                self._got += data
        return bytes(self._got)

    def hears(self, stream: bytes) -> None:
        """Wait until the endpoint has had this, and no more."""
        self.at.until(lambda: self.heard() == stream)

    def gets(self, data: bytes) -> None:
        """Wait until the client has had this, and no more."""
        self.at.until(lambda: self.got() == data)

    def client_is_told_the_end(self) -> bool:
        """Whether the client, which has read what there was, meets an end now."""
        try:
            return self.client.recv(1, socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False

    def comes_to_rest(self) -> None:
        """Turn until nothing is ready: a loop that spins never gets there."""
        self.at.until(lambda: not self.at.reactor._epoll.poll(0))

    def leave(self) -> None:
        """Have nothing watched any more, and close the plain side; the TLS connection stays."""
        if not self.told.is_over:
            self.told.relay_reset(self.up, as_sink=False)
        self.client.close()
        self.accepted.close()


@contextmanager
def sealed_pair() -> Iterator[tuple[ReluctantTls, TlsSocket]]:
    """Make a TLS connection: the end of the directions, and the other one."""
    connection, endpoint = secure(*tcp_pair(), kind=ReluctantTls)
    try:
        yield connection, endpoint
    finally:
        connection.close()
        endpoint.close()


@contextmanager
def join() -> Iterator[Joined]:
    """Make two directions, on a loop of their own."""
    with sealed_pair() as (connection, endpoint), loop() as at:
        made = Joined(at, connection, endpoint)
        try:
            yield made
        finally:
            made.leave()
