"""DHCP messages (RFC 2131, RFC 2132): bytes from values and values from bytes."""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

_HEAD: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE: Final = b"\x63\x82\x53\x63"
_SMALLEST: Final = 300
"""Octets: relays and servers of BOOTP's time drop what is shorter (RFC 1542, 2.1)."""

_BROADCAST: Final = 0x8000
"""Answer by broadcast: a host without an address cannot be reached otherwise through a UDP socket."""

_ETHERNET: Final = 1
_MAC: Final = 6
FOREVER: Final = 0xFFFFFFFF


class MessageType(IntEnum):
    """Option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7


class Option(IntEnum):
    """The options that are asked for or looked at (RFC 2132; 121 is RFC 3442)."""

    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    NAME_SERVER = 6
    HOST_NAME = 12
    DOMAIN = 15
    MTU = 26
    BROADCAST = 28
    NTP = 42
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER = 54
    PARAMETERS = 55
    MAX_SIZE = 57
    T1 = 58
    T2 = 59
    CLIENT_ID = 61
    CLASSLESS_ROUTES = 121
    END = 255


_WANTED: Final = bytes(
    (
        *(Option.SUBNET_MASK, Option.CLASSLESS_ROUTES, Option.ROUTER, Option.NAME_SERVER, Option.HOST_NAME),
        *(Option.DOMAIN, Option.MTU, Option.BROADCAST, Option.NTP, Option.LEASE_TIME, Option.T1, Option.T2),
    )
)


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a lease; a gateway of None is the link itself."""

    destination: IPv4Interface
    gateway: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """What a server grants. Times are seconds from the moment the request was sent; None is for ever."""

    address: IPv4Interface
    server: str
    seconds: float | None
    renew: float
    rebind: float
    routes: tuple[Route, ...] = ()
    name_servers: tuple[str, ...] = ()
    ntp: tuple[str, ...] = ()
    domain: str = ""
    host_name: str = ""
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came from a server: `lease` is that of an offer or an acknowledgement."""

    type: MessageType
    xid: int
    server: str
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Question:
    """What all messages of one exchange have in common. `mac` has 6 octets."""

    mac: bytes
    xid: int
    host_name: str = ""


def build(
    question: Question,
    kind: MessageType,
    *,
    elapsed: float = 0.0,
    own: str = "0.0.0.0",
    requested: str | None = None,
    server: str | None = None,
) -> bytes:
    """Build a message. `own` is this host's address; `requested` and `server` as in RFC 2131, 4.3.2."""
    zero = bytes(4)
    flags = 0 if own != "0.0.0.0" else _BROADCAST
    head = _HEAD.pack(
        *(1, _ETHERNET, _MAC, 0, question.xid, min(int(elapsed), 0xFFFF), flags),
        *(IPv4Address(own).packed, zero, zero, zero, question.mac, b"", b"", _COOKIE),
    )
    options = [(Option.MESSAGE_TYPE, bytes((kind,))), (Option.CLIENT_ID, bytes((_ETHERNET,)) + question.mac)]
    if requested:
        options.append((Option.REQUESTED_ADDRESS, IPv4Address(requested).packed))
    if server:
        options.append((Option.SERVER, IPv4Address(server).packed))
    if kind in {MessageType.DISCOVER, MessageType.REQUEST}:
        options += [(Option.PARAMETERS, _WANTED), (Option.MAX_SIZE, struct.pack("!H", 1500))]
        if question.host_name:
            options.append((Option.HOST_NAME, question.host_name.encode("ascii", "ignore")[:63]))
    body = b"".join(bytes((code, len(value))) + value for code, value in options)
    return (head + body + b"\xff").ljust(_SMALLEST, b"\0")


def read(data: bytes, mac: bytes) -> Reply | None:
    """Read a server's message to this host; None for anything else, however broken."""
    if len(data) < _HEAD.size:
        return None
    op, _, _, _, xid, _, _, _, yours, _, _, hardware, sname, file, cookie = _HEAD.unpack_from(data)
    if op != 2 or cookie != _COOKIE or hardware[:_MAC] != mac:  # noqa: PLR2004  BOOTREPLY
        return None
    options = _options(data[_HEAD.size :], sname, file)
    code = options.get(Option.MESSAGE_TYPE, b"")
    server = _address(options.get(Option.SERVER, b""))
    if len(code) != 1 or code[0] not in tuple(MessageType) or server is None:
        return None
    kind = MessageType(code[0])
    lease = (
        _lease(IPv4Address(yours), server, options) if kind in {MessageType.OFFER, MessageType.ACK} else None
    )
    return Reply(kind, xid, server, lease)


