"""A flow through agents: where it goes, and which link carries it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import pytest

from appliance.net.sockets import Endpoint, Socket
from appliance.outcome import Cause
from appliance.ruleset import Ruleset, read
from appliance.tunnel.datagram_channel import READ_BYTES, DatagramChannel
from appliance.tunnel.flow_carriage import FlowCarriage, FlowsViaAgent
from appliance.wire.messages import Failed, Open, Opened, framed
from tests.unit.tunnel.links import Agent, Gateway, gateway

if TYPE_CHECKING:
    from appliance.net.flow import Flow

RULES = b"""
[[rule]]
name = "rule"
listen = "127.0.0.1:1"
to = ["192.0.2.9:1", "192.0.2.9:2"]
protocol = "udp"
"""


@pytest.fixture
def here() -> Iterator[Gateway]:
    with gateway() as made:
        yield made


class Caller:
    """A flow, in short."""

    def __init__(self) -> None:
        self.channel: DatagramChannel | None = None
        self.cause: Cause | None = None

    def reached(self, connection: Socket, endpoint: Endpoint) -> None:
        del endpoint
        self.channel = cast("DatagramChannel", connection)

    def unreached(self, cause: Cause) -> None:
        self.cause = cause

    def lose(self) -> None:
        """Have no endpoint any more."""
        assert self.channel is not None
        self.channel.forget()
        self.channel = None


class Carriage(FlowCarriage):
    """One whose flow need not be one."""

    def order(self, to: str) -> Open:
        return Open("0" * 26, "rule", "udp", to, "192.0.2.1:1", "192.0.2.2:1", 3.0, 60.0)


def carriage(here: Gateway, caller: Caller) -> Carriage:
    ruleset = read(RULES, "rules.toml")
    assert isinstance(ruleset, Ruleset)
    buffer = memoryview(bytearray(READ_BYTES))
    upstream = FlowsViaAgent(here.at.reactor, here.crew, ruleset.rules[0], 0, lambda _: "0" * 26, buffer)
    return Carriage(upstream, cast("Flow", caller), ("192.0.2.9:1", "192.0.2.9:2"))


def answer(here: Gateway, agent: Agent, message: Opened | Failed) -> None:
    agent.channels[0].sendall(framed(message))
    here.at.turn()


def test_a_flow_is_carried_by_one_link(here: Gateway) -> None:
    """It goes on to its next endpoint on another link: it is no load of the first one any more."""
    first, second = here.join(), here.join()
    caller = Caller()
    way = carriage(here, caller)
    first.attach()
    way.go()
    answer(here, first, Opened("192.0.2.9:1"))
    assert (first.link.load, second.link.load) == (1, 0)
    caller.lose()
    second.attach()
    way.go()
    assert (first.link.load, second.link.load) == (0, 0)
    answer(here, second, Opened("192.0.2.9:2"))
    assert (first.link.load, second.link.load) == (0, 1)
    caller.lose()
    way.abandon()
    assert (first.link.load, second.link.load) == (0, 0)
    here.at.turn()
