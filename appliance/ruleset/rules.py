"""The ruleset as the gateway runs it: complete, checked, with every default filled in."""

from enum import StrEnum, unique

import msgspec

from appliance.values import AllowedTarget, ListenAddress, TargetAddress


@unique
class Protocol(StrEnum):
    """What a rule forwards."""

    TCP = "tcp"
    UDP = "udp"
    BOTH = "tcp+udp"

    @property
    def carries_tcp(self) -> bool:
        """Whether TCP sessions come in."""
        return self is not Protocol.UDP

    @property
    def carries_udp(self) -> bool:
        """Whether UDP flows come in."""
        return self is not Protocol.TCP

    def shared(self, other: "Protocol") -> "Protocol | None":
        """Give what both carry."""
        if other in {self, Protocol.BOTH}:
            return self
        return other if self is Protocol.BOTH else None


@unique
class Encryption(StrEnum):
    """What keeps others from reading a data channel."""

    TLS = "tls"
    NONE = "none"
    """The link is protected already."""


@unique
class ProxyProtocol(StrEnum):
    """How an endpoint is told who the client is."""

    V1 = "v1"
    V2 = "v2"


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the gateway as a whole.

    `workers` is None for one per core. `drain_timeout` is in seconds. `admin` is the admin socket's path, or
    `@` (`values.admin`); None where the file names none.
    """

    workers: int | None
    drain_timeout: float
    admin: str | None


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What comes in at any of `listen` goes to one of `to`.

    A range in `to` is as long as each range of `listen`: `to[n].at(offset)` is the endpoint for the port that
    is `offset` above the listen range's first. Time-outs are in seconds.

    `idle_timeout` is that of TCP sessions, `flow_idle_timeout` that of UDP flows. What follows is for flows
    alone: `responses` is how many answers end one, None for no such end; `max_flows` and
    `max_flows_per_client` are how many there may be at a time, None for as many as file descriptors allow;
    `receive_buffer` is how many bytes the kernel is asked to hold for each UDP socket.

    `via` names the agent through which the endpoints are reached; None: this host reaches them. With
    `proxy_protocol` an endpoint is told who the client is before the first byte; with `is_transparent`
    (source = "client") it sees the client's address as that of its peer.
    """

    name: str
    listen: tuple[ListenAddress, ...]
    to: tuple[TargetAddress, ...]
    protocol: Protocol
    connect_timeout: float
    idle_timeout: float
    flow_idle_timeout: float
    responses: int | None
    max_flows: int | None
    max_flows_per_client: int | None
    receive_buffer: int
    via: str | None = None
    proxy_protocol: ProxyProtocol | None = None
    is_transparent: bool = False


class Tunnel(msgspec.Struct, frozen=True, kw_only=True):
    """Where agents come in: `state` is the directory of the CA; `heartbeat` is in seconds."""

    listen: tuple[ListenAddress, ...]
    state: str
    heartbeat: float = 2.0


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """Who may serve rules that go `via` this name.

    `allow_to` is what may be reached through it; None: what its rules name. `encryption` is that of its data
    channels.
    """

    name: str
    allow_to: tuple[AllowedTarget, ...] | None = None
    encryption: Encryption = Encryption.TLS


class Ruleset(msgspec.Struct, frozen=True, kw_only=True):
    """A whole ruleset. Names are unique; no two rules listen on a port of one protocol and address."""

    gateway: Gateway
    rules: tuple[Rule, ...]
    tunnel: Tunnel | None = None
    agents: tuple[Agent, ...] = ()
