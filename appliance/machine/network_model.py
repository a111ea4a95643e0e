"""What network.toml may say. Decoding, messages and the reference page are made from this."""

import re
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import Annotated, Final, Self

from msgspec import UNSET, Meta, Struct, UnsetType

from appliance.problem import quoted
from appliance.ruleset.finding import found
from appliance.values import Misread

_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")


def _text(raw: object, wants: str) -> str:
    if not isinstance(raw, str):
        raise Misread(f"wants {wants}, found {found(raw)}")
    return raw


class HostName(str):
    """A host name (RFC 1123), perhaps with its domain."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        text = _text(raw, "a host name in quotes")
        if len(text) > 64 or not all(_LABEL.fullmatch(label) for label in text.split(".")):  # noqa: PLR2004  the format's own
            raise Misread(f"{quoted(text)} is no host name", "letters, digits and hyphens, as in gateway-1")
        return cls(text)


class InterfaceName(str):
    """A network interface's name."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        text = _text(raw, "an interface's name in quotes")
        if not _NAME.fullmatch(text):
            raise Misread(f"{quoted(text)} is no interface's name", 'the first one is "eth0"')
        return cls(text)


class Mac(str):
    """A hardware address."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        text = _text(raw, "a hardware address in quotes")
        if not _MAC.fullmatch(text):
            raise Misread(f"{quoted(text)} is no hardware address", 'write it as in "52:54:00:12:34:56"')
        return cls(text.lower())


class Host(str):
    """A server: an address or a host name."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        text = _text(raw, "an address or a host name in quotes")
        try:
            return cls(ip_address(text))
        except ValueError:
            pass
        if text.replace(".", "").isdigit() or not all(_LABEL.fullmatch(label) for label in text.split(".")):
            raise Misread(f"{quoted(text)} is neither an address nor a host name", 'such as "192.0.2.1"')
        return cls(text)


class Server(str):
    """A server's address."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        text = _text(raw, "an address in quotes")
        try:
            return cls(ip_address(text))
        except ValueError:
            raise Misread(f"{quoted(text)} is no address", 'such as "192.0.2.1"') from None


class Gateway4(str):
    """An IPv4 router's address."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        text = _text(raw, "an IPv4 address in quotes")
        try:
            return cls(IPv4Address(text))
        except ValueError:
            raise Misread(f"{quoted(text)} is no IPv4 address", 'such as "192.0.2.1"') from None


class Gateway6(str):
    """An IPv6 router's address."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        text = _text(raw, "an IPv6 address in quotes")
        try:
            return cls(IPv6Address(text))
        except ValueError:
            raise Misread(f"{quoted(text)} is no IPv6 address", 'such as "fe80::1"') from None


class Way4(str):
    """How an interface gets its IPv4 address: dhcp, off, or the address itself with its network's length."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        text = _text(raw, '"dhcp", "off" or an address with its network')
        if text in {"dhcp", "off"}:
            return cls(text)
        try:
            address = IPv4Interface(text)
        except ValueError:
            address = None
        if address is None or "/" not in text:
            raise Misread(
                f'{quoted(text)} is neither "dhcp", "off" nor an address with its network',
                f'such as "{text}/24"' if address else 'such as "192.0.2.5/24"',
            )
        return cls(address)

    @property
    def static(self) -> IPv4Interface | None:
        """The address that is given here."""
        return None if self in {"dhcp", "off"} else IPv4Interface(self)


class Way6(str):
    """How an interface gets its IPv6 addresses: auto, off, or an address with its network's length."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        text = _text(raw, '"auto", "off" or an address with its network')
        if text in {"auto", "off"}:
            return cls(text)
        try:
            address = IPv6Interface(text)
        except ValueError:
            address = None
        if address is None or "/" not in text:
            raise Misread(
                f'{quoted(text)} is neither "auto", "off" nor an address with its network',
                f'such as "{text}/64"' if address else 'such as "2001:db8::5/64"',
            )
        return cls(address)

    @property
    def static(self) -> IPv6Interface | None:
        """The address that is given here."""
        return None if self in {"auto", "off"} else IPv6Interface(self)


CUSTOM: Final = (HostName, InterfaceName, Mac, Host, Server, Gateway4, Gateway6, Way4, Way6)


def decode_custom(kind: type, raw: object) -> object:
    """Decode the types msgspec does not know (its `dec_hook`)."""
    for custom in CUSTOM:
        if kind is custom:
            return custom.read(raw)
    raise NotImplementedError(kind)


class InterfaceTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One interface; without `name` and `mac`, every interface that no other table is for."""

    name: Annotated[
        InterfaceName | UnsetType,
        Meta(description="The interface's name.", examples=["eth0"], extra={"wants": "a name"}),
    ] = UNSET
    mac: Annotated[
        Mac | UnsetType,
        Meta(
            description="Its hardware address.",
            examples=["52:54:00:12:34:56"],
            extra={"wants": "a hardware address"},
        ),
    ] = UNSET
    ipv4: Annotated[
        Way4,
        Meta(
            description="Its IPv4 address: by DHCP, none, or this one.",
            examples=["dhcp", "off", "192.0.2.5/24"],
            extra={"wants": '"dhcp", "off" or an address with its network'},
        ),
    ] = Way4("dhcp")
    gateway4: Annotated[
        Gateway4 | UnsetType,
        Meta(
            description="The IPv4 default router, where `ipv4` is an address.",
            examples=["192.0.2.1"],
            extra={"wants": "an IPv4 address"},
        ),
    ] = UNSET
    ipv6: Annotated[
        Way6,
        Meta(
            description="Its IPv6 addresses: as routers advertise them (SLAAC), none, or this one.",
            examples=["auto", "off", "2001:db8::5/64"],
            extra={"wants": '"auto", "off" or an address with its network'},
        ),
    ] = Way6("auto")
    gateway6: Annotated[
        Gateway6 | UnsetType,
        Meta(
            description="The IPv6 default router, where `ipv6` is an address; left out: as advertised.",
            examples=["2001:db8::1", "fe80::1"],
            extra={"wants": "an IPv6 address"},
        ),
    ] = UNSET
    dns: Annotated[
        tuple[Server, ...],
        Meta(
            description="Name servers, before those that DHCP and routers name.",
            examples=[["192.0.2.53"]],
            extra={"wants": "a list of addresses"},
        ),
    ] = ()
    ntp: Annotated[
        tuple[Host, ...],
        Meta(
            description="Time servers, instead of those that DHCP names.",
            examples=[["ntp.example.net"]],
            extra={"wants": "a list of addresses or host names"},
        ),
    ] = ()
    mtu: Annotated[
        Annotated[int, Meta(ge=576, le=65535)] | UnsetType,
        Meta(
            description="The largest packet; left out: as DHCP says, or the driver.",
            examples=[1500],
            extra={"wants": "a whole number from 576 to 65535"},
        ),
    ] = UNSET


class NetworkFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The network of a Portway machine."""

    hostname: Annotated[
        HostName | UnsetType,
        Meta(
            description="The machine's name; left out: as DHCP says, or portway.",
            examples=["gateway-1"],
            extra={"wants": "a host name"},
        ),
    ] = UNSET
    interface: tuple[InterfaceTable, ...] = ()


def for_interface(network: NetworkFile, name: str, mac: str) -> InterfaceTable:
    """Give what the file says of an interface: by name or mac, else for all others, else the defaults."""
    for table in network.interface:
        if table.name == name or table.mac == mac:
            return table
    general = (table for table in network.interface if table.name is UNSET and table.mac is UNSET)
    return next(general, InterfaceTable())
