"""PROXY protocol: what is sent to an endpoint first, so that it learns who the client is.

Version 1 is a line of text, version 2 a binary header that can hold more: the session's id as the unique id
of the connection. Source: github.com/haproxy/haproxy, doc/proxy-protocol.txt (2020-03-05).
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from appliance.ruleset import ProxyProtocol
from appliance.values import MAX_PORT

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""Of version 2: twelve bytes that begin nothing else."""

UNKNOWN: Final = b"PROXY UNKNOWN\r\n"

_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_UNSPECIFIED: Final = 0x00
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNIQUE_ID: Final = 0x05
_LONGEST_ID: Final = 128

_TEXT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})(?:%[^\]]{1,32})?\]|([0-9.]{7,15})):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class _Ends:
    """Both ends of a client's connection, in one family."""

    client: IPv4Address | IPv6Address
    client_port: int
    local: IPv4Address | IPv6Address
    local_port: int


def header(version: ProxyProtocol, client: str, local: str, session: str) -> bytes:
    """Give the header of a TCP session.

    `client` and `local` are the two ends of the client's connection as the log writes addresses. Where either
    is none, as those of a unix socket, the endpoint is told that it is not known: UNKNOWN in version 1, and
    LOCAL in version 2, which every receiver must take (2.2). `session` is its id, of which version 1 says
    nothing.
    """
    ends = _ends(client, local)
    return _v1(ends) if version is ProxyProtocol.V1 else _v2(ends, session)


def _v1(ends: _Ends | None) -> bytes:
    if ends is None:
        return UNKNOWN
    addresses = f"{_text(ends.client)} {_text(ends.local)}"
    ports = f"{ends.client_port} {ends.local_port}"
    return f"PROXY TCP{ends.client.version} {addresses} {ports}\r\n".encode("ascii")


def _v2(ends: _Ends | None, session: str) -> bytes:
    unique = session.encode(errors="replace")[:_LONGEST_ID]
    said = bytes((_UNIQUE_ID,)) + len(unique).to_bytes(2, "big") + unique if unique else b""
    if ends is None:
        return _v2_header(_LOCAL, _UNSPECIFIED, said)
    family = _TCP4 if ends.client.version == 4 else _TCP6  # noqa: PLR2004  the protocol's version
    ports = ends.client_port.to_bytes(2, "big") + ends.local_port.to_bytes(2, "big")
    return _v2_header(_PROXY, family, ends.client.packed + ends.local.packed + ports + said)


def _v2_header(command: int, family: int, content: bytes) -> bytes:
    return SIGNATURE + bytes((command, family)) + len(content).to_bytes(2, "big") + content


def _ends(client: str, local: str) -> _Ends | None:
    """Read both addresses; one of each family is said in IPv6, where IPv4 has a place (::ffff:0:0/96)."""
    here, there = _address(client), _address(local)
    if here is None or there is None:
        return None
    (one, one_port), (other, other_port) = here, there
    if one.version != other.version:
        one, other = _as_ipv6(one), _as_ipv6(other)
    return _Ends(one, one_port, other, other_port)


def _address(text: str) -> tuple[IPv4Address | IPv6Address, int] | None:
    match = _TEXT.fullmatch(text)
    if match is None or (port := int(match[3])) > MAX_PORT:
        return None
    try:
        if match[2]:
            return IPv4Address(match[2]), port
        address = IPv6Address(match[1])
    except ValueError:
        return None
    return address.ipv4_mapped or address, port


def _as_ipv6(address: IPv4Address | IPv6Address) -> IPv6Address:
    """Give an address in IPv6; one that is already stays."""
    return IPv6Address((b"\0" * 10 + b"\xff\xff" + address.packed)[-16:])


def _text(address: IPv4Address | IPv6Address) -> str:
    """Write an address as inet_ntop(3) does; Python does so with a mapped one from 3.13 on."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(address) if mapped is None else f"::ffff:{mapped}"
