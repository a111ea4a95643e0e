"""DHCP messages, byte by byte."""

import struct
from ipaddress import IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.machine.dhcp_message import (
    FOREVER,
    MessageType,
    Option,
    Question,
    Route,
    build,
    read,
)
from tests.unit.machine.leases import COOKIE, MAC, encoded, options_of, reply, xid_of


def test_a_discover_asks_for_an_answer_by_broadcast() -> None:
    """A host without an address sends a BOOTP request of at least 300 octets with the broadcast flag."""
    message = build(Question(MAC, 0x01020304, "gw"), MessageType.DISCOVER, elapsed=7.9)
    assert len(message) >= 300
    assert message[:4] == bytes((1, 1, 6, 0))
    assert xid_of(message) == 0x01020304
    assert struct.unpack_from("!HH", message, 8) == (7, 0x8000)
    assert message[28:34] == MAC
    options = options_of(message)
    assert options[Option.MESSAGE_TYPE] == b"\x01"
    assert options[Option.HOST_NAME] == b"gw"
    assert options[Option.CLIENT_ID] == b"\x01" + MAC
    assert {1, 3, 6, 12, 15, 26, 42, 51, 58, 59, 121} <= set(options[Option.PARAMETERS])


def test_a_renewal_names_its_address_and_no_server() -> None:
    """RFC 2131, 4.3.6: renewing, ciaddr is set, and neither requested address nor server are sent."""
    message = build(Question(MAC, 1), MessageType.REQUEST, own="192.0.2.50")
    assert struct.unpack_from("!H", message, 10) == (0,)
    assert message[12:16] == bytes((192, 0, 2, 50))
    assert not {Option.REQUESTED_ADDRESS, Option.SERVER} & set(options_of(message))


def test_everything_that_a_lease_says() -> None:
    """Address, times, routers, name servers, time servers, names and MTU are read."""
    data = reply(
        MessageType.ACK,
        9,
        (Option.ROUTER, bytes((192, 0, 2, 1, 192, 0, 2, 2))),
        (Option.NAME_SERVER, bytes((192, 0, 2, 3, 192, 0, 2, 4))),
        (Option.NTP, bytes((192, 0, 2, 5))),
        (Option.DOMAIN, b"example.net\0"),
        (Option.HOST_NAME, b"gateway-1"),
        (Option.MTU, struct.pack("!H", 1400)),
        (Option.T1, struct.pack("!I", 100)),
        (Option.T2, struct.pack("!I", 200)),
    )
    found = read(data, MAC)
    assert found is not None
    assert (found.type, found.xid, found.server) == (MessageType.ACK, 9, "192.0.2.1")
    lease = found.lease
    assert lease is not None
    assert lease.address == IPv4Interface("192.0.2.50/24")
    assert (lease.seconds, lease.renew, lease.rebind) == (1000, 100, 200)
    assert lease.routes == (Route(IPv4Interface("0.0.0.0/0"), "192.0.2.1"),)
    assert (lease.name_servers, lease.ntp) == (("192.0.2.3", "192.0.2.4"), ("192.0.2.5",))
    assert (lease.domain, lease.host_name, lease.mtu) == ("example.net", "gateway-1", 1400)


def test_times_are_made_up_where_the_server_names_none() -> None:
    """Without T1 and T2, or with ones out of order, they are half and seven eighths of the lease."""
    for more in ((), ((Option.T1, struct.pack("!I", 900)), (Option.T2, struct.pack("!I", 800)))):
        found = read(reply(MessageType.ACK, 1, *more), MAC)
        assert found is not None
        assert found.lease is not None
        assert (found.lease.renew, found.lease.rebind) == (500, 875)


def test_a_lease_for_ever() -> None:
    """A lease time of 0xffffffff has no end."""
    found = read(reply(MessageType.ACK, 1, seconds=FOREVER), MAC)
    assert found is not None
    assert found.lease is not None
    assert found.lease.seconds is None


def test_classless_routes_replace_the_router() -> None:
    """Option 121 is read with its packed networks, 0.0.0.0 is the link, and option 3 is not looked at."""
    value = (
        bytes((0, 192, 0, 2, 9))
        + bytes((24, 10, 1, 2, 192, 0, 2, 8))
        + bytes((32, 192, 0, 2, 9, 0, 0, 0, 0))
        + bytes((17, 172, 16))  # cut short
    )
    data = reply(MessageType.ACK, 1, (Option.ROUTER, bytes((192, 0, 2, 1))), (Option.CLASSLESS_ROUTES, value))
    found = read(data, MAC)
    assert found is not None
    assert found.lease is not None
    assert found.lease.routes == (
        Route(IPv4Interface("0.0.0.0/0"), "192.0.2.9"),
        Route(IPv4Interface("10.1.2.0/24"), "192.0.2.8"),
        Route(IPv4Interface("192.0.2.9/32"), None),
    )


def test_options_in_pieces_and_in_the_boot_file_fields() -> None:
    """An option that comes twice is one (RFC 3396), and `file` and `sname` may hold options (52)."""
    data = reply(
        MessageType.ACK,
        1,
        (Option.OVERLOAD, b"\x03"),
        (Option.NAME_SERVER, bytes((192, 0))),
        (Option.NAME_SERVER, bytes((2, 3))),
        file=encoded([(Option.ROUTER, bytes((192, 0, 2, 7)))]) + b"\xff",
        sname=encoded([(Option.DOMAIN, b"a.example")]) + b"\xff",
    )
    found = read(data, MAC)
    assert found is not None
    assert found.lease is not None
    assert found.lease.name_servers == ("192.0.2.3",)
    assert found.lease.routes[0].gateway == "192.0.2.7"
    assert found.lease.domain == "a.example"


@pytest.mark.parametrize("text", [b"evil\nnameserver 6.6.6.6", b"a b", "ü".encode(), b"\xff"])
def test_a_name_that_is_none_is_dropped(text: bytes) -> None:
    """What goes into /etc/resolv.conf has letters, digits, hyphens, dots and underscores only."""
    found = read(reply(MessageType.ACK, 1, (Option.DOMAIN, text), (Option.HOST_NAME, text)), MAC)
    assert found is not None
    assert found.lease is not None
    assert (found.lease.domain, found.lease.host_name) == ("", "")


def test_what_is_for_others_is_not_read() -> None:
    """A request, another host's hardware address, another cookie, no server: None."""
    good = reply(MessageType.OFFER, 1)
    assert read(good, MAC) is not None
    assert read(good, bytes(6)) is None
    assert read(b"\x01" + good[1:], MAC) is None
    assert read(good.replace(COOKIE, b"abcd"), MAC) is None
    assert read(good[:240] + b"\xff", MAC) is None


@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_bytes_are_read_or_not(noise: bytes, cut: int) -> None:
    """Nothing that a network may send raises."""
    read(noise, MAC)
    read((reply(MessageType.ACK, 1)[:-1] + noise)[:cut], MAC)
    read(reply(MessageType.ACK, 1)[:-1] + noise, MAC)


def test_a_lease_of_no_time() -> None:
    """A lease that ends as it begins is none: a client that took it would ask without a pause."""
    offer = read(reply(MessageType.OFFER, 1, seconds=0), MAC)
    assert offer is not None
    assert offer.lease is None
