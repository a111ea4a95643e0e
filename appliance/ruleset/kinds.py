"""The kinds of values that msgspec does not know, each read from what TOML has for it, or a Misread."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Final, Generic, Self, TypeVar

from appliance.problem import quoted
from appliance.ruleset.finding import Path, found
from appliance.values import (
    MAX_DURATION,
    MAX_PORT,
    MAX_SIZE,
    AllowedTarget,
    ListenAddress,
    Misread,
    TargetAddress,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from appliance.values.admin import DEFAULT_ADMIN, parse_admin
from appliance.values.directory import parse_directory

A = TypeVar("A", ListenAddress, TargetAddress, AllowedTarget)

DEFAULT_STATE: Final = "/var/lib/portway"
"""Where a gateway with a tunnel keeps what it has to remember, in examples."""

_PLAIN_SECONDS: Final = 1_000_000


class Duration(float):
    """Seconds, written with units: `5s`, `1h30m`, `1d`. A kind with narrower bounds is a subclass."""

    __slots__ = ()
    shortest: ClassVar[float] = 0.001
    longest: ClassVar[float] = MAX_DURATION

    def __str__(self) -> str:
        return format_duration(self)

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        if not isinstance(raw, str):
            is_count = isinstance(raw, int) and not isinstance(raw, bool) and 0 < raw <= _PLAIN_SECONDS
            hint = f'write "{raw}s"' if is_count else 'write "5s"'
            raise Misread(f"wants a duration in quotes, found {found(raw)}", hint)
        seconds = parse_duration(raw)
        if seconds < cls.shortest:
            hint = f"the shortest here is {format_duration(cls.shortest)}"
            raise Misread(f"{quoted(raw)} is too short", hint)
        if seconds > cls.longest:
            raise Misread(f"{quoted(raw)} is too long", f"the longest here is {format_duration(cls.longest)}")
        return cls(seconds)


class Heartbeat(Duration):
    """How often both ends of a control channel speak."""

    __slots__ = ()
    shortest = 0.2
    longest = 60.0


class Size(int):
    """Bytes, written with units: `4MiB`, `512kB`, `4096B`. A kind with narrower bounds is a subclass."""

    __slots__ = ()
    smallest: ClassVar[int] = 1
    largest: ClassVar[int] = MAX_SIZE

    def __str__(self) -> str:
        return format_size(self)

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        if not isinstance(raw, str):
            is_count = isinstance(raw, int) and not isinstance(raw, bool) and 0 < raw <= MAX_SIZE
            hint = f'write "{raw}B"' if is_count else 'write "4MiB"'
            raise Misread(f"wants a size in quotes, found {found(raw)}", hint)
        size = parse_size(raw)
        if size < cls.smallest:
            raise Misread(f"{quoted(raw)} is too small", f"the smallest here is {format_size(cls.smallest)}")
        if size > cls.largest:
            raise Misread(f"{quoted(raw)} is too large", f"the largest here is {format_size(cls.largest)}")
        return cls(size)


class BufferSize(Size):
    """What the kernel may hold for a socket."""

    __slots__ = ()
    smallest = 4 << 10
    largest = 1 << 30


class AdminAddress(str):
    """Where the admin socket is: an absolute path, or `@`."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        if not isinstance(raw, str):
            raise Misread(f"wants a path in quotes, found {found(raw)}", f'write "{DEFAULT_ADMIN}"')
        return cls(parse_admin(raw))


