"""Where answers leave from: the address that the client wrote to, of all that a listener has."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from appliance.net.datagram_sockets import datagram_socket
from appliance.net.sockets import endpoint_of
from appliance.net.source import MOST, Source, Sources
from appliance.values import ListenAddress
from tests.unit.net.datagrams import datagrams_at, port_of

ONE = socket.inet_aton("127.0.0.2")
SIX = socket.inet_pton(socket.AF_INET6, "::1")
NOBODYS = socket.inet_aton("203.0.113.77")


@contextmanager
def sources(text: str = "0.0.0.0:0") -> Iterator[tuple[Sources, socket.socket]]:
    endpoint = endpoint_of(ListenAddress.parse(text))
    with datagram_socket(endpoint, reuse_port=True, receive_buffer=1 << 18) as bound:
        yield Sources(bound), bound


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
        assert leaves_from(made.of(local), client) == (host, port_of(bound))


def test_without_an_address_it_is_the_listeners_own() -> None:
    """So with a socket of one address, and with what came before the kernel noted the address down."""
    with sources("127.0.0.1:0") as (made, bound), datagrams_at() as client:
        for local in (b"", bytes(4)):
            assert leaves_from(made.of(local), client) == bound.getsockname()


def test_an_address_is_remembered() -> None:
    """Each flow there shares it; another address is another source."""
    with sources() as (made, _):
        assert made.of(ONE) is made.of(ONE)
        assert made.of(ONE) is not made.of(socket.inet_aton("127.0.0.3"))


def test_so_many_are_remembered_and_no_more() -> None:
    """Whoever can write to very many addresses of this host costs no memory for each; all of them work."""
    locals_ = [socket.inet_aton(f"127.1.{number}.1") for number in range(2 * MOST)]
    with sources() as (made, bound), datagrams_at() as client:
        for local in locals_:
            assert leaves_from(made.of(local), client) == (socket.inet_ntoa(local), port_of(bound))
        assert made.of(locals_[0]) is made.of(locals_[0])
        assert made.of(locals_[-1]) is not made.of(locals_[-1])


def test_an_address_that_is_gone_is_an_error_of_the_sending() -> None:
    """An interface may lose an address that a client still writes to."""
    with sources() as (made, _), datagrams_at() as client, pytest.raises(OSError, match=r"."):
        leaves_from(made.of(NOBODYS), client)
