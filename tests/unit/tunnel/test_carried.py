"""Sessions on the agent: their channel goes back where all is well; else it is closed, or reset."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

from appliance.net.dial import Caller, Dialling
from appliance.net.pipes import PipePool
from appliance.net.reactor import IN, Reactor
from appliance.net.relay import Relay
from appliance.net.sealed import END
from appliance.net.session import Route, Sessions
from appliance.net.sockets import Endpoint, Socket
from appliance.outcome import Cause
from appliance.tunnel.carried import CarriedSession
from appliance.tunnel.returning import Returning
from appliance.wire.messages import Failed, Open, Opened, framed
from tests.tls import secure
from tests.unit.net.loop import Loop, Watcher, loop, open_fds, tcp_pair

IDLE = 60.0
ORDER = Open("0" * 26, "rule", "tcp", "192.0.2.9:1", "192.0.2.1:1", "192.0.2.2:1", 5.0, IDLE)
WHERE = Endpoint(socket.AF_INET, ("127.0.0.1", 9), "127.0.0.1:9")


@dataclass
class Dial:
    """A dialling that the test answers."""

    reactor: Reactor
    attempts: int = 1
    endpoint: Endpoint | None = WHERE

    def __post_init__(self) -> None:
        self.started = self.reactor.now
        self.deadline = self.started + 5.0

    def go(self) -> None:
        """Wait for the test."""

    def timed_out(self) -> None:
        raise AssertionError

    def abandon(self) -> None:
        """Nothing is going on."""


@dataclass(eq=False)
class One:
    """A session, the gateway's end of its channel, its endpoint; and where its channel may go back to."""

    at: Loop
    gateway: Socket
    channel: Socket
    server: socket.socket
    connection: socket.socket
    has_room: bool = True
    taken: list[Socket] = field(default_factory=list)
    kept: list[Socket] = field(default_factory=list)
    ended: list[Cause | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        reactor = self.at.reactor
        sessions = Sessions(10, lambda session: self.ended.append(session.cause))
        route = Route("rule", "listener", self, IDLE, Relay(reactor, PipePool(0)), sessions)
        self.session = CarriedSession(route, self.channel, ORDER, self)

    def dial(self, caller: Caller) -> Dialling:
        del caller
        return cast("Dialling", Dial(self.at.reactor))

    def takes_back(self, connection: Socket) -> bool:
        self.at.reactor.rewatch(connection.fileno(), IN)  # it is in the epoll set
        self.taken.append(connection)
        return self.has_room

    def keeps(self, connection: Socket) -> bool:
        if self.has_room:
            self.at.reactor.watch(connection.fileno(), IN, Watcher())  # it is not
        self.kept.append(connection)
        return self.has_room

    def awaits(self, returning: Returning) -> bool:
        raise AssertionError(f"{returning} is a flow's")

    def came_back(self, returning: Returning, connection: Socket) -> None:
        raise AssertionError(f"{returning}, {connection} is a flow's")

    def went(self, returning: Returning) -> None:
        raise AssertionError(f"{returning} is a flow's")

    def relay(self) -> None:
        """Have the dial succeed; the gateway reads that it did."""
        self.session.start()
        self.session.dialled(self.connection, WHERE, watched=False)
        assert self.heard(len(framed(Opened(WHERE.text)))) == framed(Opened(WHERE.text))

    def heard(self, size: int) -> bytes:
        """Give so many bytes that the gateway gets, fewer at their end."""
        got = bytearray()

        def all_there() -> bool:
            try:
                data = self.gateway.recv(size - len(got), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            got.extend(data)
            return not data or len(got) == size

        self.at.until(all_there)
        return bytes(got)

    def is_reset(self) -> bool:
        try:
            return self.heard(1) is None
        except ConnectionResetError:
            return True


@contextmanager
def session(*, sealed: bool = True, has_room: bool = True) -> Iterator[One]:
    before = open_fds()
    near, far = tcp_pair()
    channel, gateway = secure(near, far) if sealed else (near, far)
    connection, server = tcp_pair()
    with loop() as at, server, connection:
        one = One(at, gateway, channel, server, connection, has_room)
        yield one
        at.turn()
        assert one.ended
        channel.close()
        gateway.close()
    assert open_fds() == before


@pytest.mark.parametrize("last", ["gateway", "endpoint"])
def test_a_channel_goes_back_when_all_is_delivered(last: str) -> None:
    """After both ends, whichever came last, it is given back as it is, watched, and none of it is closed."""
    with session() as one:
        one.relay()
        for end in ("gateway", "endpoint") if last == "endpoint" else ("endpoint", "gateway"):
            one.at.turn()
            assert not one.taken
            if end == "gateway":
                one.gateway.send(END)
            else:
                one.server.shutdown(socket.SHUT_WR)
        one.at.until(lambda: one.ended)
        one.at.turn()
        assert one.taken == [one.channel]
        assert one.channel.fileno() != -1
        assert one.heard(len(END)) == END
        assert one.connection.fileno() == -1


@pytest.mark.parametrize("cause", [Cause.DIAL_REFUSED, Cause.AGENT_DENIED, Cause.DIAL_TIMEOUT])
def test_a_channel_is_kept_when_nothing_was_opened(cause: Cause) -> None:
    """After Failed it is given back, unwatched as it was, with nothing behind the answer."""
    with session() as one:
        if cause is Cause.AGENT_DENIED:
            one.session.refuse(cause)
        else:
            one.session.start()
            one.session.dial_failed(cause)
        one.at.turn()
        assert (one.taken, one.kept) == ([], [one.channel])
        assert one.ended == [cause]
        assert one.heard(len(framed(Failed(cause)))) == framed(Failed(cause))
        with pytest.raises(BlockingIOError):
            one.gateway.recv(1)


def test_a_channel_that_nobody_takes_is_closed() -> None:
    """Where there is no room for it, it ends in order: the gateway has what it was told, and an end."""
    with session(has_room=False) as one:
        one.session.refuse(Cause.DIAL_REFUSED)
        one.at.turn()
        assert one.kept == [one.channel]
        assert one.heard(len(framed(Failed(Cause.DIAL_REFUSED)))) == framed(Failed(Cause.DIAL_REFUSED))
        assert one.channel.fileno() == -1


def test_a_channel_that_nobody_takes_back_is_closed() -> None:
    """So it does after a session: the endpoint's bytes and the end behind them arrive."""
    with session(has_room=False) as one:
        one.relay()
        one.server.sendall(b"answer")
        one.gateway.send(END)
        one.server.shutdown(socket.SHUT_WR)
        one.at.until(lambda: one.ended)
        one.at.turn()
        assert one.taken == [one.channel]
        assert one.channel.fileno() == -1
        assert one.heard(14) == b"\0\0\0\6answer" + END


@pytest.mark.parametrize("how", ["endpoint", "idle", "gateway", "fault"])
def test_a_channel_of_a_session_that_went_wrong_is_reset(how: str) -> None:
    """A reset of either side, a time-out or a fault of ours leaves a stream whose rest nobody knows."""
    with session() as one:
        one.relay()
        if how == "endpoint":
            one.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.server.close()
        elif how == "gateway":
            one.gateway.send(b"\0\0\0\5half")
            one.gateway.close()
        elif how == "idle":
            one.at.clock.now += 2 * IDLE
        else:
            one.session.on_fault()
        one.at.until(lambda: one.ended)
        one.at.turn()
        assert not one.taken
        assert not one.kept
        assert one.channel.fileno() == -1
        assert how == "gateway" or one.is_reset()


def test_a_channel_on_which_nothing_can_be_told_is_reset() -> None:
    """Where the gateway is gone its channel goes nowhere."""
    with session() as one:
        one.gateway.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.gateway.close()
        one.session.refuse(Cause.DIAL_REFUSED)
        one.at.turn()
        assert not one.kept
        assert one.channel.fileno() == -1


@pytest.mark.parametrize("how", ["ended", "refused"])
def test_a_plain_channel_never_goes_back(how: str) -> None:
    """Without TLS the end of a session is that of its channel."""
    with session(sealed=False) as one:
        if how == "ended":
            one.relay()
            one.server.shutdown(socket.SHUT_WR)
            one.gateway.shutdown(socket.SHUT_WR)
        else:
            one.session.refuse(Cause.DIAL_REFUSED)
            one.heard(len(framed(Failed(Cause.DIAL_REFUSED))))
        one.at.until(lambda: one.ended)
        one.at.turn()
        assert not one.taken
        assert not one.kept
        assert one.heard(1) == b""
