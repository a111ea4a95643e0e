"""Where a session or flow is, why it ended, and why one of its datagrams was dropped.

The stage is the one variable that drives a session and the field its record carries; the cause says
which event ended it. A UDP flow passes the same stages, and its record has the same two fields. All are
closed sets: docs, log and tests are made from them.
"""

from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final


@unique
class Stage(StrEnum):
    """How far a session or flow came."""

    __hash__ = str.__hash__  # Enum's own is a Python function: 0.15 us for each look-up

    ADMIT = "admit"
    """Accepted; nothing done for it yet."""
    DIAL = "dial"
    """A connection to an endpoint is being opened; for a flow, its name is resolved or its socket made."""
    RELAY = "relay"
    """Bytes or datagrams pass."""


@unique
class Cause(StrEnum):
    """What ended a session or flow."""

    __hash__ = str.__hash__

    CLIENT_EOF = "client_eof"
    """Both sides ended in order; the client was first."""
    ENDPOINT_EOF = "endpoint_eof"
    """Both sides ended in order; the endpoint was first."""
    CLIENT_RESET = "client_reset"
    """The client aborted (RST), or its host became unreachable."""
    ENDPOINT_RESET = "endpoint_reset"
    """The endpoint aborted (RST), or its host became unreachable."""
    IDLE_TIMEOUT = "idle_timeout"
    """Nothing moved either way for idle_timeout."""
    DIAL_REFUSED = "dial_refused"
    """The last endpoint tried refused the connection."""
    DIAL_TIMEOUT = "dial_timeout"
    """The last endpoint tried did not answer within connect_timeout."""
    DIAL_UNREACHABLE = "dial_unreachable"
    """The last endpoint tried cannot be reached: no route, network down, no such unix socket."""
    DIAL_RESOLVE = "dial_resolve"
    """The endpoint's host name does not resolve."""
    AGENT_OFFLINE = "agent_offline"
    """No agent of the rule's name is connected, or none had a data channel within connect_timeout."""
    AGENT_DENIED = "agent_denied"
    """The agent may not reach that endpoint: its own list, or the gateway's for it, does not have it."""
    SOURCE_UNAVAILABLE = "source_unavailable"
    """The endpoint cannot see the client's address (source = "client"): a warning in the log says why."""
    FD_LIMIT = "fd_limit"
    """The process or the system had no file descriptor, port or memory left for the endpoint."""
    ANSWERED = "answered"
    """The flow had all the answers its rule expects (responses)."""
    FLOW_LIMIT = "flow_limit"
    """The flow was the least recently used one, and ended to make room for a new one."""
    ENDPOINT_REFUSED = "endpoint_refused"
    """No program has the endpoint's port: its host said so (ICMP) to a datagram of the flow."""
    ENDPOINT_UNREACHABLE = "endpoint_unreachable"
    """The endpoint of the flow cannot be reached any more: ICMP or the routing table says so."""
    DRAIN = "drain"
    """The gateway was stopping and its drain deadline had passed."""
    INTERNAL = "internal"
    """A fault in Portway; the log has its traceback."""


@unique
class Drop(StrEnum):
    """Why a datagram was dropped."""

    __hash__ = str.__hash__

    TRUNCATED = "truncated"
    """It was longer than the buffer it was received into."""
    TOO_LONG = "too_long"
    """The way on takes no datagram that long (EMSGSIZE)."""
    SEND_FULL = "send_full"
    """The send buffer of the socket, or the queue of the device, was full."""
    SEND_FAILED = "send_failed"
    """The kernel refused to send it: no route, or forbidden by a firewall."""
    DIALLING = "dialling"
    """It came while the endpoint was being dialled, and no more could be held."""
    RECEIVE_FULL = "receive_full"
    """The kernel dropped it: the receive buffer was full."""
    UNSENT = "unsent"
    """The flow ended before it was sent."""


@unique
class Refusal(StrEnum):
    """Why somebody who connected to a tunnel's port was refused."""

    __hash__ = str.__hash__

    GARBAGE = "garbage"
    """What came is no TLS."""
    HANDSHAKE_FAILED = "handshake_failed"
    """The TLS handshake failed in another way than those below; `error` says how."""
    TIMEOUT = "timeout"
    """The connection did not say who it is in time."""
    NO_CERTIFICATE = "no_certificate"
    """It showed no certificate."""
    UNKNOWN_CA = "unknown_ca"
    """Its certificate is not of this gateway's CA."""
    EXPIRED = "expired"
    """Its certificate has expired, or the clock of one side is wrong."""
    REVOKED = "revoked"
    """Its certificate was taken back (`portway revoke`)."""
    UNKNOWN_AGENT = "unknown_agent"
    """The ruleset has no [[agent]] of its name."""
    VERSION = "version"
    """It speaks no version of the protocol that this gateway speaks."""
    PROTOCOL = "protocol"
    """What it said is no message, or none that is expected there."""
    STALE = "stale"
    """A newer control channel of the same agent is there."""
    UNKNOWN_LINK = "unknown_link"
    """A data channel of a control channel that is not there (any more)."""
    CROWDED = "crowded"
    """Others came, and it had not said who it is for the longest."""
    FULL = "full"
    """There is no file descriptor for it."""


_DIALLING: Final = frozenset(
    {
        Cause.DIAL_REFUSED,
        Cause.DIAL_TIMEOUT,
        Cause.DIAL_UNREACHABLE,
        Cause.DIAL_RESOLVE,
        Cause.AGENT_OFFLINE,
        Cause.AGENT_DENIED,
        Cause.SOURCE_UNAVAILABLE,
        Cause.FD_LIMIT,
        Cause.FLOW_LIMIT,
        Cause.DRAIN,
        Cause.INTERNAL,
    }
)

LEGAL: Final = MappingProxyType(
    {
        Stage.ADMIT: frozenset({Cause.FD_LIMIT, Cause.DRAIN, Cause.INTERNAL}),
        Stage.DIAL: _DIALLING,
        Stage.RELAY: frozenset(
            {
                Cause.CLIENT_EOF,
                Cause.ENDPOINT_EOF,
                Cause.CLIENT_RESET,
                Cause.ENDPOINT_RESET,
                Cause.IDLE_TIMEOUT,
                Cause.FD_LIMIT,
                Cause.ANSWERED,
                Cause.FLOW_LIMIT,
                Cause.ENDPOINT_REFUSED,
                Cause.ENDPOINT_UNREACHABLE,
                Cause.DRAIN,
                Cause.INTERNAL,
            }
        ),
    }
)
"""Which causes can end a session or flow in which stage."""
