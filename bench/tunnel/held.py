"""Memory of a tunnel: both ends at rest, and with sessions that rest."""

import socket
from contextlib import ExitStack

from bench.account import settled_cpu_seconds, user_bytes
from bench.idle import endpoint_address, open_sessions, steady_caches
from bench.loads import Numbers
from bench.process import Address, FailedError
from bench.relays import IDLE, Running

MEGABYTE = 1e6


def _kernel_bytes() -> int | None:
    caches = steady_caches(forks=False)
    return sum(caches.values()) if caches else None


def _resting_bytes(relay: Running) -> int:
    settled_cpu_seconds(relay.roots, reap=False)
    return user_bytes(relay.roots)


def _grown(entry: Address, endpoint: socket.socket, sessions: int, held: ExitStack) -> int | None:
    """Open sessions and keep them: by how much the kernel's memory grew; None for who may not read it."""
    before = _kernel_bytes()
    try:
        open_sessions(entry, endpoint, sessions, held)
    except OSError as error:
        raise FailedError(f"idle sessions: {error}") from error
    after = _kernel_bytes()
    return None if before is None or after is None else after - before


def bare_growth(endpoint: socket.socket, sessions: int) -> int | None:
    """Tell what as many sessions make the kernel hold without a tunnel, for client and endpoint."""
    with ExitStack() as held:
        return _grown(endpoint_address(endpoint), endpoint, sessions, held)


def measure_memory(relay: Running, endpoint: socket.socket, sessions: int, bare: int | None) -> Numbers:
    """Memory of both ends in MB: without sessions, with them, and what the kernel holds more than `bare`."""
    with ExitStack() as held:
        alone = _resting_bytes(relay)
        kernel = _grown(relay.entry(IDLE), endpoint, sessions, held)
        full = _resting_bytes(relay)
    numbers = {"memory_alone": alone / MEGABYTE, "memory_full": full / MEGABYTE}
    if kernel is None or bare is None:
        return numbers
    return numbers | {"memory_kernel": (kernel - bare) / MEGABYTE}
