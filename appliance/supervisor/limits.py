"""How much a worker takes on: what its file descriptors, and the host's ports, allow."""

from dataclasses import dataclass
from typing import Final

SPARE_FDS: Final = 24
"""Fds that are neither a listener's nor a session's: standard streams, epoll, line, log, resolver."""

SPARE_FLOWS: Final = 128
"""Flows that ended in a turn of the loop have their fds until it is over: so many may, or half of those there
are room for."""

MOST_PIPES: Final = 256
"""Pipes a worker holds at the most, two fds each; a direction that gets none copies."""

PORTS_USED: Final = 0.9
"""Flows take at most so much of the host's ephemeral ports: each has one, and others need some, too."""


MOST_TUNNEL_FDS: Final = 4096
"""Fds for strangers at the tunnel's port, control channels, and data channels that carry nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker takes at the same time; 0 of a kind that no rule carries."""

    sessions: int
    flows: int
    pipes: int
    spare_flows: int
    """Flows that may have ended in a turn, and have their fds still."""


def pipe_limit(fds: int) -> int:
    """How many pipes a worker of so many fds may have: at most an eighth of them."""
    return min(MOST_PIPES, fds // 16)


def tunnel_fds(fds: int) -> int:
    """How many of its fds a worker keeps for what tunnels have beside sessions: an eighth."""
    return min(MOST_TUNNEL_FDS, fds // 8)


def limits(fds: int, listeners: int, ports: int, *, tcp: bool, udp: bool, tunnels: bool = False) -> Limits:
    """Share out what a worker of so many fds, and of so many ephemeral ports, has beside its listeners.

    A session takes two fds, a flow takes one. Where a ruleset has both, each kind gets half: a flood of the
    one leaves the other its own.
    """
    pipes = pipe_limit(fds) if tcp else 0
    room = fds - SPARE_FDS - listeners - 2 * pipes
    if tunnels:
        room -= tunnel_fds(fds)
    if tcp and udp:
        room //= 2
    sessions = max(1, room // 2) if tcp else 0
    spare = max(1, min(SPARE_FLOWS, room // 2))
    flows = max(1, min(room - spare, int(ports * PORTS_USED))) if udp else 0
    return Limits(sessions, flows, pipes, spare)
