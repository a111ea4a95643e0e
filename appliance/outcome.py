"""Where a session is, and why it ended.

The stage is the one variable that drives a session and the field its record carries; the cause says
which event ended it. Both are closed sets: docs, log and tests are made from them.
"""

from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final


@unique
class Stage(StrEnum):
    """How far a session came."""

    __hash__ = str.__hash__  # Enum's own is a Python function: 0.15 us for each look-up

    ADMIT = "admit"
    """Accepted; nothing done for it yet."""
    DIAL = "dial"
    """A connection to an endpoint is being opened."""
    RELAY = "relay"
    """Bytes pass."""


@unique
class Cause(StrEnum):
    """What ended a session."""

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
    """No byte moved either way for idle_timeout."""
    DIAL_REFUSED = "dial_refused"
    """The last endpoint tried refused the connection."""
    DIAL_TIMEOUT = "dial_timeout"
    """The last endpoint tried did not answer within connect_timeout."""
    DIAL_UNREACHABLE = "dial_unreachable"
    """The last endpoint tried cannot be reached: no route, network down, no such unix socket."""
    DIAL_RESOLVE = "dial_resolve"
    """The endpoint's host name does not resolve."""
    FD_LIMIT = "fd_limit"
    """The process or the system had no file descriptor, port or memory left for the endpoint."""
    DRAIN = "drain"
    """The gateway was stopping and its drain deadline had passed."""
    INTERNAL = "internal"
    """A fault in Portway; the log has its traceback."""


_DIALLING: Final = frozenset(
    {
        Cause.DIAL_REFUSED,
        Cause.DIAL_TIMEOUT,
        Cause.DIAL_UNREACHABLE,
        Cause.DIAL_RESOLVE,
        Cause.FD_LIMIT,
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
                Cause.DRAIN,
                Cause.INTERNAL,
            }
        ),
    }
)
"""Which causes can end a session in which stage."""
