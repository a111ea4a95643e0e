"""What a ruleset file may say. Decoding, messages, JSON Schema and the reference page are made from this.

A key's Meta has its description and examples; `extra["wants"]` says in words what the key takes,
`extra["aka"]` what other programs call it, for hints, and `extra["otherwise"]` what leaving it out means
where that is no value of the key. `extra["for_flows"]` marks what a rule that carries TCP only cannot have.
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, ClassVar, Final, Literal, Self, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, field

from appliance.problem import quoted
from appliance.ruleset.finding import Path, found
from appliance.ruleset.rules import Protocol
from appliance.values import (
    MAX_PORT,
    MAX_SIZE,
    ListenAddress,
    Misread,
    TargetAddress,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from appliance.values.admin import ABSTRACT, DEFAULT_ADMIN, parse_admin

A = TypeVar("A", ListenAddress, TargetAddress)

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$(?!\n)"
"""Python's `$` also matches before a last line end, which JSON Schema's does not: hence `(?!\\n)`."""

SESSION_IDLE: Final = 3600
FLOW_IDLE: Final = 60
"""The idle_timeout of a TCP session and of a UDP flow, in seconds, where the file names none."""

_FLOWS: Final = "a whole number from 1 to 1000000000"
_PLAIN_SECONDS: Final = 1_000_000
_HOST: Final[dict[type, str]] = {ListenAddress: "", TargetAddress: "10.0.0.5"}


class Duration(float):
    """Seconds, written with units: `5s`, `250ms`, `1h30m`, `1d`."""

    __slots__ = ()

    def __str__(self) -> str:
        return format_duration(self)

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise Misread."""
        if isinstance(raw, str):
            return cls(parse_duration(raw))
        is_count = isinstance(raw, int) and not isinstance(raw, bool) and 0 < raw <= _PLAIN_SECONDS
        hint = f'write "{raw}s"' if is_count else 'write "5s"'
        raise Misread(f"wants a duration in quotes, found {found(raw)}", hint)


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


class ListenAddresses(tuple[ListenAddress, ...]):
    """An address to listen on, or a list of them."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise the first Misread."""
        return cls(_whole(ListenAddress, raw))


class TargetAddresses(tuple[TargetAddress, ...]):
    """An endpoint's address, or a list of them."""

    __slots__ = ()

    @classmethod
    def read(cls, raw: object) -> Self:
        """Take a TOML value, or raise the first Misread."""
        return cls(_whole(TargetAddress, raw))


def each_address(kind: type[A], raw: object) -> Iterator[tuple[Path, A | Misread]]:
    """Give every address of a string or list, or what is wrong with it, with its path below the key."""
    if not isinstance(raw, list):
        yield (), _address(kind, raw)
    elif not raw:
        yield (), Misread("wants at least one address, found an empty array", _address_hint(kind, raw))
    for index, element in enumerate(raw if isinstance(raw, list) else ()):
        yield (index,), _address(kind, element)


def _address(kind: type[A], raw: object) -> A | Misread:
    if not isinstance(raw, str):
        return Misread(f"wants an address in quotes, found {found(raw)}", _address_hint(kind, raw))
    try:
        return kind.parse(raw)
    except Misread as misread:
        return misread


def _address_hint(kind: type[A], raw: object) -> str:
    is_port = isinstance(raw, int) and not isinstance(raw, bool) and 0 < raw <= MAX_PORT
    return f'write "{_HOST[kind]}:{raw if is_port else 80}"'


def _whole(kind: type[A], raw: object) -> Iterator[A]:
    for _, address in each_address(kind, raw):
        if isinstance(address, Misread):
            raise address
        yield address


CUSTOM: Final = (Duration, BufferSize, AdminAddress, ListenAddresses, TargetAddresses)


def decode_custom(kind: type, raw: object) -> object:
    """Decode the types msgspec does not know (its `dec_hook`)."""
    for custom in CUSTOM:
        if kind is custom:
            return custom.read(raw)
    raise NotImplementedError(kind)


