"""What an agent may reach: `192.168.1.0/24:22`, `[2001:db8::]/64:1-1024`, `db.internal:5432`, a path."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from appliance.problem import quoted
from appliance.values.address import MAX_PORT, TargetAddress, parse_ports, refuse_spaces, split_host
from appliance.values.host import host_name, ipv6, numeric
from appliance.values.misread import Misread

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_EXAMPLE: Final = "192.168.1.0/24:22"
_NETWORK: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]/:]+)/(?P<length>[^/:]*)(?::(?P<ports>.*))?")
_NO_BRACKETS: Final = re.compile(r"(?P<host>[0-9A-Fa-f:.]+)/(?P<length>[0-9]{1,3})(?P<ports>:.*)?")
_WITHIN: Final = re.compile(r"\[(?P<host>[^\[\]/]*)/(?P<length>[0-9]{1,3})\](?P<ports>:.*)?")
"""Two ways to write an IPv6 network that are not ours."""

_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,2}")
_MAPPED: Final = 96
"""The prefix length of the IPv6 addresses that stand for IPv4 ones (RFC 4291, 2.5.5.2)."""

_IPV6: Final = 6


@dataclass(frozen=True, slots=True)
class AllowedTarget:
    """A network, a host name or a unix socket's path, and a range of ports, both ends included."""

    network: Network | None = None
    name: str = ""
    path: str = ""
    first_port: int = 0
    last_port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = self.name if self.network is None else _network_text(self.network)
        if (self.first_port, self.last_port) == (1, MAX_PORT):
            return f"{host}:*"
        last = "" if self.last_port == self.first_port else f"-{self.last_port}"
        return f"{host}:{self.first_port}{last}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one of the forms above; a port may be `*`, which is all of them. Raises Misread.

        An address without a prefix length is that one address. An IPv4-mapped IPv6 network is the IPv4
        network that it stands for, as in the addresses to dial.
        """
        if text.startswith("unix:"):
            return cls(path=TargetAddress.parse(text).path)
        match = _NETWORK.fullmatch(text)
        if match is None:
            return cls._of_host(text)
        refuse_spaces(text)
        if match["ports"] is None:
            raise Misread(
                f"{quoted(text)} has no port", f"write {quoted(f'{text}:*')}, or the port that is meant"
            )
        first, last = _ports(text, match["ports"])
        network = _network(text, match["host"], match["length"], match["ports"])
        return cls(network=network, first_port=first, last_port=last)

    @classmethod
    def _of_host(cls, text: str) -> Self:
        """Read what has no prefix length: one address, or a name."""
        if other := _NO_BRACKETS.fullmatch(text) or _WITHIN.fullmatch(text):
            meant = f"[{other['host']}]/{other['length']}{other['ports'] or ':*'}"
            raise Misread(
                f"{quoted(text)} has no brackets around the address alone", f"write {quoted(meant)}"
            )
        host, ports = split_host(text, example=_EXAMPLE)
        first, last = _ports(text, ports)
        if host in {"", "*"}:
            raise Misread(
                f"{quoted(text)} has no host",
                f"write {quoted(f'0.0.0.0/0:{ports}')} and {quoted(f'[::]/0:{ports}')} for every address",
            )
        address = _written(text, host)
        if address is None:
            return cls(name=host_name(text, host), first_port=first, last_port=last)
        network = _unmapped(ipaddress.ip_network(address))
        if network.network_address.is_unspecified:
            every = "[::]/0" if network.version == _IPV6 else "0.0.0.0/0"
            raise Misread(
                f"{quoted(text)} cannot be dialled: it stands for every address of a host",
                f"write {quoted(f'{every}:{ports}')} for every address of its family",
            )
        return cls(network=network, first_port=first, last_port=last)

    def allows(self, target: TargetAddress) -> bool:
        """Say whether all of a target is within this. A name is within no network.

        So who resolved a name that is not allowed by itself asks again with the address it leads to.
        """
        if target.path or self.path:
            return target.path == self.path
        return self._has_host(target) and self.first_port <= target.first_port <= target.last_port <= (
            self.last_port
        )

    def _has_host(self, target: TargetAddress) -> bool:
        if target.is_name or self.network is None:
            return target.is_name and target.host == self.name
        address = ipaddress.ip_address(target.host.partition("%")[0])
        # A resolver may give an IPv4-mapped address, and it is over IPv4 that the kernel dials it.
        address = getattr(address, "ipv4_mapped", None) or address
        # Who dials 0.0.0.0 or :: gets to the host itself, whatever network that is in.
        return not address.is_unspecified and address in self.network

    def may_allow(self, target: TargetAddress) -> bool:
        """Say whether any port of a target may be within this: where a name leads is not known here."""
        if target.path or self.path:
            return target.path == self.path
        return (target.is_name and self.network is not None) or self._has_host(target)


def uncovered(target: TargetAddress, allowed: Iterable[AllowedTarget]) -> int | None:
    """Give the first port of a target that no part of `allowed` can allow; 0 for a unix socket; or None.

    A name is taken to be in every network, since only who resolves it knows.
    """
    port = target.first_port
    around = sorted((part.first_port, part.last_port) for part in allowed if part.may_allow(target))
    if target.path:
        return None if around else 0
    for first, last in around:
        if first <= port <= last:
            port = last + 1
    return port if port <= target.last_port else None


def _network_text(network: Network) -> str:
    address = network.network_address
    host = f"[{address}]" if network.version == _IPV6 else str(address)
    is_one = network.prefixlen == network.max_prefixlen and not address.is_unspecified
    return host if is_one else f"{host}/{network.prefixlen}"


def _ports(text: str, ports: str) -> tuple[int, int]:
    return (1, MAX_PORT) if ports == "*" else parse_ports(text, ports, lowest=1)


def _network(text: str, host: str, length_text: str, ports: str) -> Network:
    bare = host.strip("[]")
    if host != bare and ":" not in bare:
        meant = quoted(f"{bare}/{length_text}:{ports}")
        raise Misread(f"{quoted(text)} has brackets around what is not an IPv6 address", f"write {meant}")
    address = _written(text, bare)
    if address is None:
        hint = f"write {quoted(f'{bare}:{ports}')}, or an address before the /"
        raise Misread(f"{quoted(text)} has a prefix length after a name", hint)
    if not _LENGTH.fullmatch(length_text) or int(length_text) > address.max_prefixlen:
        what = f"{quoted(text)}: {quoted(length_text)} is no prefix length"
        raise Misread(what, _length_hint(host, length_text, ports, address.max_prefixlen))
    network = ipaddress.ip_network(f"{address}/{length_text}", strict=False)
    if network.network_address != address:
        one = ipaddress.ip_network(address)
        around, alone = (quoted(f"{_network_text(_unmapped(net))}:{ports}") for net in (network, one))
        hint = f"write {around} for the network, or {alone} for the one address"
        raise Misread(f"{quoted(text)} has bits set beyond its /{length_text}", hint)
    return _unmapped(network)


def _written(text: str, host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Give the address that `host` is as it stands, or None for a name."""
    if ":" not in host:
        literal = numeric(text, host)
        return None if literal is None else ipaddress.IPv4Address(literal)
    address = ipv6(host)
    if address is None:
        what = f"{quoted(text)} has no valid IPv6 address in its brackets"
        raise Misread(what, 'write it as in "[2001:db8::]/64:22"')
    if address.scope_id is not None:
        hint = f"leave %{address.scope_id} out: it holds on every interface"
        raise Misread(f"{quoted(text)} names an interface, which what is allowed does not", hint)
    return address


def _unmapped(network: Network) -> Network:
    """Give the IPv4 network that an IPv4-mapped IPv6 one stands for, and any other as it is."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED:
        return network
    return ipaddress.IPv4Network(f"{mapped}/{network.prefixlen - _MAPPED}")


def _length_hint(host: str, length: str, ports: str, longest: int) -> str:
    """Say what to write for a prefix length; where it is a netmask, which length that is."""
    try:
        network = ipaddress.IPv4Network(f"{host}/{length}", strict=False)
    except ValueError:
        return f"write a number from 0 to {longest}"
    return f"write {quoted(f'{_network_text(network)}:{ports}')}"