class StateDirectory(str):
    """The absolute path of a directory, without a slash at its end."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        if not isinstance(raw, str):
            raise Misread(f"wants a path in quotes, found {found(raw)}", f'write "{DEFAULT_STATE}"')
        return cls(parse_directory(raw, example=DEFAULT_STATE))


@dataclass(frozen=True, slots=True)
class Notation(Generic[A]):
    """A notation of addresses: what reads one, or raises Misread; host and port of an example."""

    parse: Callable[[str], A]
    host: str
    port: int

    def hint(self, raw: object) -> str:
        """Say what to write instead of what is no text: with the same port, if it is one."""
        is_port = isinstance(raw, int) and not isinstance(raw, bool) and 0 < raw <= MAX_PORT
        return f'write "{self.host}:{raw if is_port else self.port}"'

    def misreads(self, raw: object) -> Iterator[tuple[Path, Misread]]:
        """Give what is wrong with each address of a string or list, with its path below the key."""
        return ((below, read) for below, read in each_address(self, raw) if isinstance(read, Misread))


def _tunnel_listener(text: str) -> ListenAddress:
    address = ListenAddress.parse(text)
    if address.path:
        hint = 'agents dial from elsewhere: write an address and a port, such as ":7443"'
        raise Misread(f"{quoted(text)} is a unix socket, where agents come in over TCP", hint)
    if "-" in text.rpartition(":")[2]:
        hint = f"agents dial one port: write {quoted(str(replace(address, last_port=address.first_port)))}"
        raise Misread(f"{quoted(text)} is a range of ports", hint)
    return address


LISTENERS: Final = Notation(ListenAddress.parse, "", 80)
TARGETS: Final = Notation(TargetAddress.parse, "10.0.0.5", 80)
TUNNEL_LISTENERS: Final = Notation(_tunnel_listener, "", 7443)
ALLOWED_TARGETS: Final = Notation(AllowedTarget.parse, "192.168.1.0/24", 22)


class ListenAddresses(tuple[ListenAddress, ...]):
    """An address to listen on, or a list of them."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise the first Misread."""
        return cls(_whole(LISTENERS, raw))


class TunnelAddresses(tuple[ListenAddress, ...]):
    """An address where agents come in, or a list of them: one TCP port each."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise the first Misread."""
        return cls(_whole(TUNNEL_LISTENERS, raw))


class TargetAddresses(tuple[TargetAddress, ...]):
    """An endpoint's address, or a list of them."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise the first Misread."""
        return cls(_whole(TARGETS, raw))


class AllowedTargets(tuple[AllowedTarget, ...]):
    """What an agent may reach: a network, address, name or path with its ports, or a list of them."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise the first Misread."""
        return cls(_whole(ALLOWED_TARGETS, raw))


def each_address(notation: Notation[A], raw: object) -> Iterator[tuple[Path, A | Misread]]:
    """Give every address of a string or list, or what is wrong with it, with its path below the key."""
    if not isinstance(raw, list):
        yield (), _address(notation, raw)
    elif not raw:
        yield (), Misread("wants at least one address, found an empty array", notation.hint(raw))
    for index, element in enumerate(raw if isinstance(raw, list) else ()):
        yield (index,), _address(notation, element)


def _address(notation: Notation[A], raw: object) -> A | Misread:
    if not isinstance(raw, str):
        return Misread(f"wants an address in quotes, found {found(raw)}", notation.hint(raw))
    try:
        return notation.parse(raw)
    except Misread as misread:
        return misread


def _whole(notation: Notation[A], raw: object) -> Iterator[A]:
    for _, address in each_address(notation, raw):
        if isinstance(address, Misread):
            raise address
        yield address


NOTATIONS: Final[
    Mapping[type, Notation[ListenAddress] | Notation[TargetAddress] | Notation[AllowedTarget]]
] = MappingProxyType(
    {
        ListenAddresses: LISTENERS,
        TunnelAddresses: TUNNEL_LISTENERS,
        TargetAddresses: TARGETS,
        AllowedTargets: ALLOWED_TARGETS,
    }
)
"""The notations of those kinds of which there may be one or a list."""

CUSTOM: Final = (
    *(Duration, Heartbeat, BufferSize, AdminAddress, StateDirectory),
    *(ListenAddresses, TunnelAddresses, TargetAddresses, AllowedTargets),
)


def decode_custom(kind: type, raw: object) -> object:
    """Decode the types msgspec does not know (its `dec_hook`)."""
    for custom in CUSTOM:
        if kind is custom:
            return custom.read(raw)
    raise NotImplementedError(kind)
