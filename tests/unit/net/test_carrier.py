"""A session's connection goes back to its carrier when all is well, and to nobody otherwise."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from appliance.net.pipes import PipePool
from appliance.net.reactor import IN
from appliance.net.relay import Relay
from appliance.net.sealed import END
from appliance.net.session import Route, Session, Sessions
from appliance.net.sockets import Endpoint, Socket, abort_on_close
from appliance.net.tls import TlsSocket
from appliance.outcome import Cause
from tests.tls import secure
from tests.unit.net.loop import PATIENCE, Loop, Watcher, loop, open_fds, tcp_pair
from tests.unit.net.ways import ReluctantSocket, ReluctantTls, Room, piece, say_goodbye

WHERE = Endpoint(socket.AF_INET, ("127.0.0.1", 9), "127.0.0.1:9")
IDLE = 60.0


@dataclass(eq=False)
class Dialling:
    """One that the test answers."""

    started: float
    deadline: float
    attempts: int = 1
    endpoint: Endpoint | None = WHERE

    def go(self) -> None:
        """Wait for the test."""

    def timed_out(self) -> None:
        raise AssertionError

    def abandon(self) -> None:
        raise AssertionError

    def on_event(self, events: int) -> None:
        raise AssertionError(events)

    def on_fault(self) -> None:
        raise AssertionError


@dataclass(eq=False)
class Carrier:
    """Takes connections back, or leaves them."""

    at: Loop
    takes: bool = True
    sessions: set[Session] = field(default_factory=set)
    taken: list[Socket] = field(default_factory=list)
    watcher: Watcher = field(default_factory=Watcher)

    def takes_back(self, connection: Socket) -> bool:
        self.taken.append(connection)
        if self.takes:
            self.at.reactor.hand_over(connection.fileno(), self.watcher)
        return self.takes


class Carried:
    """A session over a carrier's connection, and the ends of both sides in the test's hands."""

    def __init__(self, at: Loop, connection: Socket) -> None:
        self.at = at
        self.connection = connection
        self.client, accepted = tcp_pair()
        self.accepted = ReluctantSocket(fileno=accepted.detach())
        self.accepted.room = Room()
        self.carrier = Carrier(at)
        self.ended: list[Session] = []
        route = Route(
            "rule", "here", self, IDLE, Relay(at.reactor, PipePool(0)), Sessions(9, self.ended.append)
        )
        self.session = Session(route, self.accepted, ("127.0.0.1", 1))
        self.session.start()

    def dial(self, caller: object) -> Dialling:
        """Be the dialer."""
        assert isinstance(caller, Session)
        now = self.at.reactor.now
        return Dialling(now, now + 5)

    def relay(self) -> "Carried":
        """Have the connection be there, as a carrier gives it: watched."""
        self.session.carrier = self.carrier
        self.carrier.sessions.add(self.session)
        self.at.reactor.watch(self.connection.fileno(), IN, self.carrier.watcher)
        self.session.dialled(self.connection, WHERE, watched=True)
        return self

    def end_up(self) -> None:
        """Have the client end."""
        self.client.shutdown(socket.SHUT_WR)
        self.at.until(lambda: self.ended or (self.session.up is not None and self.session.up.ended))

    def until_over(self) -> Cause:
        """Wait for the session's end, and the close that is put off to the turn's end."""
        self.at.until(lambda: self.ended)
        self.at.turn()
        assert self.ended == [self.session]
        assert not self.carrier.sessions
        assert self.accepted.fileno() == -1
        assert self.session.cause is not None
        return self.session.cause


@dataclass
class Sealed:
    """The session, and the other end of its connection."""

    carried: Carried
    endpoint: TlsSocket
    room: Room
    """What the connection takes."""

    def end_down(self) -> None:
        """Have the endpoint end."""
        self.endpoint.send(END)
        session = self.carried.session
        self.carried.at.until(lambda: self.carried.ended or (session.down is not None and session.down.ended))

    def hears(self, stream: bytes) -> None:
        """Wait until the endpoint has had this."""
        heard = bytearray()

        def is_all() -> bool:
            heard.extend(read(self.endpoint))
            return heard == stream

        self.carried.at.until(is_all)

    def is_left_by(self, end: str) -> None:
        """Wait until the connection is closed, and hold how: a reset is told once."""
        seen = []

        def is_closed() -> bool:
            seen.append(wire_end(self.endpoint))
            return seen[-1] != "open"

        self.carried.at.until(is_closed)
        assert seen[-1] == end


@contextmanager
def closing(*several: Socket) -> Iterator[None]:
    try:
        yield
    finally:
        for each in several:
            each.close()


@pytest.fixture
def sealed() -> Iterator[Sealed]:
    """Give a session whose connection is TLS."""
    before = open_fds()
    connection, endpoint = secure(*tcp_pair(), kind=ReluctantTls)
    connection.room = Room()
    with loop() as at, closing(connection, endpoint):
        carried = Carried(at, connection).relay()
        with closing(carried.client, carried.accepted):
            yield Sealed(carried, endpoint, connection.room)
    assert open_fds() == before


def wire_end(end: TlsSocket) -> str:
    """Read what the kernel has for this end: "FIN", "RST", or "open"."""
    with socket.socket(fileno=os.dup(end.fileno())) as wire:
        try:
            while wire.recv(1 << 16, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            return "open"
        except ConnectionResetError:
            return "RST"
        return "FIN"


def client_end(client: socket.socket) -> str:
    """Read to the end: "FIN", or "RST"."""
    client.settimeout(PATIENCE)
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionResetError:
        return "RST"
    return "FIN"


@pytest.mark.parametrize("is_up_first", [False, True])
def test_a_connection_goes_back(sealed: Sealed, is_up_first: bool) -> None:
    """Once both ways have ended in order: open, and watched for what comes next and nothing else."""
    carried, carrier = sealed.carried, sealed.carried.carrier
    carried.client.sendall(b"question")
    sealed.endpoint.send(piece(b"answer"))
    for end in (carried.end_up, sealed.end_down) if is_up_first else (sealed.end_down, carried.end_up):
        assert not carrier.taken
        end()
    assert carried.until_over() is (Cause.CLIENT_EOF if is_up_first else Cause.ENDPOINT_EOF)
    assert carrier.taken == [carried.connection]
    assert (carried.session.bytes_up, carried.session.bytes_down) == (8, 6)
    assert client_end(carried.client) == "FIN"
    carried.at.turn()
    assert not carrier.watcher.events
    sealed.hears(piece(b"question") + END)
    assert wire_end(sealed.endpoint) == "open"
    sealed.endpoint.send(b"next")
    carried.at.until(lambda: carrier.watcher.events)
    assert carrier.watcher.events == [IN]
    assert carried.connection.recv(100) == b"next"
    carried.connection.close()
    sealed.is_left_by("FIN")


def test_a_connection_goes_back_once(sealed: Sealed) -> None:
    """Whoever ends the session a second time does not touch what is another's now."""
    carried = sealed.carried
    carried.end_up()
    sealed.end_down()
    carried.until_over()
    for cause in (Cause.DRAIN, Cause.CLIENT_EOF):
        carried.session.end(cause)
    carried.at.turn()
    assert carried.carrier.taken == [carried.connection]
    assert carried.connection.fileno() != -1
    assert len(carried.ended) == 1


