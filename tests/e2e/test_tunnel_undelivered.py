"""Clients that are slow to take the end of their session: who comes next does not wait for them."""

import socket
from contextlib import ExitStack

from tests.e2e.gateway import rule
from tests.e2e.peers import SMALL_BUFFER, Endpoint, connect, read_to_end
from tests.e2e.tunnel import tunnel

ANSWER = 5 << 20
"""Bytes: more than the kernel takes for a client that reads nothing, less than it does with a channel."""

SLOW = 8
"""Clients, four times as many as a link keeps channels ready at first."""


def test_sessions_that_are_over_at_the_agent_only_do_not_use_up_its_channels() -> None:
    """The agent does not count a channel as ready that the gateway still delivers from."""
    with Endpoint() as endpoint, tunnel(rule("web", endpoint.to, via="office")) as world, ExitStack() as slow:
        for _ in range(SLOW):
            client = slow.enter_context(connect(world.gateway.address("web"), receive=SMALL_BUFFER))
            client.sendall(b"?")
            client.shutdown(socket.SHUT_WR)
            with endpoint.accept() as server:
                assert read_to_end(server) == b"?"
                server.sendall(bytes(ANSWER))
        with connect(world.gateway.address("web")) as client, endpoint.accept() as server:
            server.sendall(b"here")
            assert client.recv(4) == b"here"
