"""What a ruleset file may say. Decoding, messages, JSON Schema and the reference page are made from this.

A key's Meta has its description and examples; `extra["wants"]` says in words what the key takes,
`extra["aka"]` what other programs call it, for hints, and `extra["otherwise"]` what leaving it out means
where that is no value of the key. `extra["for_flows"]` marks what a rule that carries TCP only cannot have,
`extra["for_sessions"]` what one that carries UDP only cannot. The tables of a tunnel are in `tunnel_tables`.
"""

from functools import partial
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from appliance.ruleset.kinds import AdminAddress, BufferSize, Duration, ListenAddresses, TargetAddresses
from appliance.ruleset.rules import Protocol
from appliance.ruleset.tunnel_tables import NAME_PATTERN, AgentTable, TunnelTable, Via
from appliance.values import format_duration
from appliance.values.admin import ABSTRACT, DEFAULT_ADMIN

SESSION_IDLE: Final = 3600
FLOW_IDLE: Final = 60
"""The idle_timeout of a TCP session and of a UDP flow, in seconds, where the file names none."""

_FLOWS: Final = "a whole number from 1 to 1000000000"


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
            "aka": ("address", "bind", "from", "listener", "listeners", "local", "port"),
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
SendProxyProtocol = Annotated[
    Literal["none", "v1", "v2"],
    Meta(
        description=(
            "Tell the endpoint of a TCP session who the client is, by the PROXY protocol's header before the "
            "first byte: v1 is a line of text, v2 binary. The endpoint has to expect it. The flows of a "
            '"tcp+udp" rule go without.'
        ),
        examples=["v2", "v1", "none"],
        extra={
            "wants": '"none", "v1" or "v2"',
            "for_sessions": True,
            "aka": ("proxyprotocol", "proxyprotocolversion", "send-proxy", "send-proxy-v2", "send_proxy"),
        },
    ),
]
SourceAddress = Annotated[
    Literal["client"],
    Meta(
        description=(
            "Dial with the client's address as the source, for endpoints that have to see it and speak no "
            "PROXY protocol. The host that dials (with `via`, the agent's) has to be set up for it, since "
            "the endpoint's answers have to come back by way of it: see client-address.md."
        ),
        examples=["client"],
        extra={
            "wants": '"client"',
            "otherwise": "the endpoint sees the address of the host that dials it",
            "aka": ("bind_source", "proxy_bind", "source_address", "transparent", "usesrc"),
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
    proxy_protocol: SendProxyProtocol = "none"


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
    proxy_protocol: SendProxyProtocol | UnsetType = UNSET
    via: Via | UnsetType = UNSET
    source: SourceAddress | UnsetType = UNSET


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
    tunnel: Annotated[TunnelTable, Meta(extra={"aka": ("tunnels",)})] | UnsetType = UNSET
    agent: Annotated[
        tuple[AgentTable, ...],
        Meta(extra={"aka": ("agents", "site", "sites")}),
    ] = ()
