"""A flow's way to its endpoint: in turn, past those that failed, and past names that do not resolve."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from appliance.net import contact
from appliance.net.contact import Contact, DatagramUpstream, connected
from appliance.net.sockets import Endpoint, Socket
from appliance.outcome import LEGAL, Cause, Stage
from tests.unit.net.datagrams import CONNECT_TIMEOUT, Names, endpoint, upstream_of
from tests.unit.net.loop import Clock, loop

PORTS = (1001, 1002, 1003)
TARGETS = tuple(f"127.0.0.1:{port}" for port in PORTS)
UNREACHABLE = "255.255.255.255:9"
"""connect(2) refuses a broadcast address without SO_BROADCAST (EACCES)."""


@dataclass(eq=False)
class Caller:
    """A flow that notes where it got to."""

    client: tuple[str, int] = ("127.0.0.1", 9)
    reached_at: list[str] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)

    def reached(self, connection: Socket, endpoint: Endpoint) -> None:
        assert isinstance(connection, Socket)
        connection.close()
        self.reached_at.append(endpoint.text)

    def unreached(self, cause: Cause) -> None:
        assert cause in LEGAL[Stage.DIAL]
        self.causes.append(cause)


@dataclass(eq=False)
class Ways:
    upstream: DatagramUpstream
    names: Names
    clock: Clock

    def contact(self) -> tuple[Contact, Caller]:
        caller = Caller()
        return self.upstream.contact(caller), caller

    def first(self) -> str:
        """Say where a new flow goes."""
        made, caller = self.contact()
        made.go()
        (text,) = caller.reached_at
        return text


@contextmanager
def ways(*targets: str) -> Iterator[Ways]:
    with loop() as at:
        names = Names()
        yield Ways(upstream_of(at.reactor, targets, names), names, at.clock)


# -- one socket ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]")])
def test_a_connection_is_ready_at_once(family: int, host: str) -> None:
    """Non-blocking, not inherited, connected: the kernel hands it only what its endpoint sends."""
    made = connected(endpoint(9, host))
    assert isinstance(made, Socket)
    with socket.socket(family, socket.SOCK_DGRAM, 0, made.detach()) as connection:
        assert connection.getpeername()[1] == 9
        assert not connection.get_inheritable()
        with pytest.raises(BlockingIOError):
            connection.recv(1)


def test_what_cannot_be_connected_leaves_no_socket() -> None:
    """The cause is what connect(2) said; no fd is left (a ResourceWarning would fail this test)."""
    refused = Endpoint(int(socket.AF_INET), ("255.255.255.255", 9), UNREACHABLE)
    assert connected(refused) is Cause.DIAL_UNREACHABLE


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.EAGAIN, Cause.FD_LIMIT),
        (errno.EADDRNOTAVAIL, Cause.FD_LIMIT),
        (errno.ENOBUFS, Cause.FD_LIMIT),
        (errno.ENETUNREACH, Cause.DIAL_UNREACHABLE),
        (errno.EPERM, Cause.DIAL_UNREACHABLE),
    ],
)
def test_why_a_connection_is_refused(monkeypatch: pytest.MonkeyPatch, number: int, cause: Cause) -> None:
    """No local port is free (EAGAIN, of UDP) is no fault of the endpoint's."""

    class Refusing(socket.socket):
        def connect_ex(self, _: object) -> int:
            return number

    monkeypatch.setattr(contact, "Socket", Refusing)
    assert connected(endpoint(9)) is cause