def _options(body: bytes, sname: bytes, file: bytes) -> dict[int, bytes]:
    """Read the options, also those that stand where the boot file's name would be (RFC 2131, 4.1)."""
    found: dict[int, bytes] = {}
    _collect(body, found)
    overload = found.get(Option.OVERLOAD, b"\0")[:1]
    if overload in {b"\1", b"\3"}:
        _collect(file, found)
    if overload in {b"\2", b"\3"}:
        _collect(sname, found)
    return found


def _collect(area: bytes, found: dict[int, bytes]) -> None:
    at = 0
    while at < len(area) and (code := area[at]) != Option.END:
        if code == Option.PAD:
            at += 1
            continue
        if at + 1 >= len(area):
            return
        size = area[at + 1]
        # One that comes in pieces is put together (RFC 3396).
        found[code] = found.get(code, b"") + area[at + 2 : at + 2 + size]
        at += 2 + size


def _lease(address: IPv4Address, server: str, options: dict[int, bytes]) -> Lease | None:
    if address.is_unspecified or address.is_multicast:
        return None
    seconds = _seconds(options.get(Option.LEASE_TIME, b""))
    if not seconds:  # none given, or one that ends as it begins
        return None
    renew = _seconds(options.get(Option.T1, b"")) or seconds * 0.5
    rebind = _seconds(options.get(Option.T2, b"")) or seconds * 0.875
    if not renew < rebind < seconds:
        renew, rebind = seconds * 0.5, seconds * 0.875
    return Lease(
        address=_with_mask(address, options.get(Option.SUBNET_MASK, b"")),
        server=server,
        seconds=None if seconds == FOREVER else seconds,
        renew=renew,
        rebind=rebind,
        routes=_routes(options),
        name_servers=_addresses(options.get(Option.NAME_SERVER, b"")),
        ntp=_addresses(options.get(Option.NTP, b"")),
        domain=_name(options.get(Option.DOMAIN, b"")),
        host_name=_name(options.get(Option.HOST_NAME, b"")),
        mtu=_mtu(options.get(Option.MTU, b"")),
    )


def _with_mask(address: IPv4Address, mask: bytes) -> IPv4Interface:
    """Give the address with its mask; without one, or with one that has gaps, that of its class."""
    if len(mask) == 4:  # noqa: PLR2004  an address
        try:
            return IPv4Interface(f"{address}/{IPv4Address(mask)}")
        except ValueError:
            pass
    first = address.packed[0]
    return IPv4Interface(f"{address}/{8 if first < 128 else 16 if first < 192 else 24}")  # noqa: PLR2004  the format's own


def _routes(options: dict[int, bytes]) -> tuple[Route, ...]:
    """Give the routes; where there are classless ones, the router is not looked at (RFC 3442)."""
    if routes := _classless(options.get(Option.CLASSLESS_ROUTES, b"")):
        return routes
    default = IPv4Interface("0.0.0.0/0")
    return tuple(Route(default, router) for router in _addresses(options.get(Option.ROUTER, b""))[:1])


def _classless(value: bytes) -> tuple[Route, ...]:
    routes, at = [], 0
    while at < len(value):
        width = value[at]
        octets = (width + 7) // 8
        part = value[at + 1 : at + 5 + octets]
        if width > 32 or len(part) < octets + 4:  # noqa: PLR2004  bits, and a gateway
            break
        network = IPv4Interface((part[:octets].ljust(4, b"\0"), width))
        gateway = IPv4Address(part[octets:])
        routes.append(Route(network, None if gateway.is_unspecified else str(gateway)))
        at += 5 + octets
    return tuple(routes)


def _address(value: bytes) -> str | None:
    return str(IPv4Address(value)) if len(value) == 4 else None  # noqa: PLR2004  the format's own


def _addresses(value: bytes) -> tuple[str, ...]:
    return tuple(str(IPv4Address(value[at : at + 4])) for at in range(0, len(value) - 3, 4))


def _seconds(value: bytes) -> float | None:
    return float(struct.unpack("!I", value)[0]) if len(value) == 4 else None  # noqa: PLR2004  the format's own


def _mtu(value: bytes) -> int | None:
    """Give the MTU; less than 576 would break what every host must take (RFC 791)."""
    if len(value) != 2:  # noqa: PLR2004  the format's own
        return None
    (mtu,) = struct.unpack("!H", value)
    return int(mtu) if mtu >= 576 else None  # noqa: PLR2004  the format's own


def _name(value: bytes) -> str:
    """Give a name, empty unless each of its characters may be in one: it goes into /etc/resolv.conf."""
    text = value.rstrip(b"\0").decode("ascii", "replace")
    return text if text and all(char.isascii() and (char.isalnum() or char in "-._") for char in text) else ""
