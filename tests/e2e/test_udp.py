"""What a UDP flow carries: each datagram whole, in order, to nobody else; and the record it leaves."""

from contextlib import ExitStack

import pytest

from tests.e2e import needs
from tests.e2e.datagram_peers import (
    LARGEST,
    WINDOW,
    Answering,
    Peer,
    asks,
    counts,
    flow,
    flows,
)
from tests.e2e.gateway import Gateway, rule, ruleset
from tests.e2e.peers import payload

SIZES = (0, 1, 100, 1472, 1473, 9000, 0, 65_506, LARGEST, 2)
"""Bytes of datagrams: nothing, what fits an Ethernet frame, what does not, and the largest over IPv4."""

SOON = "300ms"


def test_datagrams_stay_whole_each_way() -> None:
    """A datagram of any size, an empty one too, arrives as one, unchanged, in order; the record counts it."""
    sent = [payload(size, seed=size) for size in SIZES]
    text = ruleset(rule("way", "127.0.0.1:{port}", protocol="udp", idle_timeout=SOON))
    with Peer() as endpoint, Peer() as client:
        with Gateway.start(text.format(port=endpoint.port)) as gateway:
            address = gateway.address("way")
            for data in sent:
                client.send(data, address)
                came, theirs = endpoint.receive()
                assert came == data
                endpoint.send(data[::-1], theirs)
                assert client.receive() == (data[::-1], address)
            record = flow(gateway)
        total = sum(SIZES)
        assert counts(record) == (len(SIZES), total, len(SIZES), total)
        assert (record["stage"], record["cause"], record["level"]) == ("relay", "idle_timeout", "info")
        assert (record["rule"], record["client"], record["endpoint"]) == ("way", client.to, endpoint.to)
        assert record["listener"] == f"127.0.0.1:{address[1]}"
        assert "drops" not in record
        assert "attempts" not in record
        assert 0 < record["first_byte_ms"] < record["duration_ms"]


def test_each_way_is_counted_for_itself() -> None:
    """A flow whose endpoint is silent, or talks more than it is asked, counts each way exactly."""
    with Peer() as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=SOON))
        with Gateway.start(text) as gateway:
            for size in range(7):
                client.send(bytes(size), gateway.address("way"))
            (theirs,) = {endpoint.receive()[1] for _ in range(7)}
            for size in range(1000, 1040):
                endpoint.send(bytes(size), theirs)
            assert [len(client.take()) for _ in range(40)] == list(range(1000, 1040))
            record = flow(gateway)
        assert counts(record) == (7, sum(range(7)), 40, sum(range(1000, 1040)))


def test_a_silent_endpoint_leaves_no_first_byte() -> None:
    """A flow that had no answer says so by what its record lacks."""
    with Peer() as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=SOON))
        with Gateway.start(text) as gateway:
            client.send(b"anybody?", gateway.address("way"))
            assert endpoint.take() == b"anybody?"
            record = flow(gateway)
        assert counts(record) == (1, 8, 0, 0)
        assert "first_byte_ms" not in record
        assert "connect_ms" not in record


def test_order_is_kept_in_bursts() -> None:
    """Datagrams of many sizes that come in bursts, both ways at once, arrive in their order."""
    with Peer(receive=1 << 20) as endpoint, Peer(receive=1 << 20) as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=SOON))
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            client.send(b"hello", address)
            theirs = endpoint.receive()[1]
            for burst in range(60):
                ups = [payload(number * 7 % 300, seed=burst) + b"%d" % number for number in range(WINDOW)]
                for data in ups:
                    client.send(data, address)
                    endpoint.send(data[::-1], theirs)
                assert [endpoint.take() for _ in ups] == ups
                assert [client.take() for _ in ups] == [data[::-1] for data in ups]
            record = flow(gateway)
        assert (record["up_datagrams"], record["down_datagrams"]) == (60 * WINDOW + 1, 60 * WINDOW)
        assert "drops" not in record


def test_clients_do_not_mix() -> None:
    """Each client has a flow of its own, with a port of its own at the endpoint, and gets its own answers."""
    with Answering(answers=lambda data: [data + b" answered"]) as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout="500ms"))
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            clients = [ends.enter_context(Peer((f"127.0.0.{1 + number % 3}", 0))) for number in range(60)]
            for turn in range(5):
                for number, client in enumerate(clients):
                    client.send(b"%d of %d" % (turn, number), address)
                for number, client in enumerate(clients):
                    assert client.receive() == (b"%d of %d answered" % (turn, number), address)
            records = flows(gateway, len(clients))
        assert {record["client"] for record in records} == {client.to for client in clients}
        assert {record["up_datagrams"] for record in records} == {5}
        assert {record["down_datagrams"] for record in records} == {5}
        assert len({record["session"] for record in records}) == len(records)
        assert sorted(endpoint.came.values()) == [5] * len(clients)
        assert not any(client.waiting() for client in clients)


