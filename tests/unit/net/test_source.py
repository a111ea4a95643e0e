"""Where answers leave from: a socket for each address clients write to, which takes nothing of theirs."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from appliance.net.datagram_sockets import datagram_socket
from appliance.net.sockets import endpoint_of
from appliance.net.source import MOST, Source, Sources
from appliance.values import ListenAddress
from tests.unit.net.datagrams import datagrams_at, port_of, readable, waiting

ONE = socket.inet_aton("127.0.0.2")
SIX = socket.inet_pton(socket.AF_INET6, "::1")
NOBODYS = socket.inet_aton("203.0.113.77")


@contextmanager
def sources(text: str = "0.0.0.0:0", *, reuse_port: bool = True) -> Iterator[tuple[Sources, socket.socket]]:
    endpoint = endpoint_of(ListenAddress.parse(text))
    with datagram_socket(endpoint, reuse_port=reuse_port, receive_buffer=1 << 18) as bound:
        made = Sources(bound)
        yield made, bound
        made.close()


def none_strays(datagram: bytes, client: object) -> None:
    raise AssertionError(f"{datagram!r} of {client}")


def leaves_from(made: Source, receiver: socket.socket) -> tuple[str, int]:
    """Send a datagram; say where the receiver sees it come from."""
    if made.sendto is None:
        made.sendmsg([b"!"], made.controls, 0, receiver.getsockname())
    else:
        made.sendto(b"!", receiver.getsockname())
    _, sender = receiver.recvfrom(10)
    return sender[0], sender[1]


@pytest.mark.parametrize(
    ("text", "local", "host"), [("0.0.0.0:0", ONE, "127.0.0.2"), ("[::]:0", SIX, "::1")], ids=["ipv4", "ipv6"]
)
def test_an_answer_leaves_from_its_address(text: str, local: bytes, host: str) -> None:
    """And from the listener's port."""
    with sources(text) as (made, bound), datagrams_at("::1" if ":" in host else "127.0.0.1") as client:
        assert leaves_from(made.of(local, none_strays), client) == (host, port_of(bound))


def test_without_an_address_it_is_the_listeners_own() -> None:
    """So with a socket of one address, and with what came before the kernel noted the address down."""
    with sources("127.0.0.1:0") as (made, bound), datagrams_at() as client:
        for local in (b"", bytes(4)):
            assert leaves_from(made.of(local, none_strays), client) == bound.getsockname()


def test_there_is_one_for_each_address() -> None:
    """However many clients write to it."""
    with sources() as (made, _):
        assert made.of(ONE, none_strays) is made.of(ONE, none_strays)
        assert made.of(ONE, none_strays) is not made.of(socket.inet_aton("127.0.0.3"), none_strays)


def test_clients_still_reach_the_listener() -> None:
    """Also at that address, for which the kernel would prefer the other socket if it could receive there."""
    with sources() as (made, bound), datagrams_at() as client:
        made.of(ONE, none_strays)
        for _ in range(20):
            client.sendto(b"?", ("127.0.0.2", port_of(bound)))
        assert len(waiting(bound)) == 20


def test_what_arrives_meanwhile_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between bind(2) and connect(2) the new socket gets the clients' datagrams: none is lost."""
    strays: list[tuple[bytes, object]] = []

    class Slow(socket.socket):
        def connect(self, address: object) -> None:
            for data in (b"1", b"2"):
                client.sendto(data, ("127.0.0.2", port_of(bound)))
            super().connect(address)  # type: ignore[arg-type]
            client.sendto(b"3", ("127.0.0.2", port_of(bound)))

    monkeypatch.setattr(socket, "socket", Slow)
    with sources() as (made, bound), datagrams_at() as client:
        found = made.of(ONE, lambda data, sender: strays.append((data, sender)))
        assert strays == [(b"1", client.getsockname()), (b"2", client.getsockname())]
        assert waiting(bound) == [b"3"]
        assert leaves_from(found, client) == ("127.0.0.2", port_of(bound))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EADDRINUSE])
def test_where_there_can_be_no_socket_a_control_message_does(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No fd, no right to the port, or one that is not shared: answers leave right all the same."""

    class Refused(socket.socket):
        def bind(self, _: object) -> None:
            raise OSError(number, os.strerror(number))

    with sources() as (made, bound), datagrams_at() as client:
        monkeypatch.setattr(socket, "socket", Refused)
        assert leaves_from(made.of(ONE, none_strays), client) == ("127.0.0.2", port_of(bound))


def test_a_socket_that_shares_with_none() -> None:
    """One from outside may lack SO_REUSEPORT."""
    with sources(reuse_port=False) as (made, bound), datagrams_at() as client:
        found = made.of(ONE, none_strays)
        assert found.sendto is None
        assert leaves_from(found, client) == ("127.0.0.2", port_of(bound))


def test_an_address_that_is_gone() -> None:
    """Sending from it fails as sending does, and making a socket for it is no error."""
    with sources() as (made, _), datagrams_at() as client:
        found = made.of(NOBODYS, none_strays)
        with pytest.raises(OSError, match=r"Invalid|Cannot assign|unreachable"):
            leaves_from(found, client)


def test_only_so_many_have_a_socket() -> None:
    """A host with thousands of addresses does not run out of fds; the last ones leave right as well."""
    with sources() as (made, bound), datagrams_at() as client:
        locals_ = [socket.inet_aton(f"127.0.2.{number}") for number in range(1, MOST + 9)]
        found = [made.of(local, none_strays) for local in locals_]
        assert sum(each.sendto is not None for each in found) == MOST
        for local, each in zip(locals_, found, strict=True):
            assert leaves_from(each, client) == (socket.inet_ntoa(local), port_of(bound))


def test_closing_leaves_no_socket() -> None:
    """The listener's own stays its owner's."""
    with sources() as (made, bound):
        found = made.of(ONE, none_strays)
        made.close()
        assert found.sendto is not None
        with pytest.raises(OSError, match="Bad file"):
            found.sendto(b"!", bound.getsockname())
        assert bound.fileno() >= 0


def test_only_from_itself_could_anything_come() -> None:
    """Another socket of that port at another address is somebody else."""
    with sources() as (made, bound), datagrams_at() as client:
        found = made.of(ONE, none_strays)
        assert found.sendto is not None
        sender = found.sendto.__self__  # type: ignore[attr-defined]
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            client.sendto(b"?", (host, port_of(bound)))
        with suppress(BlockingIOError):
            assert not readable(sender)
        assert len(waiting(bound)) == 3
