"""rtnetlink messages against those that iproute2 sends and the kernel gives."""

import struct
from ipaddress import IPv4Interface, IPv6Interface

from hypothesis import given
from hypothesis import strategies as st

from appliance.machine.netlink import (
    Address,
    Answer,
    Interface,
    Kind,
    Link,
    NameServers,
    dump,
    read_messages,
    set_address,
    set_route,
    set_up,
)


def attributes(body: bytes) -> dict[int, bytes]:
    """Take attributes apart."""
    found, at = {}, 0
    while at < len(body):
        size, kind = struct.unpack_from("=HH", body, at)
        found[kind] = body[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def test_up() -> None:
    """Bringing an interface up changes IFF_UP and nothing else, and may set the MTU."""
    message = set_up(2, 1400)
    assert struct.unpack_from("=IHH", message) == (len(message), 16, 0x1 | 0x4)
    assert struct.unpack_from("=BxHiII", message, 16) == (0, 0, 2, 1, 1)
    assert attributes(message[32:]) == {4: struct.pack("=I", 1400)}
    assert attributes(set_up(2)[32:]) == {}


def test_an_address() -> None:
    """An IPv4 address comes with its broadcast, one of a /31 and an IPv6 one without."""
    message = set_address(3, IPv4Interface("192.0.2.5/24"))
    assert struct.unpack_from("=BBBBi", message, 16) == (2, 24, 0, 0, 3)
    packed = bytes((192, 0, 2, 5))
    assert attributes(message[24:]) == {1: packed, 2: packed, 4: bytes((192, 0, 2, 255))}
    assert 4 not in attributes(set_address(3, IPv4Interface("192.0.2.4/31"))[24:])
    six = IPv6Interface("2001:db8::5/64")
    assert attributes(set_address(3, six)[24:]) == {1: six.ip.packed, 2: six.ip.packed}


def test_a_default_route() -> None:
    """A default route has no destination; its gateway may be outside every network of the interface."""
    message = set_route(3, IPv4Interface("0.0.0.0/0"), "192.0.2.1", 100)
    assert struct.unpack_from("=BBBBBBBBI", message, 16) == (2, 0, 0, 0, 254, 4, 0, 1, 4)
    assert attributes(message[28:]) == {
        4: struct.pack("=i", 3),
        5: bytes((192, 0, 2, 1)),
        6: struct.pack("=I", 100),
    }


def test_a_route_to_the_link() -> None:
    """A route without a gateway has the link's scope."""
    message = set_route(3, IPv4Interface("10.1.0.0/16"), None)
    assert struct.unpack_from("=BBBBBBBBI", message, 16) == (2, 16, 0, 0, 254, 4, 253, 1, 0)
    assert attributes(message[28:]) == {1: bytes((10, 1, 0, 0)), 4: struct.pack("=i", 3)}


def kernel(kind: int, body: bytes) -> bytes:
    """A message as the kernel sends it."""
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_reading_links_and_addresses() -> None:
    """Links, addresses (tentative, gone) and the end of an answer are read out of one datagram."""
    link = struct.pack("=BxHiII", 0, 1, 2, 0x1 | 0x40, 0) + attribute(3, b"eth0\0")
    link += attribute(1, bytes.fromhex("525400123456"))
    four = struct.pack("=BBBBi", 2, 24, 0, 0, 2) + attribute(2, bytes((192, 0, 2, 5)))
    six = IPv6Interface("fe80::1/64")
    tentative = struct.pack("=BBBBi", 10, 64, 0, 0, 2) + attribute(1, six.ip.packed)
    tentative += attribute(8, struct.pack("=I", 0x40))
    data = (
        kernel(16, link) + kernel(20, four) + kernel(20, tentative) + kernel(21, four) + kernel(3, bytes(4))
    )
    address: Interface = IPv4Interface("192.0.2.5/24")
    assert list(read_messages(data)) == [
        Link(2, "eth0", "52:54:00:12:34:56", is_up=True, has_carrier=True, is_loopback=False),
        Address(2, address),
        Address(2, six, is_tentative=True),
        Address(2, address, is_gone=True),
        Answer(0),
    ]


def test_a_refusal() -> None:
    """The kernel's negative errno comes out positive."""
    assert list(read_messages(kernel(2, struct.pack("=i", -17) + bytes(16)))) == [Answer(17)]


def test_name_servers_of_a_router() -> None:
    """RDNSS (RFC 8106) as the kernel hands it on: addresses and lifetime."""
    servers = [IPv6Interface("2001:db8::53").ip.packed, IPv6Interface("2001:db8::54").ip.packed]
    option = struct.pack("!BBHI", 25, 5, 0, 600) + b"".join(servers)
    body = struct.pack("=BxHiBBxxxxxx", 10, len(option), 2, 134, 0) + option
    found = list(read_messages(kernel(Kind.ND_USER_OPTION, body)))
    assert found == [NameServers(2, ("2001:db8::53", "2001:db8::54"), 600)]


def test_a_dump_is_asked_for() -> None:
    """A dump is a request with the dump flags."""
    assert struct.unpack_from("=IHH", dump(Kind.GET_ADDRESS)) == (32, 22, 0x301)


@given(st.binary(max_size=64))
def test_what_is_cut_short_ends_the_reading(noise: bytes) -> None:
    """A datagram that ends inside a message, or says nonsense about lengths, gives what came before."""
    link = kernel(3, bytes(4))
    assert next(iter(read_messages(link + noise))) == Answer(0)
    list(read_messages(link + struct.pack("=IHHII", 8, 16, 0, 0, 0) + noise))