def test_no_socket_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE is the limit of this process, not an endpoint that cannot be reached."""

    def none_left(*_: object) -> Socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(contact, "Socket", none_left)
    assert connected(endpoint(9)) is Cause.FD_LIMIT


# -- the endpoints of a rule ----------------------------------------------------------------------------


def test_one_address_needs_no_choice() -> None:
    """A rule with one address has only that; with a name or two addresses there is a choice."""
    with ways(TARGETS[0]) as one, ways(*TARGETS) as several, ways("a.example:53") as name:
        assert one.upstream.only == endpoint(PORTS[0])
        assert several.upstream.only is None
        assert name.upstream.only is None


def test_endpoints_take_turns() -> None:
    """Each flow begins one further on."""
    with ways(*TARGETS) as made:
        assert [made.first() for _ in range(4)] == [*TARGETS, TARGETS[0]]


def test_who_failed_comes_last_for_a_while() -> None:
    """An endpoint that was given up is out of turn for 10 s, and back as soon as it has answered."""
    with ways(*TARGETS) as made:
        given_up, _ = made.contact()
        given_up.eject(endpoint(PORTS[0]))
        assert TARGETS[0] not in {made.first() for _ in range(6)}
        given_up.answered(endpoint(PORTS[0]))
        assert TARGETS[0] in {made.first() for _ in range(3)}
        given_up.eject(endpoint(PORTS[0]))
        made.clock.now += 10.0
        made.upstream.reactor.turn(0.0)
        assert TARGETS[0] in {made.first() for _ in range(3)}


def test_a_flow_goes_on_to_the_next_until_none_is_left() -> None:
    """Each endpoint once; attempts are counted; the cause is the last one's."""
    with ways(*TARGETS) as made:
        walk, caller = made.contact()
        for count in range(1, 4):
            walk.go()
            assert walk.attempts == count
            assert walk.has_more is (count < 3)
        walk.go()
        assert caller.reached_at == list(TARGETS)
        assert caller.causes == [Cause.DIAL_UNREACHABLE]


def test_what_cannot_be_connected_is_passed_over() -> None:
    """In the same go, and the next flows do not try it first."""
    with ways(UNREACHABLE, TARGETS[0]) as made:
        walk, caller = made.contact()
        walk.go()
        assert (caller.reached_at, walk.attempts) == ([TARGETS[0]], 2)
        for _ in range(3):
            walk, caller = made.contact()
            walk.go()
            assert walk.attempts == 1


# -- names ----------------------------------------------------------------------------------------------


def test_a_name_is_waited_for() -> None:
    """Its addresses are the endpoints, in the resolver's order."""
    with ways("a.example:53") as made:
        walk, caller = made.contact()
        walk.go()
        assert walk.waits
        assert walk.deadline == made.clock.now + CONNECT_TIMEOUT
        made.names.answer(endpoint(PORTS[1]), endpoint(PORTS[0]))
        walk.go()
        assert caller.reached_at == [TARGETS[1], TARGETS[0]]


def test_a_known_name_is_not_waited_for() -> None:
    """The flow has its endpoint in the same moment."""
    with ways("a.example:53") as made:
        made.names.known["a.example"] = (endpoint(PORTS[2]),)
        walk, caller = made.contact()
        walk.go()
        assert not walk.waits
        assert caller.reached_at == [TARGETS[2]]


def test_of_a_names_addresses_those_that_failed_come_last() -> None:
    """Ejection is by address, whatever name led there."""
    with ways("a.example:53") as made:
        made.names.known["a.example"] = tuple(endpoint(port) for port in PORTS)
        walk, _ = made.contact()
        walk.eject(endpoint(PORTS[0]))
        assert made.first() == TARGETS[1]


def test_a_name_that_does_not_resolve() -> None:
    """The next endpoint is tried; where there is none, that is the cause."""
    with ways("a.example:53", TARGETS[0]) as made:
        walk, caller = made.contact()
        walk.go()
        made.names.answer()
        assert caller.reached_at == [TARGETS[0]]
    with ways("a.example:53") as made:
        walk, caller = made.contact()
        walk.go()
        made.names.answer()
        assert caller.causes == [Cause.DIAL_RESOLVE]


def test_a_name_that_takes_too_long() -> None:
    """The question is withdrawn, and the next endpoint is tried; a second name has a deadline of its own."""
    with ways("a.example:53", "b.example:53") as made:
        walk, caller = made.contact()
        walk.go()
        made.clock.now += CONNECT_TIMEOUT
        made.upstream.reactor.turn(0.0)
        walk.timed_out()
        assert walk.waits
        assert [name for name, _ in made.names.asking] == ["b.example"]
        assert walk.deadline == made.clock.now + CONNECT_TIMEOUT
        walk.timed_out()
        assert caller.causes == [Cause.DIAL_RESOLVE]
        assert not made.names.asking


def test_who_gives_up_leaves_no_question() -> None:
    """A flow that ends meanwhile is not told; giving up twice is no error."""
    with ways("a.example:53") as made:
        walk, caller = made.contact()
        walk.abandon()
        walk.go()
        walk.abandon()
        walk.abandon()
        assert not made.names.asking
        assert not walk.waits
        assert caller.reached_at == caller.causes == []
