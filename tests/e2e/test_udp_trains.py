"""Trains (UDP_SEGMENT, UDP_GRO) through the gateway: what was one datagram leaves as one.

What makes the gateway receive trains as such is a few equal datagrams in one go. So bursts are sent while its
worker stands still: then it has them all at once.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import pytest

from tests.e2e import needs
from tests.e2e.datagram_peers import (
    SOL_UDP,
    UDP_GRO,
    Address,
    Peer,
    counts,
    cut,
    flow,
    inside,
    send_train,
    stopped,
    take_train,
)
from tests.e2e.gateway import Gateway, rule, ruleset
from tests.e2e.test_udp_addresses import namespace

FOREVER = "1h"
MOST_SEGMENTS = 64
"""In one train (UDP_MAX_SEGMENTS before Linux 6.9)."""
ON_THE_WAY = 60_000
"""Bytes of one train, and of all that is sent before it is received: it fits the default buffer twice."""
BUFFER = 1 << 22


def train_of(size: int, seed: int, *, shorter: bool) -> list[bytes]:
    """Make as many datagrams of a size as one train may have, the last one perhaps shorter."""
    dice = random.Random(seed)
    made = [dice.randbytes(size) for _ in range(min(MOST_SEGMENTS, ON_THE_WAY // size))]
    return [*made[:-1], made[-1][: size // 2]] if shorter and size > 1 else made


def take(receiver: Peer, count: int) -> tuple[list[bytes], set[Address]]:
    """Receive so many datagrams, alone or in trains; give them and who sent them."""
    came: list[bytes] = []
    senders = set()
    while len(came) < count:
        datagrams, sender = take_train(receiver)
        came += datagrams
        senders.add(sender)
    return came, senders


def check(came: list[bytes], sent: list[bytes]) -> None:
    """Compare datagrams; say what differs by their lengths, since megabytes are nothing to print."""
    if came != sent:
        at = next(
            (n for n, pair in enumerate(zip(came, sent, strict=False)) if pair[0] != pair[1]), len(came)
        )
        these, those = ([len(each) for each in some[at : at + 8]] for some in (came, sent))
        raise AssertionError(f"from datagram {at} of {len(sent)} on: lengths {these} instead of {those}")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0"])
@pytest.mark.parametrize("joined", [True, False], ids=["joined", "single"])
@pytest.mark.parametrize("size", [1, 100, 1200, 1472, 8000])
def test_trains_keep_their_boundaries(size: int, listen: str, *, joined: bool) -> None:
    """Trains of any size, with a shorter last datagram too, arrive as the datagrams they were, both ways."""
    with Peer(receive=BUFFER) as endpoint, Peer(receive=BUFFER) as client:
        for receiver in (endpoint, client):
            receiver.socket.setsockopt(SOL_UDP, UDP_GRO, int(joined))
        text = ruleset(rule("way", endpoint.port, listen=listen, protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            (worker,) = gateway.workers
            sent, sides = 0, set()
            for turn in range(60):
                train = train_of(size, turn, shorter=bool(turn % 3))
                with ExitStack() as held:
                    if turn % 4 == 0:
                        held.enter_context(stopped(worker))
                    send_train(client, train, address)
                came, senders = take(endpoint, len(train))
                check(came, train)
                sides |= senders
                back = train_of(size, -turn, shorter=bool(turn % 5))
                (theirs,) = sides
                with ExitStack() as held:
                    if turn % 4 == 1:
                        held.enter_context(stopped(worker))
                    send_train(endpoint, back, theirs)
                came, senders = take(client, len(back))
                check(came, back)
                assert senders == {address}
                sent += len(train)
            (record,) = cut(gateway)
        assert counts(record)[::2] == (sent, sent)
        assert "drops" not in record


def test_one_flow_before_and_after_trains_begin() -> None:
    """A client whose datagrams turn into trains, and back, has the same flow all the time."""
    with Peer(receive=BUFFER) as endpoint, Peer() as client, Peer() as other:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout="1s"))
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            (worker,) = gateway.workers
            other.send(b"hello", address)
            others = endpoint.receive()[1]
            sides = set()
            for turn in range(8):
                with stopped(worker):
                    for number in range(4):
                        send_train(client, train_of(100, number, shorter=False)[:16], address)
                    other.send(b"%d" % turn, address)
                for _ in range(65):
                    data, theirs = endpoint.receive()
                    if len(data) == 100:
                        sides.add(theirs)
                    else:
                        assert (data, theirs) == (b"%d" % turn, others)
                for number in range(70):  # each by itself, until the gateway asks for trains no more
                    client.send(bytes(number), address)
                    sides.add(endpoint.receive()[1])
            assert len(sides) == 1
            records = {record["client"]: record for record in gateway.sessions(2)}
        assert len(records) == 2
        assert counts(records[client.to])[0] == 8 * (64 + 70)
        assert counts(records[other.to])[0] == 9


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("singles", [60, 63, 64, 65, 70, 128, 200])
def test_a_train_right_behind_many_singles(way: str, singles: int) -> None:
    """Trains that wait behind so many single datagrams that trains are given up stay what they were."""
    with Peer(receive=BUFFER) as endpoint, Peer(receive=BUFFER) as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            client.send(b"hello", gateway.address("way"))
            theirs = endpoint.receive()[1]
            source, sink, to = {
                "up": (client, endpoint, gateway.address("way")),
                "down": (endpoint, client, theirs),
            }[way]
            for turn in range(12):
                train = train_of(100, turn, shorter=True)[:20]
                alone = [bytes([turn, number]) + bytes(number) for number in range(singles)]
                for _ in range(3):
                    send_train(source, train, to)
                    check(take(sink, len(train))[0], train)
                with stopped(worker):
                    for data in alone:
                        source.send(data, to)
                    for _ in range(2):
                        send_train(source, train, to)
                check(take(sink, singles + 2 * len(train))[0], alone + train + train)
            cut(gateway)


class Talk:
    """A client's datagrams, numbered, in batches of trains and singles by dice; and its flow."""

    def __init__(self, client: Peer, seed: int) -> None:
        self.client = client
        self.name = seed
        self.dice = random.Random(seed)
        self.side: Address | None = None
        """The flow's address at the endpoint."""
        self.up = self.down = 0

    def batch(self, number: int, room: int) -> list[list[bytes]]:
        """Make trains and single datagrams, of `room` bytes or so; each begins with who and which it is."""
        made = []
        while room > 0:
            size = min(self.dice.choice((8, 8, 20, 300, 1200, 1472, 5000)), room + 8)
            length = min(self.dice.choice((1, 1, 1, 3, 10, 40, MOST_SEGMENTS)), max(1, room // size))
            train = []
            for _ in range(length):
                head = self.name.to_bytes(4) + number.to_bytes(4)
                train.append(head + self.dice.randbytes(size - len(head)))
                number += 1
            if length > 1 and self.dice.random() < 0.5:
                train[-1] = train[-1][: self.dice.randint(8, size)]
            made.append(train)
            room -= size * length + 300 * length
        return made


def send_all(sender: Peer, trains: Iterable[list[bytes]], to: Address) -> Iterator[bytes]:
    """Send trains and singles; give their datagrams."""
    for train in trains:
        if len(train) > 1:
            send_train(sender, train, to)
        else:
            sender.send(train[0], to)
        yield from train


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0"])
@pytest.mark.parametrize("workers", [1, 2])
def test_trains_and_singles_of_several_clients(listen: str, workers: int) -> None:
    """Thousands of trains mixed with single datagrams, of several clients at once, both ways: all arrive."""
    with Peer(receive=BUFFER) as endpoint, ExitStack() as ends:
        endpoint.socket.setsockopt(SOL_UDP, UDP_GRO, 1)
        text = rule("way", endpoint.port, listen=listen, protocol="udp", idle_timeout=FOREVER)
        with Gateway.start(ruleset(text, workers=workers)) as gateway:
            address = gateway.address("way")
            talks = {n: Talk(ends.enter_context(Peer(receive=BUFFER)), n) for n in range(1, 6)}
            for talk in list(talks.values())[::2]:
                talk.client.socket.setsockopt(SOL_UDP, UDP_GRO, 1)
            for talk in talks.values():
                talk.client.send(b"hello", address)
                talk.side = endpoint.receive()[1]
            pause = random.Random(7)
            for _ in range(150):
                expected: dict[int, list[bytes]] = {}
                with ExitStack() as held:
                    if pause.random() < 0.3:
                        for pid in gateway.workers:
                            held.enter_context(stopped(pid))
                    for name, talk in talks.items():
                        batch = talk.batch(talk.up, ON_THE_WAY // 4)
                        expected[name] = list(send_all(talk.client, batch, address))
                came: dict[int, list[bytes]] = {name: [] for name in talks}
                while sum(map(len, came.values())) < sum(map(len, expected.values())):
                    datagrams, side = take_train(endpoint)
                    talk = talks[int.from_bytes(datagrams[0][:4])]
                    assert talk.side == side, "a second flow"
                    came[talk.name] += datagrams
                for name, talk in talks.items():
                    check(came[name], expected[name])
                    talk.up += len(expected[name])
                    assert talk.side is not None
                    back = talk.batch(talk.down, ON_THE_WAY)
                    answers = list(send_all(endpoint, back, talk.side))
                    check(take(talk.client, len(answers))[0], answers)
                    talk.down += len(answers)
            records = {record["client"]: record for record in cut(gateway)}
        assert len(records) == len(talks)
        for talk in talks.values():
            assert counts(records[talk.client.to])[::2] == (talk.up + 1, talk.down)
            assert "drops" not in records[talk.client.to]


def test_trains_with_one_byte_each() -> None:
    """Trains of 64 datagrams of one byte each arrive as 64 datagrams."""
    with Peer(receive=BUFFER) as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout="500ms"))
        with Gateway.start(text) as gateway:
            for turn in range(100):
                train = [bytes([turn + number]) for number in range(MOST_SEGMENTS)]
                send_train(client, train, gateway.address("way"))
                check(take(endpoint, MOST_SEGMENTS)[0], train)
            record = flow(gateway)
        assert counts(record)[:2] == (6400, 6400)


@pytest.mark.parametrize("rounds", [1, 30])
def test_a_way_on_that_takes_no_trains(rounds: int) -> None:
    """Where the way on takes no train of that size, its datagrams go out one by one, and none is lost."""
    # On lo any size of segment is taken; a route with a smaller MTU refuses those longer than that.
    wrap = namespace(
        "ip address add 10.9.9.9/32 dev lo",
        "ip route replace local 10.9.9.9 dev lo table local mtu 1400",
    )
    text = rule("way", "10.9.9.9:7000", protocol="udp", idle_timeout=FOREVER)
    with Gateway.start(ruleset(text), wrap=wrap) as gateway, ExitStack() as ends:
        pid = gateway.process.pid
        (worker,) = gateway.workers
        endpoint = ends.enter_context(inside(pid, lambda: Peer(("10.9.9.9", 7000), receive=BUFFER)))
        client = ends.enter_context(inside(pid, lambda: Peer(receive=BUFFER)))
        sent = 0
        for turn in range(rounds):
            for size in (4000, 1000):
                train = train_of(size, turn, shorter=True)[:8]
                with stopped(worker):
                    for _ in range(2):
                        send_train(client, train, gateway.address("way"))
                came, senders = take(endpoint, 2 * len(train))
                check(came, train + train)
                (theirs,) = senders
                sent += 2 * len(train)
                endpoint.send(b"answer", theirs)
                assert client.take() == b"answer"
        (record,) = cut(gateway)
        assert counts(record)[::2] == (sent, 2 * rounds)
        assert "drops" not in record


@pytest.mark.parametrize("endpoint_host", ["::1", "127.0.0.1"])
def test_trains_over_ipv6(endpoint_host: str) -> None:
    """Trains keep their boundaries over IPv6, and from IPv6 to IPv4."""
    needs.ipv6()
    with Peer((endpoint_host, 0), receive=BUFFER) as endpoint, Peer(("::1", 0), receive=BUFFER) as client:
        for receiver in (endpoint, client):
            receiver.socket.setsockopt(SOL_UDP, UDP_GRO, 1)
        text = rule("way", endpoint.to, listen="[::]:0", protocol="udp", idle_timeout=FOREVER)
        with Gateway.start(ruleset(text)) as gateway:
            (worker,) = gateway.workers
            address = ("::1", gateway.port("way"))
            sides = set()
            for turn in range(40):
                train = train_of(1200, turn, shorter=bool(turn % 2))
                with stopped(worker):
                    send_train(client, train, address)
                came, senders = take(endpoint, len(train))
                check(came, train)
                sides |= senders
                (theirs,) = sides
                send_train(endpoint, train, theirs)
                check(take(client, len(train))[0], train)
            (record,) = cut(gateway)
        assert counts(record)[0] == counts(record)[2]