def test_a_connection_that_was_waited_for_goes_back(sealed: Sealed) -> None:
    """Where the last end had no room first, nobody is told of room afterwards."""
    carried = sealed.carried
    sealed.end_down()
    sealed.room.refusals = 2
    carried.client.shutdown(socket.SHUT_WR)
    assert carried.until_over() is Cause.ENDPOINT_EOF
    assert sealed.room.asked == [len(END)] * 3
    assert carried.carrier.taken == [carried.connection]
    sealed.hears(END)
    carried.at.turn()
    assert not carried.carrier.watcher.events


def read(end: TlsSocket) -> bytes:
    """Read what there is."""
    try:
        return end.recv(1 << 16)
    except BlockingIOError:
        return b""


def test_a_connection_that_the_carrier_leaves_is_closed(sealed: Sealed) -> None:
    """It is of no use any more: a close, and no reset, which would overtake the end."""
    carried = sealed.carried
    carried.carrier.takes = False
    carried.client.sendall(b"question")
    carried.end_up()
    sealed.end_down()
    assert carried.until_over() is Cause.CLIENT_EOF
    assert carried.carrier.taken == [carried.connection]
    assert carried.connection.fileno() == -1
    sealed.hears(piece(b"question") + END)
    sealed.is_left_by("FIN")
    assert client_end(carried.client) == "FIN"


