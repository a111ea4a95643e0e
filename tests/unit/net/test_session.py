"""Sessions: whatever ends one, it ends once, and nothing of it is left."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from appliance.net.dial import Caller
from appliance.net.introduction import introduction
from appliance.net.pipes import PipePool
from appliance.net.reactor import OUT
from appliance.net.relay import Relay
from appliance.net.session import Route, Session, Sessions
from appliance.net.sockets import Endpoint, peer_text
from appliance.outcome import LEGAL, Cause, Stage
from appliance.ruleset import ProxyProtocol
from appliance.wire.proxy_protocol import header
from tests.unit.net.loop import Loop, loop, open_fds, tcp_pair

CONNECT_TIMEOUT = 5.0
IDLE = 60.0
WHERE = Endpoint(socket.AF_INET, ("127.0.0.1", 9), "127.0.0.1:9")
UNIX_WHERE = Endpoint(socket.AF_UNIX, "/s", "unix:/s")


@dataclass(eq=False)
class Dialling:
    """A dialling that the test answers; `on_timeout` is what it does when its time is over."""

    caller: Caller
    at: Loop
    attempts: int = 0
    endpoint: Endpoint | None = None
    started: float = 0.0
    deadline: float = 0.0
    on_timeout: Callable[["Dialling"], None] = lambda me: me.caller.dial_failed(Cause.DIAL_TIMEOUT)
    on_go: Callable[["Dialling"], None] = lambda _: None
    abandoned: int = 0

    def go(self) -> None:
        self.again()
        self.on_go(self)

    def again(self) -> None:
        self.attempts += 1
        self.endpoint = WHERE
        self.started = self.at.reactor.now
        self.deadline = self.started + CONNECT_TIMEOUT

    def timed_out(self) -> None:
        self.on_timeout(self)

    def abandon(self) -> None:
        self.abandoned += 1

    def on_event(self, events: int) -> None:
        raise AssertionError(f"{events:#x} for a connection that was not handed over")

    def on_fault(self) -> None:
        raise AssertionError


@dataclass
class Ended:
    """What a record is made of."""

    stage: Stage
    cause: Cause | None
    endpoint: Endpoint | None
    attempts: int
    moved: tuple[int, int]
    first_byte: float | None
    connect_seconds: float | None


@dataclass(eq=False)
class One:
    """One session with the ends of its client and of its endpoint in the test's hands."""

    at: Loop
    client: socket.socket
    server: socket.socket
    accepted: socket.socket
    connection: socket.socket
    sessions: Sessions
    ended: list[Ended] = field(default_factory=list)
    session: Session | None = None
    dialling: Dialling | None = None
    on_go: Callable[[Dialling], None] = lambda _: None
    idle_timeout: float = IDLE
    header: Callable[[Session], bytes] | None = None

    def dial(self, caller: Caller) -> Dialling:
        """Be the dialer."""
        self.dialling = Dialling(caller, self.at, on_go=self.on_go)
        self.dialling.deadline = self.at.reactor.now + CONNECT_TIMEOUT
        return self.dialling

    def on_end(self, session: Session) -> None:
        self.ended.append(
            Ended(
                session.stage,
                session.cause,
                session.endpoint,
                session.attempts,
                (session.bytes_up, session.bytes_down),
                session.first_byte,
                session.connect_seconds,
            )
        )

    def start(self) -> "One":
        relay = Relay(self.at.reactor, PipePool(2))
        route = Route("rule", "listener", self, self.idle_timeout, relay, self.sessions, header=self.header)
        self.session = Session(route, self.accepted, "127.0.0.1:1")
        self.session.start()
        return self

    def relay(self, endpoint: Endpoint = WHERE, *, watched: bool = False) -> "One":
        """Have the dial succeed."""
        assert self.dialling is not None
        if watched:
            self.at.reactor.watch(self.connection.fileno(), OUT, self.dialling)
        self.dialling.caller.dialled(self.connection, endpoint, watched=watched)
        return self

    @property
    def live(self) -> Session:
        assert self.session is not None
        return self.session

    def check_end(self, stage: Stage, cause: Cause) -> Ended:
        """Hold what is held of any end: one record, a legal one, both sockets closed, no timer left."""
        (ended,) = self.ended
        assert (ended.stage, ended.cause) == (stage, cause)
        assert cause in LEGAL[stage]
        self.live.end(Cause.INTERNAL)  # too late
        self.at.turn()
        assert len(self.ended) == 1
        assert self.live.cause is cause
        assert self.accepted.fileno() == -1
        if stage is Stage.RELAY:
            assert self.connection.fileno() == -1
        assert not self.sessions.live
        assert not len(self.at.reactor.timers)
        assert not len(self.at.reactor)
        return ended


