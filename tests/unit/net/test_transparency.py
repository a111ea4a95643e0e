"""The client's address at the endpoint: what a socket is bound to, and what is said where that cannot be."""

import errno
import os
import socket
from dataclasses import dataclass, field
from typing import cast

import pytest

from appliance.net.contact import connected
from appliance.net.dial import Upstream
from appliance.net.sockets import Endpoint, Socket, endpoint_of
from appliance.net.transparency import IP_TRANSPARENT, IPV6_TRANSPARENT, Transparency
from appliance.outcome import Cause
from appliance.values import TargetAddress
from tests.unit.net.loop import loop, open_fds

V4 = Endpoint(socket.AF_INET, ("10.0.0.5", 80), "10.0.0.5:80")
V6 = Endpoint(socket.AF_INET6, ("2001:db8::5", 80, 0, 0), "[2001:db8::5]:80")
UNIX = Endpoint(socket.AF_UNIX, "/s", "unix:/s")


@dataclass
class Connection:
    """A socket that notes what is done to it, and refuses what it is told to."""

    refuses_option: int = 0
    refuses_binds: list[int] = field(default_factory=list)
    options: list[tuple[int, int]] = field(default_factory=list)
    bound: list[tuple[object, ...]] = field(default_factory=list)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert value == 1
        if self.refuses_option:
            raise OSError(self.refuses_option, os.strerror(self.refuses_option))
        self.options.append((level, option))

    def bind(self, address: tuple[object, ...]) -> None:
        self.bound.append(address)
        if self.refuses_binds:
            number = self.refuses_binds.pop(0)
            raise OSError(number, os.strerror(number))


@dataclass
class Lender:
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.transparency = Transparency(self.said.append)

    def lend(self, connection: Connection, endpoint: Endpoint, client: object) -> Cause | None:
        return self.transparency.lend(cast("Socket", connection), endpoint, client)


@pytest.mark.parametrize(
    ("client", "endpoint", "bound"),
    [
        (("203.0.113.9", 51022), V4, ("203.0.113.9", 51022)),
        (("::ffff:203.0.113.9", 51022, 0, 0), V4, ("203.0.113.9", 51022)),
        (("2001:db8::1", 51022, 7, 3), V6, ("2001:db8::1", 51022, 0, 3)),
    ],
)
def test_a_socket_is_bound_to_the_client(
    client: object, endpoint: Endpoint, bound: tuple[object, ...]
) -> None:
    """Address and port, in the endpoint's family; the option that allows it is set before."""
    lender, connection = Lender(), Connection()
    assert lender.lend(connection, endpoint, client) is None
    assert connection.bound == [bound]
    option = (
        (socket.IPPROTO_IP, IP_TRANSPARENT) if endpoint is V4 else (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
    )
    assert connection.options == [option]
    assert not lender.said


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EACCES])
def test_the_port_may_be_taken(number: int) -> None:
    """Where the client's port is taken here, or is for root only, the kernel picks one; the address stays."""
    lender, connection = Lender(), Connection(refuses_binds=[number])
    assert lender.lend(connection, V6, ("2001:db8::1", 51022, 0, 0)) is None
    assert connection.bound[1:] == [("2001:db8::1", 0, 0, 0)]
    assert not lender.said


@pytest.mark.parametrize(
    "client", ["", "/run/client.sock", b"\0abstract", "203.0.113.9:51022", None, ("a.example", 80)]
)
def test_who_has_no_address_has_none_to_lend(client: object) -> None:
    """A client of a unix socket is dialled for as usual, whatever path it has bound itself to."""
    lender, connection = Lender(), Connection()
    assert lender.lend(connection, V4, client) is None
    assert connection == Connection()


def test_a_unix_endpoint_sees_no_address() -> None:
    """It is dialled as usual."""
    lender, connection = Lender(), Connection()
    assert lender.lend(connection, UNIX, ("203.0.113.9", 51022)) is None
    assert connection == Connection()


@pytest.mark.parametrize(
    ("connection", "client", "told"),
    [
        (Connection(refuses_option=errno.EPERM), ("203.0.113.9", 51022), "CAP_NET_RAW"),
        (
            Connection(),
            ("2001:db8::1", 51022, 0, 0),
            "2001:db8::1 is of another family than the endpoint 10.0.0.5:80",
        ),
        (
            Connection(refuses_binds=[errno.EADDRINUSE, errno.EADDRNOTAVAIL]),
            ("203.0.113.9", 51022),
            "203.0.113.9 cannot be used: Cannot assign requested address",
        ),
    ],
)
def test_trouble_is_told_once(connection: Connection, client: object, told: str) -> None:
    """The first client that it costs has the operator told what to do; those after it cost no more lines."""
    lender = Lender()
    assert lender.lend(connection, V4, client) is Cause.SOURCE_UNAVAILABLE
    connection.refuses_binds = [errno.EADDRINUSE, errno.EADDRNOTAVAIL] if connection.bound else []
    assert lender.lend(connection, V4, client) is Cause.SOURCE_UNAVAILABLE
    (said,) = lender.said
    assert told in said


@dataclass
class Caller:
    peer: object
    causes: list[Cause] = field(default_factory=list)

    def dialled(self, connection: Socket, endpoint: Endpoint, *, watched: bool) -> None:
        raise AssertionError(connection, endpoint, watched)

    def dial_failed(self, cause: Cause) -> None:
        self.causes.append(cause)

    def on_fault(self) -> None:
        raise AssertionError


def test_a_dial_without_its_source_fails() -> None:
    """Every endpoint is tried; the cause is told, and no socket is left."""
    before, lender = open_fds(), Lender()
    with loop() as at:
        targets = [TargetAddress.parse("127.0.0.1:9"), TargetAddress.parse("127.0.0.2:9")]
        upstream = Upstream(at.reactor, None, targets, 5.0, lender.transparency)  # type: ignore[arg-type]  # no names
        caller = Caller(("2001:db8::1", 51022, 0, 0))
        attempt = upstream.dial(caller)
        attempt.go()
        assert caller.causes == [Cause.SOURCE_UNAVAILABLE]
        assert attempt.attempts == 2
    assert open_fds() == before


def test_a_dial_that_is_not_answered_is_explained() -> None:
    """An endpoint that answers to an address of somebody else does so elsewhere: what to look at is told."""
    lender = Lender()
    with loop() as at, socket.socket() as deaf, socket.socket() as filler:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filler.connect(deaf.getsockname())
        address = TargetAddress.parse(f"127.0.0.1:{deaf.getsockname()[1]}")
        upstream = Upstream(at.reactor, None, [address], 5.0, lender.transparency)  # type: ignore[arg-type]  # same
        caller = Caller("")
        attempt = upstream.dial(caller)
        attempt.go()
        attempt.timed_out()
        assert caller.causes == [Cause.DIAL_TIMEOUT]
    (said,) = lender.said
    assert "portway source --check" in said


def test_a_flow_without_its_source() -> None:
    """A datagram socket is refused as well, and closed."""
    before, lender = open_fds(), Lender()
    where = endpoint_of(TargetAddress.parse("127.0.0.1:9"))
    found = connected(where, lender.transparency, ("2001:db8::1", 51022, 0, 0))
    assert found is Cause.SOURCE_UNAVAILABLE
    assert open_fds() == before


def test_the_right_is_looked_at_before_the_first_client() -> None:
    """Whether this process may do it is told at the start; a process that may has nothing to say."""
    lender = Lender()
    lender.transparency.probe()
    lender.transparency.probe()
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        except PermissionError:
            assert len(lender.said) == 1
        else:
            assert not lender.said