def abort(end: socket.socket | TlsSocket) -> None:
    abort_on_close(end)
    end.close()


def reset_client(sealed: Sealed) -> None:
    abort(sealed.carried.client)


def idle(sealed: Sealed) -> None:
    sealed.carried.at.clock.now += IDLE + 1


def drain(sealed: Sealed) -> None:
    sealed.carried.session.end(Cause.DRAIN)


def fault(sealed: Sealed) -> None:
    sealed.carried.session.on_fault()


def close_tls(sealed: Sealed) -> None:
    say_goodbye(sealed.endpoint)


def say_more_after_the_end(sealed: Sealed) -> None:
    sealed.endpoint.send(END + b"x")


def lose_the_client(sealed: Sealed) -> None:
    """Have a write meet the client's reset: the way up reads an EOF then."""
    session = sealed.carried.session
    assert session.down is not None
    session.sink_lost(session.down)
    sealed.endpoint.send(END)
    sealed.carried.client.close()


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        (reset_client, Cause.CLIENT_RESET),
        (idle, Cause.IDLE_TIMEOUT),
        (drain, Cause.DRAIN),
        (fault, Cause.INTERNAL),
        (close_tls, Cause.ENDPOINT_RESET),
        (say_more_after_the_end, Cause.ENDPOINT_RESET),
        (lose_the_client, Cause.CLIENT_RESET),
    ],
)
def test_a_connection_is_reset_where_not_all_is_well(
    sealed: Sealed, how: Callable[[Sealed], None], cause: Cause
) -> None:
    """What was said on it is not all there was to say: nobody gets it."""
    carried = sealed.carried
    carried.client.sendall(b"question")
    carried.at.until(lambda: carried.session.up is not None and carried.session.up.moved)
    how(sealed)
    assert carried.until_over() is cause
    assert not carried.carrier.taken
    assert carried.connection.fileno() == -1
    sealed.is_left_by("RST")


@pytest.mark.parametrize("is_up", [False, True])
def test_a_connection_of_which_one_way_has_ended_is_reset(sealed: Sealed, is_up: bool) -> None:
    """Half a session in order is none."""
    carried = sealed.carried
    if is_up:
        carried.end_up()
    else:
        sealed.end_down()
    drain(sealed)
    assert carried.until_over() is Cause.DRAIN
    assert not carried.carrier.taken
    sealed.is_left_by("RST")


def test_a_connection_that_was_cut_behind_its_end_is_not_offered(sealed: Sealed) -> None:
    """The session had its ends, but the connection hung up: it is closed, and the client had all of it."""
    carried = sealed.carried
    carried.end_up()
    carried.accepted.room.refusals = 1 << 30
    sealed.endpoint.send(piece(b"answer") + END)
    down = carried.session.down
    assert down is not None
    carried.at.until(lambda: down.held)
    abort(sealed.endpoint)
    carried.at.until(lambda: down.detached)
    assert not carried.ended
    carried.accepted.room.refusals = 0
    assert carried.until_over() is Cause.CLIENT_EOF
    assert not carried.carrier.taken
    assert carried.connection.fileno() == -1
    assert carried.session.bytes_down == 6
    assert client_end(carried.client) == "FIN"


def test_a_plain_connection_serves_one_session() -> None:
    """Its end is a FIN, after which there is nothing."""
    connection, server = tcp_pair()
    with loop() as at, connection, server:
        carried = Carried(at, connection).relay()
        with closing(carried.client, carried.accepted):
            carried.end_up()
            server.close()
            assert carried.until_over() is Cause.CLIENT_EOF
            assert not carried.carrier.taken
            assert connection.fileno() == -1
            assert client_end(carried.client) == "FIN"


def test_a_connection_without_a_carrier_is_closed(sealed: Sealed) -> None:
    """Where nobody could take it there is nobody to ask."""
    carried = sealed.carried
    carried.session.carrier = None
    carried.carrier.sessions.clear()
    carried.end_up()
    sealed.end_down()
    assert carried.until_over() is Cause.CLIENT_EOF
    assert not carried.carrier.taken
    assert carried.connection.fileno() == -1
    sealed.is_left_by("FIN")
