"""A flood of strangers at the tunnel port: half a handshake, five thousand times, and all stay.

What strangers cost is bounded by how many there may be (`door.MOST_STRANGERS`, of one worker); an agent that
is here does not notice, and one that comes now gets in.
"""

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from appliance.tunnel.door import MOST_STRANGERS
from tests.e2e.gateway import open_fds, resident_bytes, rule, wait_for
from tests.e2e.peers import Endpoint, connect, read_exactly
from tests.e2e.strangers import client_hello
from tests.e2e.tunnel import Tunnel, agent, tunnel

STRANGERS = 5000

MOST_READY = 64
"""Channels by which the pool may have grown meanwhile."""

MOST_EACH = 100 << 10
"""Bytes that one may cost a worker: 61 kB were measured (OpenSSL's state, and this program's)."""


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Let this process have as many sockets as it may."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def flood(port: int, workers: int) -> Iterator[None]:
    """Begin handshakes, and let them stand."""
    flights = [client_hello(f"w{worker}.gateway.portway") for worker in range(workers)]
    with ExitStack() as stack:
        for number in range(STRANGERS):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            stranger.send(flights[number % workers])
        yield


def pass_a_byte(world: Tunnel, endpoint: Endpoint) -> None:
    """Take a session through the tunnel."""
    with connect(world.gateway.address("web")) as client, endpoint.accept() as server:
        client.sendall(b"1")
        assert read_exactly(server, 1) == b"1"


@pytest.mark.parametrize("workers", [1, 2])
def test_half_a_handshake_5000_times(workers: int) -> None:
    """Memory stays bounded, sessions pass, a new agent gets in, and nothing is left behind."""
    with Endpoint() as endpoint, tunnel(rule("web", endpoint.port, via="office"), workers=workers) as world:
        pass_a_byte(world, endpoint)
        pids = world.gateway.workers

        def fds() -> list[int]:
            return [open_fds(pid) for pid in pids]

        before, memory = fds(), [resident_bytes(pid) for pid in pids]
        with flood(world.port, workers):
            for _ in range(20):
                pass_a_byte(world, endpoint)
            grown = [resident_bytes(pid) - then for pid, then in zip(pids, memory, strict=True)]
            assert max(grown) < MOST_STRANGERS * MOST_EACH
            with agent(world.join, links=workers):
                world.await_links(2 * workers)
                pass_a_byte(world, endpoint)
            world.await_links(workers)
        wait_for("the descriptors of before", lambda: sum(fds()) < sum(before) + MOST_READY)
        refused = {record["refusal"] for record in world.gateway.events("tunnel_refused")}
        assert "crowded" in refused
        pass_a_byte(world, endpoint)