def _either(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


Workers = Annotated[
    Annotated[int, Meta(ge=1, le=256)] | Literal["auto"],
    Meta(
        description='Worker processes, each with one event loop. "auto" is one per core.',
        examples=["auto", 4],
        extra={"wants": '"auto" or a whole number from 1 to 256', "aka": ("processes", "threads", "worker")},
    ),
]
DrainTimeout = Annotated[
    Duration,
    Meta(
        description="How long live sessions may go on after the gateway was told to stop; then they are cut.",
        examples=["30s"],
        extra={"wants": "a duration", "aka": ("grace_period", "shutdown_timeout", "stop_timeout")},
    ),
]
Admin = Annotated[
    AdminAddress,
    Meta(
        description=(
            "The unix socket that `portway status` asks: a path, for the user and group the gateway runs as; "
            'or "@", an abstract address of this mount namespace, for the user alone and root, for '
            "containers that have no writable path."
        ),
        examples=[DEFAULT_ADMIN, ABSTRACT],
        extra={
            "wants": 'an absolute path of at most 107 bytes, or "@"',
            "otherwise": "none, unless `portway run --admin` names one",
            "aka": ("admin_socket", "api", "control", "socket", "stats"),
        },
    ),
]
ConnectTimeout = Annotated[
    Duration,
    Meta(
        description=(
            "How long an endpoint may take to accept a TCP connection, or its name to resolve for a UDP "
            "flow; then the next one is tried."
        ),
        examples=["5s"],
        extra={"wants": "a duration", "aka": ("timeout_connect", "dial_timeout", "proxy_connect_timeout")},
    ),
]
IdleTimeout = Annotated[
    Duration,
    Meta(
        description=(
            "How long a TCP session may go without a byte, and a UDP flow without a datagram, both "
            "ways counted; then it is ended."
        ),
        examples=["1h"],
        extra={
            "wants": "a duration",
            "otherwise": f"{format_duration(SESSION_IDLE)} for TCP, {format_duration(FLOW_IDLE)} for UDP",
            "aka": ("timeout", "proxy_timeout", "timeout_client", "timeout_server", "udp_timeout"),
        },
    ),
]
RuleProtocol = Annotated[
    Protocol,
    Meta(
        description="What the rule forwards: TCP sessions, UDP flows, or both on the same ports.",
        examples=["tcp", "udp", "tcp+udp"],
        extra={"wants": _either([f'"{protocol}"' for protocol in Protocol]), "aka": ("proto", "network")},
    ),
]
Responses = Annotated[
    Annotated[int, Meta(ge=1, le=1_000_000)],
    Meta(
        description=(
            "End a UDP flow once it has had so many answers, and at least one for each datagram of the "
            "client. For questions and answers such as DNS: 1."
        ),
        examples=[1],
        extra={
            "wants": "a whole number from 1 to 1000000",
            "otherwise": "answers end no flow",
            "for_flows": True,
            "aka": ("proxy_responses",),
        },
    ),
]
MaxFlows = Annotated[
    Annotated[int, Meta(ge=1, le=1_000_000_000)],
    Meta(
        description=(
            "How many UDP flows of the rule there may be at a time, over all workers. The least recently "
            "used one of the worker that gets a new one is ended to make room."
        ),
        examples=[10_000],
        extra={
            "wants": _FLOWS,
            "otherwise": "as many as the workers' file descriptors allow",
            "for_flows": True,
            "aka": ("udp_max_connections",),
        },
    ),
]
MaxFlowsPerClient = Annotated[
    Annotated[int, Meta(ge=1, le=1_000_000_000)],
    Meta(
        description=(
            "How many UDP flows of the rule one client address may have at a time, over all its ports. Its "
            "least recently used one is ended to make room."
        ),
        examples=[100],
        extra={
            "wants": _FLOWS,
            "otherwise": "as many as max_flows allows",
            "for_flows": True,
        },
    ),
]
ReceiveBuffer = Annotated[
    BufferSize,
    Meta(
        description=(
            "How much the kernel may hold of datagrams not yet read, for each UDP socket. It may grant less "
            "(net.core.rmem_max), which is reported."
        ),
        examples=["4MiB"],
        extra={
            "wants": "a size from 4KiB to 1GiB",
            "for_flows": True,
            "aka": ("rcvbuf", "so_rcvbuf"),
        },
    ),
]
RuleName = Annotated[
    str,
    Meta(
        pattern=NAME_PATTERN,
        description=(
            "What logs, metrics and messages call the rule; no two rules share one. At most 63 letters, "
            "digits, dots, hyphens and underscores, the first a letter or digit."
        ),
        examples=["intranet-web"],
        extra={
            "wants": "at most 63 letters, digits, dots, hyphens and underscores, the first a letter or digit",
            "aka": ("id", "title"),
        },
    ),
]
Listen = Annotated[
    ListenAddresses,
    Meta(
        description=(
            'Where clients come in: one address or a list. ":80" is port 80 of every address of both '
            'families, "0.0.0.0:80" and "[::]:80" of one; "10.0.0.1:16384-16483" is a range of ports; '
            '"unix:/path" is a unix socket, for TCP. Port 0 lets the kernel pick one.'
        ),
        examples=[
            ":8080",
            ["192.0.2.1:443", "[2001:db8::1]:443"],
            "0.0.0.0:16384-16483",
            "unix:/run/web.sock",
        ],
        extra={
            "wants": "an address or a list of them",
            "aka": ("address", "bind", "from", "listener", "listeners", "local", "port", "source"),
        },
    ),
]
To = Annotated[
    TargetAddresses,
    Meta(
        description=(
            "Where sessions and flows go: one address or a list. They go to the endpoints of a list in turn, "
            "and to the next one where one cannot be reached; a flow as long as it has had no answer. Host "
            "names are allowed. A range of ports is as long as the range of `listen` and goes with it port "
            "by port."
        ),
        examples=["10.0.0.5:80", ["10.0.0.7:25", "10.0.0.8:25"], "db.internal:5432", "unix:/run/app.sock"],
        extra={
            "wants": "an address or a list of them",
            "aka": (
                *("backend", "backends", "connect", "dest", "destination", "dial", "endpoint", "endpoints"),
                *("forward", "forward_to", "host", "remote", "server", "servers", "target", "targets"),
                *("upstream", "upstreams"),
            ),
        },
    ),
]


class GatewayTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for the gateway as a whole."""

    workers: Workers = "auto"
    drain_timeout: DrainTimeout = field(default_factory=partial(Duration, 30))
    admin: Admin | UnsetType = UNSET


class DefaultsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for every rule that does not say otherwise."""

    protocol: RuleProtocol = Protocol.TCP
    connect_timeout: ConnectTimeout = field(default_factory=partial(Duration, 5))
    idle_timeout: IdleTimeout | UnsetType = UNSET
    responses: Responses | UnsetType = UNSET
    max_flows: MaxFlows | UnsetType = UNSET
    max_flows_per_client: MaxFlowsPerClient | UnsetType = UNSET
    receive_buffer: ReceiveBuffer = field(default_factory=partial(BufferSize, 4 << 20))


class RuleTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing to forward. A key that is left out is as [defaults] has it."""

    name: RuleName
    listen: Listen
    to: To
    protocol: RuleProtocol | UnsetType = UNSET
    connect_timeout: ConnectTimeout | UnsetType = UNSET
    idle_timeout: IdleTimeout | UnsetType = UNSET
    responses: Responses | UnsetType = UNSET
    max_flows: MaxFlows | UnsetType = UNSET
    max_flows_per_client: MaxFlowsPerClient | UnsetType = UNSET
    receive_buffer: ReceiveBuffer | UnsetType = UNSET


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Portway ruleset."""

    gateway: GatewayTable = field(default_factory=GatewayTable)
    defaults: DefaultsTable = field(default_factory=DefaultsTable)
    rule: Annotated[
        tuple[RuleTable, ...],
        Meta(
            min_length=1,
            extra={"aka": ("rules", "forward", "forwards", "proxy", "proxies", "route", "routes")},
        ),
    ]
