"""Handshakes: they end once, secured or not, and leave nothing behind."""

import socket
import ssl
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from appliance.net.handshake import Handshake
from appliance.net.reactor import IN, LEAST_WORK, OUT
from appliance.net.tls import TlsSocket
from tests.tls import CLIENT_NAME, SERVER_NAME, Authority, client_context, client_of, server_context
from tests.unit.net.loop import Loop, Watcher, loop, open_fds, tcp_pair

LIMIT = 5.0


@dataclass(eq=False)
class Caller:
    """Whoever wants the connection."""

    at: Loop
    tls: TlsSocket | None = None
    error: OSError | None = None
    told: int = 0
    faults: int = 0
    watcher: Watcher = field(default_factory=Watcher)

    def secured(self, tls: TlsSocket) -> None:
        self.tls = tls
        self.told += 1
        self.at.reactor.hand_over(tls.fileno(), self.watcher)

    def not_secured(self, error: OSError) -> None:
        self.error = error
        self.told += 1

    def on_fault(self) -> None:
        self.faults += 1


@pytest.fixture
def at() -> Iterator[Loop]:
    """Give a loop."""
    before = open_fds()
    with loop() as made:
        yield made
    assert not open_fds() - before


@pytest.fixture
def ends(at: Loop) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give a connection: the dialling end, the accepted one."""
    with ExitStack() as stack:
        one, other = (stack.enter_context(each) for each in tcp_pair())
        yield one, other


def client(at: Loop, sock: socket.socket, caller: Caller, context: ssl.SSLContext | None = None) -> Handshake:
    return Handshake(
        at.reactor,
        sock,
        context or client_context(),
        server_side=False,
        server_hostname=SERVER_NAME,
        caller=caller,
        deadline=at.clock.now + LIMIT,
        watched=False,
    )


def server(at: Loop, sock: socket.socket, caller: Caller, *, watched: bool = False) -> Handshake:
    return Handshake(
        at.reactor,
        sock,
        server_context(),
        server_side=True,
        server_hostname=None,
        caller=caller,
        deadline=at.clock.now + LIMIT,
        watched=watched,
    )


@pytest.mark.parametrize("watched", [False, True])
def test_both_sides(at: Loop, ends: tuple[socket.socket, socket.socket], watched: bool) -> None:
    """Both are secured, each once, know the other's certificate, and are watched for IN."""
    one, other = Caller(at), Caller(at)
    if watched:  # as who has peeked at the hello has it
        at.reactor.watch(ends[1].fileno(), OUT, Watcher())
    server(at, ends[1], other, watched=watched).go()
    client(at, ends[0], one).go()
    at.until(lambda: one.told and other.told)
    assert one.tls is not None
    assert other.tls is not None
    assert one.tls.getpeercert()["subject"] == ((("commonName", SERVER_NAME),),)
    assert other.tls.getpeercert()["subject"] == ((("commonName", CLIENT_NAME),),)
    assert not one.tls.pending()
    one.tls.send(b"question")
    at.until(lambda: other.watcher.events)
    assert other.watcher.events[0] == IN
    assert other.tls.recv(100) == b"question"
    at.clock.now += 2 * LIMIT
    at.turn()
    assert [each.told for each in (one, other)] == [1, 1]
    for each in (one.tls, other.tls):
        at.reactor.forget(each.fileno(), each.close)


def test_what_the_client_said_with_its_last_flight_is_there(
    at: Loop, ends: tuple[socket.socket, socket.socket]
) -> None:
    """Application data behind the client's Finished wakes whoever takes over."""
    one, other = Caller(at), Caller(at)
    taking = server(at, ends[1], other)
    client(at, ends[0], one).go()
    taking.go()
    at.until(lambda: one.tls)
    assert one.tls is not None
    if other.tls is None:
        one.tls.send(b"at once")
    at.until(lambda: other.tls)
    assert other.tls is not None
    at.until(lambda: other.watcher.events)
    for each in (one.tls, other.tls):
        at.reactor.forget(each.fileno(), each.close)


def test_too_late(at: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    """A peer that says nothing has until the deadline; then it is closed, and the caller told once."""
    caller = Caller(at)
    server(at, ends[1], caller).go()
    at.turn()
    with pytest.raises(BlockingIOError):
        ends[0].recv(1, socket.MSG_DONTWAIT)
    at.clock.now += LIMIT + 1
    at.turn()
    at.turn()
    assert isinstance(caller.error, TimeoutError)
    assert caller.told == 1
    assert ends[0].recv(1) == b""


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(1 << 16), b"\0" * 600]
)
def test_a_stranger(at: Loop, ends: tuple[socket.socket, socket.socket], said: bytes) -> None:
    """Bytes that are no handshake end it with OpenSSL's error."""
    caller = Caller(at)
    server(at, ends[1], caller).go()
    ends[0].sendall(said)
    at.until(lambda: caller.told)
    assert isinstance(caller.error, ssl.SSLError)
    assert caller.told == 1


