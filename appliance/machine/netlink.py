"""rtnetlink messages (rtnetlink(7)): built from values and read into values. Bytes only, no socket."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Final

Interface = IPv4Interface | IPv6Interface


class Kind(IntEnum):
    """The type of a message (linux/rtnetlink.h)."""

    ERROR = 2
    DONE = 3
    NEW_LINK = 16
    DEL_LINK = 17
    GET_LINK = 18
    NEW_ADDRESS = 20
    DEL_ADDRESS = 21
    GET_ADDRESS = 22
    NEW_ROUTE = 24
    DEL_ROUTE = 25
    ND_USER_OPTION = 68


REQUEST: Final = 0x1
ACK: Final = 0x4
REPLACE: Final = 0x100
DUMP: Final = 0x300
CREATE: Final = 0x400

_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBi")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ND: Final = struct.Struct("=BxHiBBxxxxxx")
_ATTRIBUTE: Final = struct.Struct("=HH")

_IFF_UP: Final = 1
_IFF_RUNNING: Final = 0x40
_IFF_LOOPBACK: Final = 8
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_TENTATIVE: Final = 0x40
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU = 1, 3, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_MAIN, _STATIC, _UNICAST = 254, 4, 1
_GLOBAL, _LINK_SCOPE = 0, 253
_ONLINK: Final = 4
_RDNSS: Final = 25


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface."""

    index: int
    name: str
    mac: str
    is_up: bool
    has_carrier: bool
    is_loopback: bool
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """An address of an interface. A tentative one is not usable yet (RFC 4862, 5.4)."""

    index: int
    interface: Interface
    is_tentative: bool = False
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class NameServers:
    """What a router says of name servers (RFC 8106): addresses, and for how many seconds."""

    index: int
    servers: tuple[str, ...]
    lifetime: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a request: 0, or what errno it failed with."""

    error: int


Message = Link | Address | NameServers | Answer

# -- building -----------------------------------------------------------------------------------------


def _message(kind: Kind, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def dump(kind: Kind) -> bytes:
    """Ask for every link or address."""
    return _message(kind, DUMP, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0))


def set_up(index: int, mtu: int | None = None) -> bytes:
    """Bring an interface up, with this MTU if one is given."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP)
    if mtu is not None:
        body += _attribute(_IFLA_MTU, struct.pack("=I", mtu))
    return _message(Kind.NEW_LINK, ACK, body)


def set_address(index: int, interface: Interface) -> bytes:
    """Give an interface an address."""
    return _message(Kind.NEW_ADDRESS, ACK | CREATE | REPLACE, _address(index, interface))


def drop_address(index: int, interface: Interface) -> bytes:
    """Take an address away from an interface."""
    return _message(Kind.DEL_ADDRESS, ACK, _address(index, interface))


def _address(index: int, interface: Interface) -> bytes:
    packed, network = interface.ip.packed, interface.network
    body = _ADDRESS.pack(_family(interface.version), network.prefixlen, 0, _GLOBAL, index)
    body += _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
    if interface.version == 4 and network.prefixlen < 31:  # noqa: PLR2004  RFC 3021: no broadcast in a /31
        body += _attribute(_IFA_BROADCAST, network.broadcast_address.packed)
    return body


def set_route(index: int, destination: Interface, gateway: str | None, metric: int = 0) -> bytes:
    """Send what is for a network through a gateway, or straight to the interface.

    The gateway need not be in a network of the interface (clouds give a /32): hence RTNH_F_ONLINK.
    """
    network = destination.network
    scope = _GLOBAL if gateway or destination.version == 6 else _LINK_SCOPE  # noqa: PLR2004  the format's own
    flags = _ONLINK if gateway else 0
    body = _ROUTE.pack(
        _family(destination.version), network.prefixlen, 0, 0, _MAIN, _STATIC, scope, _UNICAST, flags
    )
    if network.prefixlen:
        body += _attribute(_RTA_DST, network.network_address.packed)
    if gateway:
        body += _attribute(_RTA_GATEWAY, ip_address(gateway).packed)
    body += _attribute(_RTA_OIF, struct.pack("=i", index))
    if metric:
        body += _attribute(_RTA_PRIORITY, struct.pack("=I", metric))
    return _message(Kind.NEW_ROUTE, ACK | CREATE | REPLACE, body)


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004  the IP version


# -- reading ------------------------------------------------------------------------------------------


def read_messages(data: bytes) -> Iterator[Message]:
    """Read what one datagram of the kernel holds; kinds that are not known here are left out."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size or at + size > len(data):
            return
        message = _read(kind, data[at + _HEADER.size : at + size])
        if message is not None:
            yield message
        at += (size + 3) & ~3


def _read(kind: int, body: bytes) -> Message | None:
    match kind:
        case Kind.DONE:
            return Answer(0)
        case Kind.ERROR:
            return Answer(-struct.unpack_from("=i", body)[0])
        case Kind.NEW_LINK | Kind.DEL_LINK:
            return _read_link(body, is_gone=kind == Kind.DEL_LINK)
        case Kind.NEW_ADDRESS | Kind.DEL_ADDRESS:
            return _read_address(body, is_gone=kind == Kind.DEL_ADDRESS)
        case Kind.ND_USER_OPTION:
            return _read_name_servers(body)
        case _:
            return None


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    found = {}
    while at + _ATTRIBUTE.size <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, at)
        if size < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = body[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
    return found


def _read_link(body: bytes, *, is_gone: bool) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = _attributes(body, _LINK.size)
    return Link(
        index,
        found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("ascii", "replace"),
        found.get(_IFLA_ADDRESS, b"").hex(":"),
        bool(flags & _IFF_UP),
        bool(flags & _IFF_RUNNING),
        bool(flags & _IFF_LOOPBACK),
        is_gone,
    )


def _read_address(body: bytes, *, is_gone: bool) -> Address | None:
    _, prefix, flags, _, index = _ADDRESS.unpack_from(body)
    found = _attributes(body, _ADDRESS.size)
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if packed is None:
        return None
    if _IFA_FLAGS in found:
        (flags,) = struct.unpack("=I", found[_IFA_FLAGS])
    interface = ip_interface(f"{ip_address(packed)}/{prefix}")
    return Address(index, interface, bool(flags & _IFA_F_TENTATIVE), is_gone)


def _read_name_servers(body: bytes) -> NameServers | None:
    """Read the RDNSS option of a router advertisement, as the kernel hands it on."""
    _, size, index, _, _ = _ND.unpack_from(body)
    option = body[_ND.size : _ND.size + size]
    if len(option) < 24 or option[0] != _RDNSS:  # noqa: PLR2004  its head and one address
        return None
    (lifetime,) = struct.unpack_from("!I", option, 4)
    end = min(len(option), option[1] * 8)
    servers = tuple(str(ip_address(option[at : at + 16])) for at in range(8, end - 15, 16))
    return NameServers(index, servers, lifetime)
