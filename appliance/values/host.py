"""Hosts in addresses: numeric ones of both families, and names."""

import ipaddress
import re
import unicodedata
from typing import Final

from appliance.problem import quoted
from appliance.values.misread import Misread

_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMERIC_END: Final = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?\Z")
"""No host name ends so: the resolver would read 10.1 and 0x7f.1 as IPv4 addresses (inet_aton(3))."""

_MAX_NAME: Final = 253
_IPV4_NUMBERS: Final = 4


def ipv4(host: str) -> str | None:
    """Give an IPv4 address in dotted decimal, or None."""
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        return None


def ipv6(host: str) -> ipaddress.IPv6Address | None:
    """Give an IPv6 address, perhaps with its zone, or None."""
    try:
        return ipaddress.IPv6Address(host)
    except ValueError:
        return None


def numeric(text: str, host: str) -> str | None:
    """Give the canonical numeric address, or None where `host` is not one.

    An IPv4-mapped IPv6 address is the IPv4 address it carries: the kernel treats both alike.
    """
    if ":" not in host:
        if (dotted := ipv4(host)) is None and _NUMERIC_END.search(host):
            raise Misread(f"{quoted(text)} has no valid IPv4 address", _ipv4_hint(host))
        return dotted
    address = ipv6(host)
    if address is None:
        raise Misread(
            f"{quoted(text)} has no valid IPv6 address in its brackets", 'write it as in "[2001:db8::5]:80"'
        )
    if address.scope_id is not None:
        return _zoned(text, host, address)
    if address.is_link_local:
        raise Misread(
            f"{quoted(text)} is link-local and does not say on which interface",
            f"add the interface's name: {quoted(f'[{host}%eth0]')}",
        )
    mapped = address.ipv4_mapped
    return str(address if mapped is None else mapped)


def _ipv4_hint(host: str) -> str:
    numbers = host.split(".")
    if host.isdigit():
        return 'an address stands before the colon, such as "10.0.0.5:80"'
    if any(re.fullmatch("0[0-9]+", number) for number in numbers):
        return "write it as in 10.0.0.5: no leading zeros"
    if len(numbers) == _IPV4_NUMBERS and all(number.isdigit() for number in numbers):
        return "each of its four numbers goes up to 255"
    return "write four numbers from 0 to 255 with dots between, as in 10.0.0.5"


def _zoned(text: str, host: str, address: ipaddress.IPv6Address) -> str:
    if not address.is_link_local:
        bare = host.partition("%")[0]
        raise Misread(
            f"{quoted(text)} names an interface, which only link-local addresses (fe80::/10) have",
            f"write {quoted(f'[{bare}]')}",
        )
    if not _ZONE.fullmatch(address.scope_id or ""):
        raise Misread(
            f"{quoted(text)} has no valid interface name after its %",
            "at most 15 letters, digits, dots, hyphens and underscores",
        )
    return str(address)


def host_name(text: str, host: str) -> str:
    """Check a host name (RFC 1123, and the underscore that DNS names have in practice); lower its case."""
    if not host.isascii():
        raise Misread(f"{quoted(text)} has a name outside ASCII", _ascii_hint(host))
    for label in host.removesuffix(".").split("."):
        if not _LABEL.fullmatch(label):
            raise Misread(
                f"{quoted(text)} has no valid host name: {quoted(label)}",
                "each part has 1 to 63 letters, digits, hyphens and underscores, and no hyphen at its ends",
            )
    if len(host.removesuffix(".")) > _MAX_NAME:
        raise Misread(
            f"{quoted(text)} has a host name of {len(host)} characters", f"DNS names have {_MAX_NAME} at most"
        )
    return host.lower()


def _ascii_hint(host: str) -> str:
    labels = [_ascii_label(label) for label in host.split(".")]
    name = ".".join(labels)
    if len(host) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        return "write the name in its xn-- form"
    return f"write the name in its xn-- form: {quoted(name)}"


def _ascii_label(label: str) -> str:
    """Encode one label as IDNA 2008 does a valid one (RFC 5891): lower case, NFC, Punycode."""
    if label.isascii():
        return label
    if any(unicodedata.category(char)[0] not in "LMN" for char in label if char not in "-_"):
        return ""
    try:
        return "xn--" + unicodedata.normalize("NFC", label.lower())[:64].encode("punycode").decode("ascii")
    except UnicodeError:
        return ""
