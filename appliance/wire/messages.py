"""The messages of a tunnel, as docs/tunnel-protocol.md has them: a length and one JSON object.

    message = length (2 bytes, big-endian, of what follows) + JSON object, UTF-8, with a "type"

A control channel carries `Control` messages both ways for as long as it lives. A data channel carries an
Attach, then for each Open an Opened or a Failed; after Opened come the session's bytes, as they are or, with
TLS, in pieces (`net.sealed`), or a flow's datagrams (`wire.datagrams`). A receiver takes no message longer
than it allows in that place (`Limit`), none of a type that is not expected there, and no field outside its
bounds below.

A key that a receiver does not know is passed over: so a later release can say more within version 1, and
an agent need not be brought up to date together with its gateways. What must be understood is a new version.
"""

from enum import IntEnum
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from appliance.outcome import Cause
from appliance.problem import printable
from appliance.wire.server_name import MAX_WORKERS

VERSION: Final = 1
"""Of the protocol. A gateway refuses what it does not speak, with the versions it does."""

HEADER_BYTES: Final = 2

Hex8 = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
Hex16 = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""So many bytes. `$` would also match before a last line end."""

Word = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}\Z")]
"""One of a set that a later release may add to; what a receiver does not know is to it the general case."""

SessionId = Annotated[str, Meta(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}\Z")]
"""A ULID (`observe.ids`)."""

AddressText = Annotated[str, Meta(min_length=1, max_length=320)]
"""The longest is a host name of 253 characters and a range of ports, or a unix socket's path of 107 bytes."""

RuleName = Annotated[str, Meta(min_length=1, max_length=64)]
Software = Annotated[str, Meta(max_length=64)]
Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""What every reader of JSON keeps exactly (RFC 8259, 6)."""

Count = Annotated[int, Meta(ge=0, le=65535)]
Worker = Annotated[int, Meta(ge=0, lt=MAX_WORKERS)]
Seconds = Annotated[float, Meta(gt=0, le=366 * 86400)]
"""A ruleset's durations end at 365 days."""

MAX_DATAGRAMS: Final = 1_000_000
"""The greatest `responses` of a ruleset."""

M = TypeVar("M", bound=msgspec.Struct)


class Limit(IntEnum):
    """The longest message taken, in bytes of JSON, by where it comes."""

    STRANGER = 1024
    """The first message of a connection."""
    AGENT = 8192
    """What an agent says on its control channel: a certificate request is the longest."""
    GATEWAY = 65535
    """What a gateway says on a control channel: a list of targets."""
    DATA = 4096
    """On a data channel after Attach."""


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """Agent to gateway, first on a control channel."""

    version: Count
    instance: Hex16
    """Which process: 16 random bytes in hexadecimal, made at its start."""
    generation: Number
    """Counts this worker's control channels to this gateway; a lower one never replaces a higher one."""
    worker: Worker
    workers: Count
    """Which of the agent's workers this is, and how many there are."""
    software: Software
    """Of the agent: its version of Portway."""

    def __post_init__(self) -> None:
        """Hold the two against each other."""
        _check_worker(self.worker, self.workers)


class Welcome(msgspec.Struct, tag="welcome", frozen=True):
    """Gateway to agent: the control channel is in use."""

    version: Count
    link: Hex8
    """Names this control channel: 8 random bytes in hexadecimal."""
    secret: Hex32
    """With which data channels show that they belong to it: 32 random bytes in hexadecimal."""
    worker: Worker
    workers: Count
    """Which of the gateway's workers this is, and how many there are."""
    heartbeat: Annotated[float, Meta(ge=0.1, le=60)]
    """Seconds between two Pings of either side. One that has heard nothing for two is gone."""
    encryption: Literal["tls", "none"]
    """Of data channels."""
    ready: Count
    """How many data channels are to be kept ready."""
    allow_to: Annotated[list[AddressText], Meta(max_length=4096)] | None
    """What the gateway's ruleset lets this agent reach; None: what its rules name."""
    software: Software

    def __post_init__(self) -> None:
        """Hold the two against each other."""
        _check_worker(self.worker, self.workers)


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """Gateway to agent, instead of Welcome; the gateway closes."""

    cause: Word
    """`outcome.Refusal`."""
    message: Annotated[str, Meta(max_length=1024)]
    """For the operator of the agent."""
    retry: bool
    """Whether it may be different in a moment."""


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """Either side, every heartbeat; answered by a Pong of the same number."""

    number: Number


class Pong(msgspec.Struct, tag="pong", frozen=True):
    """The answer to a Ping."""

    number: Number


class Want(msgspec.Struct, tag="want", frozen=True):
    """Gateway to agent: how many data channels to keep ready from now on."""

    ready: Count


class Renew(msgspec.Struct, tag="renew", frozen=True):
    """Agent to gateway: make a new certificate."""

    request: Annotated[str, Meta(max_length=int(Limit.AGENT))]
    """A certificate request (PKCS #10, PEM). Its subject does not count: the agent's name stays."""


