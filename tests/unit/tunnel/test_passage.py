"""Passages: a connection reaches the worker it is meant for, with every byte, or stays with who has it."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from appliance.net.sockets import Socket
from appliance.tunnel.passage import BURST, Passages
from tests.unit.net.loop import Loop, loop, open_fds, tcp_pair


@pytest.fixture
def at() -> Iterator[Loop]:
    before = open_fds()
    with loop() as made:
        yield made
    assert open_fds() == before


@pytest.fixture
def passages(at: Loop) -> Iterator[Passages]:  # the loop looks for fds that are left: it is last
    del at
    made = Passages(3)
    yield made
    made.close()


def test_a_connection_arrives_with_its_bytes(at: Loop, passages: Passages) -> None:
    """The worker meant gets the connection, with what was sent on it before and since; others do not."""
    taken: list[Socket] = []
    arrivals = [
        passages.receive(at.reactor, 0, lambda _: pytest.fail("to another worker")),
        passages.receive(at.reactor, 2, taken.append),
    ]
    client, accepted = tcp_pair()
    with client:
        client.send(b"before ")
        assert passages.give(2, accepted)
        accepted.close()
        client.send(b"since")
        at.until(lambda: taken)
        taken[0].settimeout(5.0)
        assert b"".join(taken[0].recv(1) for _ in range(12)) == b"before since"
        taken[0].close()
    for each in arrivals:
        each.close()


def test_a_worker_that_takes_no_more(at: Loop, passages: Passages) -> None:
    """A full queue refuses the next connection; the ones before arrive once the worker gets to them."""
    client, accepted = tcp_pair()
    given = 0
    while passages.give(1, accepted):
        given += 1
    assert given
    taken: list[Socket] = []
    arrivals = passages.receive(at.reactor, 1, taken.append)
    at.until(lambda: len(taken) == given)
    assert passages.give(1, accepted)
    at.until(lambda: len(taken) == given + 1)
    arrivals.close()
    for each in (client, accepted, *taken):
        each.close()


def test_a_turn_takes_a_burst(at: Loop, passages: Passages) -> None:
    """However many wait, one turn of the loop takes BURST of them: sessions have their turns, too."""
    client, accepted = tcp_pair()
    given = 0
    while given < 2 * BURST and passages.give(1, accepted):
        given += 1
    taken: list[Socket] = []
    arrivals = passages.receive(at.reactor, 1, taken.append)
    at.turn()
    assert len(taken) == min(given, BURST)
    at.until(lambda: len(taken) == given)
    arrivals.close()
    for each in (client, accepted, *taken):
        each.close()


def test_a_worker_that_died_leaves_them_to_the_next(at: Loop, passages: Passages) -> None:
    """What is given to a worker that takes nothing any more is taken by the one in its place."""
    passages.receive(at.reactor, 1, lambda _: pytest.fail("it is gone")).close()
    client, accepted = tcp_pair()
    assert passages.give(1, accepted)
    taken: list[Socket] = []
    next_one = passages.receive(at.reactor, 1, taken.append)
    at.until(lambda: taken)
    next_one.close()
    for each in (client, accepted, *taken):
        each.close()


def test_one_that_cannot_be_taken_stops_no_other(at: Loop, passages: Passages) -> None:
    """A connection that fails when it is taken is closed; the next one is taken."""
    seen: list[int] = []

    def take(connection: Socket) -> None:
        seen.append(connection.fileno())
        connection.close()
        raise OSError("broken")

    arrivals = passages.receive(at.reactor, 0, take)
    client, accepted = tcp_pair()
    for _ in range(2):
        assert passages.give(0, accepted)
    at.until(lambda: len(seen) == 2)
    arrivals.close()
    client.close()
    accepted.close()


def test_closing_drops_what_is_on_its_way(at: Loop) -> None:
    """Connections that nobody took are closed with the passages."""
    del at
    passages = Passages(1)
    client, accepted = tcp_pair()
    assert passages.give(0, accepted)
    accepted.close()
    passages.close()
    client.settimeout(5.0)
    with suppress(ConnectionResetError), client:
        assert client.recv(1) == b""
