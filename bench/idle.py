"""Idle sessions: what one costs the relay in user memory and the kernel in slab memory."""

import resource
import socket
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass

from bench.account import settled_cpu_seconds, user_bytes
from bench.process import Address, FailedError
from bench.relays import IDLE, Running
from bench.slab import grown, per_session, read_caches

# Sessions opened before the first reading: what a relay sets up once (lazily, at its first session, or in
# steps, such as a table that doubles) is not the price of a session.
WARM = 200
# A process per session: 100 of them say what one costs.
FORKED_SESSIONS, FORKED_WARM = 100, 20
GREETING = b"x" * 100
TIMEOUT_S = 5.0
# Both ends are aborted when all is read: an orderly close leaves a time-wait socket and its port for 60 s,
# and what is freed then would be missing from a later measurement.
ABORT = struct.pack("ii", 1, 0)
# The slab allocator frees sockets after an RCU grace period: wait until the total stays within this.
STEADY_BYTES = 16_384
STEADY_INTERVAL_S = 0.1
STEADY_DEADLINE_S = 3.0


@dataclass(frozen=True, slots=True)
class Held:
    """What `sessions` idle sessions made the relay's processes and each slab cache grow by, in bytes."""

    sessions: int
    user: int
    caches: dict[str, int]


def allow_descriptors(wanted: int) -> int:
    """Raise this process's descriptor limit, which its children inherit, to `wanted` or the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(soft, allowed)


def fitting(sessions: int, descriptors: int) -> int:
    """As many of `sessions` as fit: this process holds both ends of each, and some descriptors besides."""
    return min(sessions, (descriptors - 500) // 2 - WARM)


def _exchange(sender: socket.socket, receiver: socket.socket) -> None:
    sender.sendall(GREETING)
    got = b""
    while len(got) < len(GREETING):
        piece = receiver.recv(4096)
        if not piece:
            raise FailedError("a session ended before it was idle")
        got += piece


def open_sessions(entry: Address, endpoint: socket.socket, count: int, held: ExitStack) -> None:
    """Open `count` sessions through `entry`, each with some bytes passed both ways."""
    for _ in range(count):
        client = held.enter_context(socket.create_connection(entry, timeout=TIMEOUT_S))
        server = held.enter_context(endpoint.accept()[0])
        server.settimeout(TIMEOUT_S)
        for sock in (client, server):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        _exchange(client, server)
        _exchange(server, client)


def steady_caches(*, forks: bool) -> dict[str, int]:
    """Read the slab caches once they no longer change, or after a while; none for who may not read them."""
    deadline = time.monotonic() + STEADY_DEADLINE_S
    caches = read_caches(forks=forks)
    while time.monotonic() < deadline:
        time.sleep(STEADY_INTERVAL_S)
        before, caches = caches, read_caches(forks=forks)
        if abs(sum(caches.values()) - sum(before.values())) <= STEADY_BYTES:
            break
    return caches


def _hold(relay: Running, entry: Address, endpoint: socket.socket, sessions: int, warm: int) -> Held:
    with ExitStack() as held:
        try:
            open_sessions(entry, endpoint, warm, held)
            caches, user = steady_caches(forks=relay.kind.forks), _resting_user_bytes(relay)
            open_sessions(entry, endpoint, sessions, held)
            user = _resting_user_bytes(relay) - user
            return Held(sessions, user, grown(caches, steady_caches(forks=relay.kind.forks)))
        except OSError as error:
            raise FailedError(f"idle sessions: {error}") from error


def _resting_user_bytes(relay: Running) -> int:
    settled_cpu_seconds(relay.roots, reap=False)
    return user_bytes(relay.roots)


def measure_idle(relay: Running, endpoint: socket.socket, sessions: int) -> tuple[float, dict[str, float]]:
    """User bytes, and kernel bytes by slab cache, that one idle session costs the relay.

    The same sessions are first held without the relay: what client and endpoint alone hold is not its price.
    """
    warm = WARM
    if relay.kind.forks:
        sessions, warm = min(sessions, FORKED_SESSIONS), FORKED_WARM
    bare = _hold(relay, endpoint_address(endpoint), endpoint, sessions, warm)
    held = _hold(relay, relay.entry(IDLE), endpoint, sessions, warm)
    alone = {name: size / bare.sessions for name, size in bare.caches.items()}
    return held.user / held.sessions, per_session(held.caches, held.sessions, alone)


def endpoint_address(endpoint: socket.socket) -> Address:
    """Where the idle sessions' endpoint listens."""
    host, port = endpoint.getsockname()
    return str(host), int(port)


def listening(host: str) -> socket.socket:
    """Make the endpoint of the idle sessions: this process accepts them itself."""
    endpoint = socket.create_server((host, 0), backlog=1024)
    endpoint.settimeout(TIMEOUT_S)
    return endpoint