def test_a_peer_that_leaves(at: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    """An end in the middle is a failure, at once."""
    caller = Caller(at)
    client(at, ends[0], caller).go()
    ends[1].close()
    at.until(lambda: caller.told)
    assert isinstance(caller.error, OSError)


def test_the_wrong_authority(at: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    """A client whose certificate the server does not accept hears why, if only with its first read."""
    one, other = Caller(at), Caller(at)
    server(at, ends[1], other).go()
    client(at, ends[0], one, client_of(Authority("another"))).go()
    at.until(lambda: one.told and other.told)
    assert isinstance(other.error, ssl.SSLError)
    assert one.tls is not None
    at.until(lambda: one.watcher.events)
    with pytest.raises(ConnectionResetError, match="UNKNOWN_CA"):
        one.tls.recv(1)
    at.reactor.forget(one.tls.fileno(), one.tls.close)


def test_the_wrong_server(at: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    """A server of another name, or CA, is no server for us."""
    one, other = Caller(at), Caller(at)
    server(at, ends[1], other).go()
    dialling = client(at, ends[0], one)
    dialling._server_hostname = "elsewhere.portway"
    dialling.go()
    at.until(lambda: one.told and other.told)
    assert isinstance(one.error, ssl.SSLCertVerificationError)
    assert isinstance(other.error, ssl.SSLError)


def test_a_name_that_is_none(at: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    """What OpenSSL does not even begin is a failure like any other."""
    one = Caller(at)
    dialling = client(at, ends[0], one)
    dialling._server_hostname = None
    dialling.go()
    assert isinstance(one.error, OSError)


def test_abandoned(at: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    """Nobody is told, and the socket is closed at the turn's end."""
    caller = Caller(at)
    begun = server(at, ends[1], caller)
    begun.go()
    begun.abandon()
    begun.abandon()
    at.clock.now += 2 * LIMIT
    at.turn()
    assert not caller.told
    assert ends[0].recv(1) == b""


def test_abandoned_while_its_step_is_queued(at: Loop) -> None:
    """However many are, in a turn, nothing of them is kept: a flood of strangers costs no memory."""
    kept = []
    for _ in range(4 * LEAST_WORK):
        with ExitStack() as stack:
            _, accepted = (stack.enter_context(each) for each in tcp_pair())
            begun = server(at, accepted, Caller(at))
            begun.go()
            assert begun._tls is not None
            kept.append(weakref.ref(begun._tls))
            begun.abandon()
            del begun
    at.turn()
    assert not [each for each in kept if each() is not None]


def test_many_that_are_late(at: Loop) -> None:
    """Deadlines that pass in one turn take as few steps in it as events would; all end, each once."""
    callers = [Caller(at) for _ in range(4 * LEAST_WORK)]
    with ExitStack() as stack:
        for caller in callers:
            _, accepted = (stack.enter_context(each) for each in tcp_pair())
            server(at, accepted, caller).go()
        at.clock.now += LIMIT + 1
        at.turn()
        assert sum(caller.told for caller in callers) == LEAST_WORK
        at.until(lambda: all(caller.told for caller in callers))
        at.turn()
    assert [type(caller.error) for caller in callers] == [TimeoutError] * len(callers)
    assert [caller.told for caller in callers] == [1] * len(callers)


def test_late_with_its_last_step_there(at: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    """Whose deadline passes while what it waited for is there is secured: it is the loop that is late."""
    one, other = Caller(at), Caller(at)
    server(at, ends[1], other).go()
    client(at, ends[0], one).go()
    at.until(lambda: one.told)
    at.clock.now += LIMIT + 1
    at.until(lambda: other.told)
    assert other.tls is not None
    for each in (one.tls, other.tls):
        assert each is not None
        at.reactor.forget(each.fileno(), each.close)


def test_a_caller_that_raises(at: Loop, ends: tuple[socket.socket, socket.socket]) -> None:
    """The fault is the loop's to report, and the caller's to end."""
    one, other = Caller(at), Caller(at)
    server(at, ends[1], other).go()

    def fail(tls: TlsSocket) -> None:
        one.tls = tls
        raise LookupError

    one.secured = fail  # type: ignore[method-assign]
    client(at, ends[0], one).go()
    at.until(lambda: one.faults and other.tls)
    assert isinstance(at.faults.pop(), LookupError)
    for each in (one.tls, other.tls):
        assert each is not None
        at.reactor.forget(each.fileno(), each.close)
