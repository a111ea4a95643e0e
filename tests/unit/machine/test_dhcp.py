"""The DHCP client, on a clock of the test's own."""

from ipaddress import IPv4Interface
from itertools import pairwise
from random import Random

import pytest

from appliance.machine import dhcp
from appliance.machine.dhcp import Actions, Client, State
from appliance.machine.dhcp_message import Lease, MessageType, Option
from tests.unit.machine.leases import MAC, options_of, reply, xid_of


class World:
    """A client, and everything it did."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 100.0
        self.sent: list[tuple[bytes, str]] = []
        self.bound: list[Lease] = []
        self.lost: list[Lease] = []
        actions = Actions(lambda data, to: self.sent.append((data, to)), self.bound.append, self.lost.append)
        self.client = Client(MAC, actions, Random(seed))

    def kinds(self) -> list[tuple[int, str]]:
        """What was sent so far, and to whom; forgets it."""
        sent = [(options_of(data)[Option.MESSAGE_TYPE][0], to) for data, to in self.sent]
        self.sent.clear()
        return sent

    def answer(self, kind: MessageType, address: str = "192.0.2.50", seconds: int = 1000) -> None:
        """Have the server answer the latest message."""
        self.client.take(reply(kind, xid_of(self.sent[-1][0]), address=address, seconds=seconds), self.now)

    def wait(self) -> float:
        """Let time pass to the next moment; how long that was."""
        passed = self.client.due - self.now
        self.now = self.client.due
        self.client.tick(self.now)
        return passed

    def bind(self, seconds: int = 1000) -> None:
        """Get a lease."""
        self.client.start(self.now)
        self.answer(MessageType.OFFER, seconds=seconds)
        self.answer(MessageType.ACK, seconds=seconds)
        self.sent.clear()


@pytest.fixture(name="world")
def make_world() -> World:
    return World()


def test_discover_offer_request_ack(world: World) -> None:
    """Four messages make a lease, the request names the offered address and its server."""
    world.client.start(world.now)
    world.answer(MessageType.OFFER)
    assert options_of(world.sent[-1][0])[Option.REQUESTED_ADDRESS] == bytes((192, 0, 2, 50))
    assert options_of(world.sent[-1][0])[Option.SERVER] == bytes((192, 0, 2, 1))
    world.answer(MessageType.ACK)
    assert [lease.address for lease in world.bound] == [IPv4Interface("192.0.2.50/24")]
    assert world.client.state is State.BOUND
    assert world.client.due == 100 + 500
    assert world.kinds() == [(1, dhcp.BROADCAST), (3, dhcp.BROADCAST)]


def test_nobody_answers(world: World) -> None:
    """A discover is sent again after 1, 2, 4 ... 64 s, a quarter of that more or less, for ever."""
    world.client.start(world.now)
    waits = [world.wait() for _ in range(10)]
    for wait, wanted in zip(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64, 64], strict=True):
        assert 0.75 * wanted <= wait <= 1.25 * wanted
    assert world.kinds() == [(1, dhcp.BROADCAST)] * 11


def test_machines_do_not_wait_in_step() -> None:
    """Two clients that start together ask again at different moments."""
    one, other = World(1), World(2)
    one.client.start(100.0)
    other.client.start(100.0)
    assert one.client.due != other.client.due


def test_an_offer_that_is_not_kept(world: World) -> None:
    """A request that nobody answers is sent four times; then the client looks for a server anew."""
    world.client.start(world.now)
    world.answer(MessageType.OFFER)
    for _ in range(4):
        world.wait()
    assert [kind for kind, _ in world.kinds()] == [1, 3, 3, 3, 3, 1]
    assert world.client.state is State.SELECTING


def test_renewal(world: World) -> None:
    """At T1 the server is asked by unicast, and its answer prolongs the lease."""
    world.bind()
    world.wait()
    assert world.now == 600
    assert world.sent[-1][1] == "192.0.2.1"
    assert world.sent[-1][0][12:16] == bytes((192, 0, 2, 50))
    world.answer(MessageType.ACK)
    assert world.client.due == 600 + 500
    assert world.lost == []


def test_rebinding_and_the_end(world: World) -> None:
    """Unanswered, any server is asked from T2 on, and at its end the address is given up."""
    world.bind()
    moments: list[tuple[float, str]] = []
    for _ in range(100):
        if world.client.lease is None:
            break
        world.wait()
        moments.append((world.now, world.sent[-1][1]))
    assert moments[:1] == [(600, "192.0.2.1")]
    assert [to for now, to in moments if now < 975] == ["192.0.2.1"] * sum(now < 975 for now, _ in moments)
    assert {to for now, to in moments if now >= 975} == {dhcp.BROADCAST}
    assert moments[-1][0] == 1100
    assert len(world.lost) == 1
    assert all(later - now >= 60 or later in {975, 1100} for (now, _), (later, _) in pairwise(moments))
    assert world.client.state is State.SELECTING


def test_a_nak_ends_the_lease(world: World) -> None:
    """A server that takes the address back is obeyed at once, and asked again after a rest."""
    world.bind()
    world.wait()
    world.answer(MessageType.NAK)
    assert [lease.address for lease in world.lost] == [IPv4Interface("192.0.2.50/24")]
    assert 7 <= world.wait() <= 13
    assert world.kinds()[-1] == (1, dhcp.BROADCAST)


def test_another_address_at_renewal(world: World) -> None:
    """A server may give another address: the old one goes before the new one comes."""
    world.bind()
    world.wait()
    world.answer(MessageType.ACK, address="192.0.2.51")
    assert [str(lease.address.ip) for lease in world.lost] == ["192.0.2.50"]
    assert [str(lease.address.ip) for lease in world.bound] == ["192.0.2.50", "192.0.2.51"]


def test_a_lease_for_ever_is_never_renewed(world: World) -> None:
    """A lease without an end leaves nothing to do."""
    world.bind(seconds=0xFFFFFFFF)
    assert world.client.due == float("inf")


def test_answers_of_other_exchanges(world: World) -> None:
    """A message with another transaction, or in no state that waits for one, changes nothing."""
    world.client.start(world.now)
    wrong = xid_of(world.sent[-1][0]) ^ 1
    world.client.take(reply(MessageType.OFFER, wrong), world.now)
    assert world.client.state is State.SELECTING
    world.answer(MessageType.ACK)
    assert world.bound == []
    world.answer(MessageType.OFFER)
    world.answer(MessageType.ACK)
    world.client.take(reply(MessageType.NAK, xid_of(world.sent[-1][0])), world.now)
    assert world.lost == []
