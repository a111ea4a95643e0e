"""The messages of a tunnel, as docs/tunnel-protocol.md has them: a length and one JSON object.

    message = length (2 bytes, big-endian, of what follows) + JSON object, UTF-8, with a "type"

A control channel carries `Control` messages both ways for as long as it lives. A data channel carries an
Attach, then for each Open an Opened or a Failed; after Opened come the session's bytes, as they are, or a
flow's datagrams (`wire.datagrams`). A receiver takes no message longer than it allows in that place
(`Limit`), none with a key it does not know a type for, and none where it is not expected.
"""

from enum import IntEnum
from typing import Final, TypeVar

import msgspec

VERSION: Final = 1
"""Of the protocol. A gateway refuses what it does not speak, with the versions it does."""

HEADER_BYTES: Final = 2

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

    version: int
    instance: str
    """Which process: 16 random bytes in hexadecimal, made at its start."""
    generation: int
    """Counts this worker's control channels to this gateway; a lower one never replaces a higher one."""
    worker: int
    workers: int
    """Which of the agent's workers this is, and how many there are."""
    software: str
    """Of the agent: its version of Portway."""


class Welcome(msgspec.Struct, tag="welcome", frozen=True):
    """Gateway to agent: the control channel is in use."""

    version: int
    link: str
    """Names this control channel: 8 random bytes in hexadecimal."""
    secret: str
    """With which data channels show that they belong to it: 32 random bytes in hexadecimal."""
    worker: int
    workers: int
    """Which of the gateway's workers this is, and how many there are."""
    heartbeat: float
    """Seconds between two Pings of either side. One that has heard nothing for two is gone."""
    encryption: str
    """Of data channels: "tls" or "none"."""
    ready: int
    """How many data channels are to be kept ready."""
    allow_to: list[str] | None
    """What the gateway's ruleset lets this agent reach; None: what its rules name."""
    software: str


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """Gateway to agent, instead of Welcome; the gateway closes."""

    cause: str
    """`observe.names.Refusal`."""
    message: str
    """For the operator of the agent."""
    retry: bool
    """Whether it may be different in a moment."""


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """Either side, every heartbeat; answered by a Pong of the same number."""

    number: int


class Pong(msgspec.Struct, tag="pong", frozen=True):
    """The answer to a Ping."""

    number: int


class Want(msgspec.Struct, tag="want", frozen=True):
    """Gateway to agent: how many data channels to keep ready, and how many to make beside them, now."""

    ready: int
    now: int


class Renew(msgspec.Struct, tag="renew", frozen=True):
    """Agent to gateway: make a new certificate."""

    request: str
    """A certificate request (PKCS #10, PEM). Its subject does not count: the agent's name stays."""


class Renewed(msgspec.Struct, tag="renewed", frozen=True):
    """The new certificate (PEM)."""

    certificate: str
    expires: float
    """Seconds since 1970."""


class Bye(msgspec.Struct, tag="bye", frozen=True):
    """Either side: this control channel is about to end. Sessions go on."""

    reason: str
    """"drain": the gateway's worker, or the agent, stops. "replaced": a newer one took its place."""


class Attach(msgspec.Struct, tag="attach", frozen=True):
    """Agent to gateway, first on a data channel."""

    version: int
    link: str
    number: int
    """Counts the data channels of this link; each number is good once."""
    proof: str
    """HMAC-SHA256 by the link's secret of "attach LINK NUMBER", in hexadecimal."""


class Open(msgspec.Struct, tag="open", frozen=True):
    """Gateway to agent, on a ready data channel: carry a session or flow."""

    session: str
    """Its id, the same in both logs."""
    rule: str
    protocol: str
    """"tcp" or "udp"."""
    to: str
    """The endpoint: one address, as in a ruleset."""
    client: str
    """Who it is, as in the log."""
    local: str
    """The address that the client reached, as in the log."""
    connect_timeout: float
    idle_timeout: float
    """Seconds."""
    responses: int = 0
    """Of a flow: after how many answers it ends; 0: none end it."""
    proxy_protocol: str = ""
    """"v1", "v2" or "": what to send to the endpoint first."""
    source: str = ""
    """"client": the endpoint is to see the client's address."""


class Opened(msgspec.Struct, tag="opened", frozen=True):
    """Agent to gateway: the endpoint is connected."""

    endpoint: str
    """Its address, resolved."""


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """Agent to gateway: the endpoint is not to be had. The agent closes."""

    cause: str
    """`outcome.Cause`."""


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
    """Give a message as it is sent."""
    body = _encode(message)
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
        raise MessageError(str(wrong)) from None
