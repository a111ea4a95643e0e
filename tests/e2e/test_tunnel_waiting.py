"""Sessions that come before their agent."""

from contextlib import ExitStack

from tests.e2e.gateway import rule
from tests.e2e.peers import Echo, connect, echoes
from tests.e2e.tunnel import agent, tunnel


def test_sessions_that_wait_are_served_as_soon_as_an_agent_is_there() -> None:
    """A gateway that has just started lets sessions wait for the agent; those get its first data channels."""
    with (
        Echo() as echo,
        tunnel(rule("web", echo.port, via="office", connect_timeout="20s"), agents=0) as world,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(world.gateway.address("web"))) for _ in range(20)]
        with agent(world.join) as running, stack:
            assert all(echoes(client) for client in clients)
            assert not running.events("tunnel_down")