class Renewed(msgspec.Struct, tag="renewed", frozen=True):
    """The new certificate (PEM)."""

    certificate: Annotated[str, Meta(max_length=16384)]
    expires: Annotated[float, Meta(ge=0, le=2**40)]
    """Seconds since 1970."""


class Bye(msgspec.Struct, tag="bye", frozen=True):
    """Either side: this control channel is about to end. Sessions go on."""

    reason: Word
    """"drain": the gateway's worker, or the agent, stops. "replaced": a newer one took its place."""


class Attach(msgspec.Struct, tag="attach", frozen=True):
    """Agent to gateway, first on a data channel."""

    version: Count
    link: Hex8
    number: Number
    """Counts the data channels of this link; each number is good once."""
    proof: Hex32
    """HMAC-SHA256 by the link's secret of "attach LINK NUMBER", in hexadecimal."""


class Open(msgspec.Struct, tag="open", frozen=True):
    """Gateway to agent, on a ready data channel: carry a session or flow."""

    session: SessionId
    """Its id, the same in both logs."""
    rule: RuleName
    protocol: Literal["tcp", "udp"]
    to: AddressText
    """The endpoint: one address, as in a ruleset."""
    client: AddressText
    """Who it is, as in the log."""
    local: AddressText
    """The address that the client reached, as in the log."""
    connect_timeout: Seconds
    idle_timeout: Seconds
    """Seconds."""
    responses: Annotated[int, Meta(ge=0, le=MAX_DATAGRAMS)] = 0
    """Of a flow: after how many answers it ends; 0: none end it."""
    proxy_protocol: Literal["", "v1", "v2"] = ""
    """What to send to the endpoint first."""
    source: Literal["", "client"] = ""
    """"client": the endpoint is to see the client's address."""


class Opened(msgspec.Struct, tag="opened", frozen=True):
    """Agent to gateway: the endpoint is connected."""

    endpoint: AddressText
    """Its address, resolved."""


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """Agent to gateway: the endpoint is not to be had. The agent closes."""

    cause: Word
    """`outcome.Cause`; `cause_of` reads it."""


def _check_worker(worker: int, workers: int) -> None:
    """Raise ValueError, of which msgspec makes a ValidationError, where there is no such worker."""
    if not 0 <= worker < workers <= MAX_WORKERS:
        raise ValueError(f"worker {worker} of {workers}")


FromAgent = Hello | Ping | Pong | Renew | Bye
FromGateway = Welcome | Refused | Ping | Pong | Want | Renewed | Bye
First = Hello | Attach
Answer = Opened | Failed

FIRST: Final = msgspec.json.Decoder(First)
FROM_AGENT: Final = msgspec.json.Decoder(FromAgent)
FROM_GATEWAY: Final = msgspec.json.Decoder(FromGateway)
OPEN: Final = msgspec.json.Decoder(Open)
ANSWER: Final = msgspec.json.Decoder(Answer)

_encode: Final = msgspec.json.Encoder().encode


class MessageError(ValueError):
    """What the other side sent is no message of this place."""


def framed(message: msgspec.Struct) -> bytes:
    """Give a message as it is sent. Raises MessageError where it is too long (thousands of targets)."""
    body = _encode(message)
    if len(body) > Limit.GATEWAY:
        raise MessageError(f"a message of {len(body)} bytes, where up to {Limit.GATEWAY} are taken")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def length_of(header: bytes | bytearray | memoryview, limit: int) -> int:
    """Give how many bytes follow a header. Raises MessageError."""
    length = int.from_bytes(header[:HEADER_BYTES], "big")
    if not 0 < length <= limit:
        raise MessageError(f"a message of {length} bytes, where up to {limit} are taken")
    return length


def decoded(decoder: "msgspec.json.Decoder[M]", body: bytes | bytearray | memoryview) -> M:
    """Decode what follows a header. Raises MessageError."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as wrong:
        # It may quote the message.
        raise MessageError(printable(str(wrong)[:200])) from None


_FAILURES: Final = frozenset(
    {
        Cause.DIAL_REFUSED,
        Cause.DIAL_TIMEOUT,
        Cause.DIAL_UNREACHABLE,
        Cause.DIAL_RESOLVE,
        Cause.AGENT_DENIED,
        Cause.FD_LIMIT,
        Cause.FLOW_LIMIT,
        Cause.AGENT_OFFLINE,
    }
)


def cause_of(failed: Failed) -> Cause:
    """Give the cause that an agent names; any that is not for it to say is DIAL_UNREACHABLE.

    A session cannot end by each cause in each stage (`outcome.LEGAL`), and `drain` and `internal` would speak
    of the gateway.
    """
    return Cause(failed.cause) if failed.cause in _FAILURES else Cause.DIAL_UNREACHABLE