def test_one_client_at_two_listeners() -> None:
    """A client that writes to two listeners of a rule has two flows, and each answer comes from its own."""
    with Answering() as endpoint, Peer() as client:
        text = rule("way", endpoint.port, protocol="udp", idle_timeout=SOON).replace(
            'listen = "127.0.0.1:0"', 'listen = ["127.0.0.1:0", "127.0.0.1:0"]'
        )
        with Gateway.start(ruleset(text)) as gateway:
            for turn in range(6):
                assert asks(client, gateway.address("way", turn % 2), b"%d" % turn)
            records = flows(gateway, 2)
        assert {record["client"] for record in records} == {client.to}
        assert len({record["listener"] for record in records}) == 2
        assert [counts(record) for record in records] == [(3, 3, 3, 3)] * 2
        assert sorted(endpoint.came.values()) == [3, 3]


def test_a_client_is_heard_again_after_its_flow_ended() -> None:
    """A client whose flow has ended begins another one with its next datagram."""
    with Answering() as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout="150ms"))
        with Gateway.start(text) as gateway:
            for turn in range(3):
                assert asks(client, gateway.address("way"))
                flows(gateway, turn + 1)
        assert sum(endpoint.came.values()) == 3


def test_only_its_endpoint_reaches_a_client() -> None:
    """What a stranger sends to a flow's port at the endpoint's side reaches no client."""
    with Peer() as endpoint, Peer() as client, Peer() as stranger:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=SOON))
        with Gateway.start(text) as gateway:
            client.send(b"question", gateway.address("way"))
            theirs = endpoint.receive()[1]
            for _ in range(3):
                stranger.send(b"forged", ("127.0.0.1", theirs[1]))
            endpoint.send(b"answer", theirs)
            assert client.take() == b"answer"
            assert counts(flow(gateway)) == (1, 8, 1, 6)
        assert not client.waiting()


@pytest.mark.parametrize("workers", [1, 3])
def test_ipv6(workers: int) -> None:
    """An IPv6 listener with an IPv6 endpoint carries datagrams up to the largest, and writes brackets."""
    needs.ipv6()
    sizes = (0, 1, 1452, 1453, 65_507, 65_527)
    with Peer(("::1", 0)) as endpoint, Peer(("::1", 0)) as client:
        text = rule("six", endpoint.to, listen="[::1]:0", protocol="udp", idle_timeout=SOON)
        with Gateway.start(ruleset(text, workers=workers)) as gateway:
            address = ("::1", gateway.port("six"))
            for size in sizes:
                data = payload(size, seed=size)
                client.send(data, address)
                came, theirs = endpoint.receive()
                assert came == data
                endpoint.send(data[::-1], theirs)
                assert client.receive() == (data[::-1], address)
            record = flow(gateway)
        assert counts(record) == (len(sizes), sum(sizes), len(sizes), sum(sizes))
        assert (record["client"], record["endpoint"]) == (client.to, endpoint.to)
        assert record["listener"] == f"[::1]:{address[1]}"


def test_a_datagram_too_long_for_the_way_on() -> None:
    """What fits IPv6 and not IPv4 is dropped and counted, each way, and the flow goes on."""
    needs.ipv6()
    with Answering() as endpoint, Peer(("::1", 0)) as client, Peer(("::1", 0)) as far, Peer() as near:
        text = ruleset(
            rule("up", endpoint.port, listen="[::1]:0", protocol="udp", idle_timeout=SOON),
            rule("down", far.to, protocol="udp", idle_timeout=SOON),
        )
        with Gateway.start(text) as gateway:
            address = ("::1", gateway.port("up"))
            assert asks(client, address, payload(LARGEST))
            client.send(bytes(LARGEST + 1), address)
            client.send(bytes(65_527), address)
            assert asks(client, address, b"still here")
            near.send(b"ask", gateway.address("down"))
            theirs = far.receive()[1]
            far.send(bytes(LARGEST + 1), theirs)
            far.send(b"short", theirs)
            assert near.take() == b"short"
            records = {record["rule"]: record for record in flows(gateway, 2)}
        assert records["up"]["drops"] == {"too_long": 2}
        assert counts(records["up"]) == (2, LARGEST + 10, 2, LARGEST + 10)
        assert records["down"]["drops"] == {"too_long": 1}
        assert counts(records["down"]) == (1, 3, 1, 5)


def test_a_first_datagram_too_long_for_the_way_on() -> None:
    """A flow that begins with a datagram that cannot be sent on is one all the same, and takes the next."""
    needs.ipv6()
    with Answering() as endpoint, Peer(("::1", 0)) as client:
        text = rule("way", endpoint.port, listen="[::1]:0", protocol="udp", idle_timeout=SOON)
        with Gateway.start(ruleset(text)) as gateway:
            address = ("::1", gateway.port("way"))
            client.send(bytes(LARGEST + 1), address)
            assert asks(client, address)
            record = flow(gateway)
        assert record["drops"] == {"too_long": 1}
        assert counts(record) == (1, 4, 1, 4)


def test_forward_udp() -> None:
    """`portway forward LISTEN TO --udp` is one rule for datagrams, with no file."""
    with Answering() as endpoint, Peer() as client:
        verb = ("forward", "127.0.0.1:0", endpoint.to, "--udp")
        with Gateway.start("", verb=verb) as gateway:
            (listening,) = gateway.events("listening")
            assert listening["protocol"] == "udp"
            assert asks(client, gateway.address(listening["rule"]))
            gateway.stop()
            record = flow(gateway)
        assert counts(record) == (1, 4, 1, 4)