def _ignored(_: Session) -> None:
    """Stand in until the test's own is there."""


@contextmanager
def session() -> Iterator[One]:
    before = open_fds()
    client, accepted = tcp_pair()
    connection, server = tcp_pair()
    with loop() as at, client, server, accepted, connection:
        sessions = Sessions(10, _ignored)
        made = One(at, client, server, accepted, connection, sessions)
        sessions.on_end = made.on_end
        yield made
    assert open_fds() == before


def read_to_the_end(wire: socket.socket) -> bytes:
    """Read what is there, and the end after it; a reset is told by what it raises."""
    wire.settimeout(20)
    data = b""
    while chunk := wire.recv(65536):
        data += chunk
    return data


def assert_reset(wire: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        read_to_the_end(wire)


@pytest.mark.parametrize("watched", [False, True])
def test_the_client_ends_first(watched: bool) -> None:
    """Client, then endpoint: client_eof, every byte delivered, an orderly end on both sides."""
    with session() as one:
        one.start().relay(watched=watched)
        one.client.sendall(b"question")
        one.client.shutdown(socket.SHUT_WR)
        one.at.until(lambda: one.live.up is not None and one.live.up.ended)
        assert read_to_the_end(one.server) == b"question"
        one.server.sendall(b"the answer")
        one.server.close()
        one.at.until(lambda: one.ended)
        ended = one.check_end(Stage.RELAY, Cause.CLIENT_EOF)
        assert ended.moved == (8, 10)
        assert (ended.endpoint, ended.attempts) == (WHERE, 1)
        assert read_to_the_end(one.client) == b"the answer"


def test_the_endpoint_ends_first() -> None:
    """Endpoint, then client: endpoint_eof."""
    with session() as one:
        one.start().relay()
        one.server.sendall(b"hello")
        one.server.shutdown(socket.SHUT_WR)
        one.at.until(lambda: one.live.down is not None and one.live.down.ended)
        assert read_to_the_end(one.client) == b"hello"
        one.client.close()
        one.at.until(lambda: one.ended)
        one.check_end(Stage.RELAY, Cause.ENDPOINT_EOF)
        assert read_to_the_end(one.server) == b""


@pytest.mark.parametrize("watched", [False, True])
def test_a_header_goes_first(watched: bool) -> None:
    """What introduces the client reaches the endpoint before its first byte, and is not counted as sent."""
    with session() as one:
        one.header = lambda session: f"{session.known_id()} from {session.peer}\n".encode()
        one.sessions.next_id = lambda since: f"id-{since}"
        one.client.sendall(b"question")
        one.start().relay(watched=watched)
        one.client.shutdown(socket.SHUT_WR)
        one.at.until(lambda: one.live.up is not None and one.live.up.ended)
        assert read_to_the_end(one.server) == f"id-{one.live.accepted} from 127.0.0.1:1\nquestion".encode()
        one.server.close()
        one.at.until(lambda: one.ended)
        assert one.check_end(Stage.RELAY, Cause.CLIENT_EOF).moved == (8, 0)


@pytest.mark.parametrize("watched", [False, True])
def test_a_header_is_refused(watched: bool) -> None:
    """An endpoint that resets before it has the header is one that resets: one end, the client is told."""
    with session() as one:
        one.header = lambda _: b"header"
        one.start()
        abort(one.server)
        one.relay(watched=watched)
        one.check_end(Stage.RELAY, Cause.ENDPOINT_RESET)
        assert_reset(one.client)


def test_an_id_is_given_once() -> None:
    """Whoever asks first has the id made, from the moment of accept; it stays."""
    with session() as one:
        asked: list[float] = []

        def next_id(since: float) -> str:
            asked.append(since)
            return "the id"

        one.sessions.next_id = next_id
        one.start()
        assert one.live.id == ""
        assert [one.live.known_id(), one.live.known_id(), one.live.id] == ["the id"] * 3
        assert asked == [one.live.accepted]
        one.live.end(Cause.DRAIN)
        one.check_end(Stage.DIAL, Cause.DRAIN)


def abort(wire: socket.socket) -> None:
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.close()


def test_the_client_resets() -> None:
    """A reset of the client is one of the endpoint, too."""
    with session() as one:
        one.start().relay()
        abort(one.client)
        one.at.until(lambda: one.ended)
        one.check_end(Stage.RELAY, Cause.CLIENT_RESET)
        assert_reset(one.server)


def test_the_endpoint_resets() -> None:
    """A reset of the endpoint is one of the client, too; what came before it arrives."""
    with session() as one:
        one.start().relay()
        one.server.sendall(b"partial")
        abort(one.server)
        one.at.until(lambda: one.ended)
        one.check_end(Stage.RELAY, Cause.ENDPOINT_RESET)
        one.client.settimeout(20)
        assert one.client.recv(7, socket.MSG_WAITALL) == b"partial"
        assert_reset(one.client)


@pytest.mark.parametrize(
    "cause",
    [Cause.DIAL_REFUSED, Cause.DIAL_TIMEOUT, Cause.DIAL_UNREACHABLE, Cause.DIAL_RESOLVE, Cause.FD_LIMIT],
)
def test_the_dial_fails(cause: Cause) -> None:
    """The client is reset: it is not told that an empty answer is all there was."""
    with session() as one:
        one.start()
        assert one.dialling is not None
        one.dialling.caller.dial_failed(cause)
        ended = one.check_end(Stage.DIAL, cause)
        assert ended.moved == (0, 0)
        assert ended.connect_seconds is None
        assert_reset(one.client)


def test_the_dial_fails_at_once() -> None:
    """A dial that fails within `go` is the same end, also for its timer."""
    with session() as one:
        one.on_go = lambda dialling: dialling.caller.dial_failed(Cause.DIAL_REFUSED)
        one.start()
        one.check_end(Stage.DIAL, Cause.DIAL_REFUSED)


def test_the_dial_succeeds_at_once() -> None:
    """A unix endpoint connects within `go`; no option of TCP is set on it."""
    with session() as one:
        one.on_go = lambda dialling: dialling.caller.dialled(one.connection, UNIX_WHERE, watched=False)
        one.start()
        assert one.live.stage is Stage.RELAY
        assert one.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        one.live.end(Cause.DRAIN)
        one.check_end(Stage.RELAY, Cause.DRAIN)


def test_no_room_in_the_epoll_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC when the relay begins is fd_limit, with both sockets closed."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with session() as one:
        one.start()
        with monkeypatch.context() as patch:
            patch.setattr(type(one.at.reactor), "watch", refuse)
            one.relay()
        one.check_end(Stage.RELAY, Cause.FD_LIMIT)


@pytest.mark.parametrize("stage", [Stage.DIAL, Stage.RELAY])
def test_a_drain_cuts(stage: Stage) -> None:
    """`cut` ends every session, wherever it is; a dialling is abandoned."""
    with session() as one:
        one.start()
        assert one.dialling is not None
        if stage is Stage.RELAY:
            one.relay()
        one.sessions.cut(Cause.DRAIN)
        one.check_end(stage, Cause.DRAIN)
        assert one.dialling.abandoned == (1 if stage is Stage.DIAL else 0)
        assert_reset(one.client)


@pytest.mark.parametrize("stage", [Stage.DIAL, Stage.RELAY])
def test_a_fault_ends_the_session(stage: Stage) -> None:
    """A handler that raised costs its own session, and is told so."""
    with session() as one:
        one.start()
        if stage is Stage.RELAY:
            one.relay()
            assert one.live.up is not None
            one.live.up.on_fault()
        else:
            one.live.on_fault()
        one.check_end(stage, Cause.INTERNAL)


def test_the_first_end_counts() -> None:
    """Two ends in one turn are one record, the first one's."""
    with session() as one:
        one.start().relay()
        one.live.end(Cause.DRAIN)
        one.live.end(Cause.CLIENT_RESET)
        one.check_end(Stage.RELAY, Cause.DRAIN)


def test_a_dialling_has_its_time() -> None:
    """At its deadline, and not before, the dialling is told."""
    with session() as one:
        one.start()
        one.at.clock.now += CONNECT_TIMEOUT - 0.001
        one.at.turn()
        assert not one.ended
        one.at.clock.now += 0.1
        one.at.turn()
        one.check_end(Stage.DIAL, Cause.DIAL_TIMEOUT)


def test_each_endpoint_has_its_own_time() -> None:
    """A deadline that moved, because another endpoint is being tried, is kept where it is now."""
    with session() as one:
        one.start()
        assert one.dialling is not None
        one.at.clock.now += 3
        one.at.turn()
        one.dialling.again()
        one.at.clock.now += 3
        one.at.turn()
        assert not one.ended, "5 s after the first one began, 3 s after the second"
        one.at.clock.now += 3
        one.at.turn()
        ended = one.check_end(Stage.DIAL, Cause.DIAL_TIMEOUT)
        assert ended.attempts == 2


def test_a_timed_out_endpoint_is_followed_by_the_next() -> None:
    """The session is armed for the next endpoint after the first one's time is over."""
    with session() as one:
        one.start()
        assert one.dialling is not None
        one.dialling.on_timeout = Dialling.again
        for _ in range(3):
            one.at.clock.now += CONNECT_TIMEOUT + 0.1
            one.at.turn()
        assert not one.ended
        assert one.dialling.attempts == 4
        one.live.end(Cause.DRAIN)
        one.check_end(Stage.DIAL, Cause.DRAIN)


def test_idle_time_moves_with_activity() -> None:
    """Bytes of either way put the end off; idle_timeout after the last one it comes."""
    with session() as one:
        one.start().relay()
        for speaker, listens in ((one.client, one.server), (one.server, one.client)):
            one.at.clock.now += IDLE - 1
            one.at.turn()
            speaker.sendall(b"x")
            one.at.until(partial(readable, listens))
            listens.recv(1)
        one.at.clock.now += IDLE - 0.01
        one.at.turn()
        assert not one.ended
        one.at.clock.now += 0.1
        one.at.turn()
        ended = one.check_end(Stage.RELAY, Cause.IDLE_TIMEOUT)
        assert ended.moved == (1, 1)
        assert_reset(one.client)


def readable(wire: socket.socket) -> bool:
    try:
        return bool(wire.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


def test_a_slow_dial_does_not_shorten_the_idle_time() -> None:
    """Idle time counts from the connection, not from accept."""
    with session() as one:
        one.start()
        one.at.clock.now += 4
        one.at.turn()
        one.relay()
        one.at.clock.now += IDLE - 0.1
        one.at.turn()
        assert not one.ended
        one.at.clock.now += 0.2
        one.at.turn()
        one.check_end(Stage.RELAY, Cause.IDLE_TIMEOUT)


def test_an_idle_time_shorter_than_the_dials_is_kept() -> None:
    """The first look at idleness does not wait for the dial's deadline."""
    with session() as one:
        one.idle_timeout = 1.0
        one.start().relay()
        one.at.clock.now += 0.99
        one.at.turn()
        assert not one.ended
        one.at.clock.now += 0.1
        one.at.turn()
        one.check_end(Stage.RELAY, Cause.IDLE_TIMEOUT)


def test_a_quiet_endpoint_is_probed() -> None:
    """A session that outlives its connect_timeout gets keep-alive on the endpoint's socket."""
    with session() as one:
        one.start().relay()
        assert one.connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        one.at.clock.now += CONNECT_TIMEOUT + 0.1
        one.at.turn()
        assert one.connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        one.live.end(Cause.DRAIN)
        one.check_end(Stage.RELAY, Cause.DRAIN)


def test_times_are_kept() -> None:
    """Connect time is the last endpoint's, the first byte is the endpoint's first."""
    with session() as one:
        one.start()
        assert one.dialling is not None
        accepted = one.live.accepted
        one.at.clock.now += 1
        one.at.turn()
        one.dialling.again()
        one.at.clock.now += 0.5
        one.at.turn()
        one.relay()
        one.client.sendall(b"x")
        one.at.until(lambda: readable(one.server))
        assert one.live.first_byte is None, "the client's bytes are not the answer"
        one.at.clock.now += 2
        one.server.sendall(b"x")
        one.at.until(lambda: readable(one.client))
        one.at.clock.now += 2
        one.server.sendall(b"x")
        one.at.turn()
        one.live.end(Cause.DRAIN)
        ended = one.check_end(Stage.RELAY, Cause.DRAIN)
        assert ended.connect_seconds == 0.5
        assert ended.first_byte == accepted + 3.5


def test_a_lost_side_is_the_cause() -> None:
    """Where a side was reset and its last words are still delivered, the record names the reset."""
    with session() as one:
        one.start().relay()
        assert one.live.up is not None
        one.live.sink_lost(one.live.up)
        one.live.end(Cause.CLIENT_EOF)
        one.check_end(Stage.RELAY, Cause.ENDPOINT_RESET)
        assert_reset(one.client)


@pytest.mark.parametrize("version", list(ProxyProtocol))
def test_an_introduction_names_the_client(version: ProxyProtocol) -> None:
    """What a rule's proxy_protocol makes has the client, the address it reached, and the session's id."""
    with session() as one:
        one.sessions.next_id = lambda _: "the id"
        one.header = introduction(version)
        one.start()
        one.live.peer = ("203.0.113.9", 51022)
        reached = peer_text(one.accepted.getsockname())
        one.relay()
        assert one.server.recv(4096) == header(version, "203.0.113.9:51022", reached, "the id")
        one.live.end(Cause.DRAIN)
        one.check_end(Stage.RELAY, Cause.DRAIN)


def test_without_proxy_protocol_there_is_no_introduction() -> None:
    """A rule that asks for none has nothing that makes one."""
    assert introduction(None) is None
