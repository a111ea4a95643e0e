"""How many flows there may be: of a rule, of one of its clients; and which one ends to make room."""

import os
import signal
from collections import Counter
from contextlib import ExitStack

import pytest

from tests.e2e.datagram_peers import Answering, Peer, asks, counts, cut, flows
from tests.e2e.gateway import Gateway, Record, open_fds, rule, ruleset, wait_for

FOREVER = "1h"


def limited(gateway: Gateway, count: int) -> list[Record]:
    """Wait until so many flows have ended to make room, and nothing else has ended; give them in order."""
    records = flows(gateway, count)
    assert {record["cause"] for record in records} <= {"flow_limit"}, records
    return records


@pytest.mark.parametrize("touched", ["abc", "cba", "bca", "bac", "aaabcb", "cabac"])
def test_the_least_recently_used_flow_makes_room(touched: str) -> None:
    """At max_flows a new flow ends the one that was used longest ago, in whatever order they were used."""
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", endpoint.port, protocol="udp", max_flows=3, idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            clients = {name: ends.enter_context(Peer()) for name in "abcdefg"}
            for name in "abc" + touched:
                assert asks(clients[name], address)
            by_use = sorted("abc", key=touched.rindex)
            for number, new in enumerate("def"):
                assert asks(clients[new], address)
                records = limited(gateway, number + 1)
                assert records[number]["client"] == clients[by_use[number]].to
                assert records[number]["level"] == "warning"
                assert counts(records[number])[0] == 1 + touched.count(by_use[number])
            assert asks(clients["d"], address)  # still the flow it had
            assert asks(clients["g"], address)
            assert limited(gateway, 4)[3]["client"] == clients["e"].to
            live = cut(gateway)[4:]
        assert {record["client"] for record in live} == {clients[name].to for name in "dfg"}
        assert {record["cause"] for record in live} == {"drain"}


def test_an_answer_is_a_use_too() -> None:
    """A flow in which only its endpoint talks is not the least recently used one."""
    with Peer() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", endpoint.port, protocol="udp", max_flows=3, idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            one, two, three, four = clients = [ends.enter_context(Peer()) for _ in range(4)]
            sides = {}
            for client in clients[:3]:
                client.send(b"hello", gateway.address("way"))
                sides[client] = endpoint.receive()[1]
            for client in (two, one):
                endpoint.send(b"down", sides[client])
                assert client.take() == b"down"
            four.send(b"hello", gateway.address("way"))
            assert endpoint.take() == b"hello"
            assert limited(gateway, 1)[0]["client"] == three.to
            three.send(b"again", gateway.address("way"))
            assert endpoint.take() == b"again"
            assert limited(gateway, 2)[1]["client"] == two.to
            cut(gateway)


def test_an_evicted_client_begins_anew() -> None:
    """A client whose flow made room for another one has a new flow with its next datagram."""
    with Answering() as endpoint, Peer() as one, Peer() as two:
        text = ruleset(rule("way", endpoint.port, protocol="udp", max_flows=1, idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            before = open_fds(worker)
            for _ in range(50):
                assert asks(one, gateway.address("way"))
                assert asks(two, gateway.address("way"))
            records = limited(gateway, 99)
            wait_for("one descriptor to be open", lambda: open_fds(worker) == before + 1)
            assert Counter(record["client"] for record in records) == {one.to: 50, two.to: 49}
            cut(gateway)


def test_one_client_has_no_more_than_its_share() -> None:
    """At max_flows_per_client a client ends its own least recently used flow, and no one else's."""
    with Answering() as endpoint, ExitStack() as ends:
        text = rule("way", endpoint.port, protocol="udp", max_flows_per_client=2, idle_timeout=FOREVER)
        with Gateway.start(ruleset(text)) as gateway:
            address = gateway.address("way")
            greedy = [ends.enter_context(Peer(("127.0.0.7", 0))) for _ in range(5)]
            modest = [ends.enter_context(Peer((f"127.0.0.{number}", 0))) for number in (1, 1, 2, 2, 3)]
            for client in (*modest, *greedy):
                assert asks(client, address)
            assert [record["client"] for record in limited(gateway, 3)] == [one.to for one in greedy[:3]]
            for client in (greedy[3], greedy[4], greedy[3], *modest):
                assert asks(client, address)
            assert asks(greedy[0], address)
            assert limited(gateway, 4)[3]["client"] == greedy[4].to
            live = cut(gateway)[4:]
        assert {record["client"] for record in live} == {one.to for one in (*modest, greedy[0], greedy[3])}
        assert {record["cause"] for record in live} == {"drain"}


def test_both_caps_at_once() -> None:
    """A rule with both caps keeps both: a client's own flow ends first, then the rule's oldest."""
    with Answering() as endpoint, ExitStack() as ends:
        text = rule(
            "way", endpoint.port, protocol="udp", max_flows=3, max_flows_per_client=2, idle_timeout=FOREVER
        )
        with Gateway.start(ruleset(text)) as gateway:
            address = gateway.address("way")
            other, newest = (ends.enter_context(Peer((f"127.0.0.{number}", 0))) for number in (8, 9))
            one, two, three = (ends.enter_context(Peer(("127.0.0.7", 0))) for _ in range(3))
            for client in (other, one, two, three):
                assert asks(client, address)
            assert limited(gateway, 1)[0]["client"] == one.to
            assert asks(newest, address)
            assert limited(gateway, 2)[1]["client"] == other.to
            cut(gateway)


def test_a_cap_is_that_of_the_rule() -> None:
    """A cap counts the flows of all listeners of its rule, and none of another rule."""
    with Answering() as endpoint, ExitStack() as ends:
        capped = rule("capped", endpoint.port, protocol="udp", max_flows=4, idle_timeout=FOREVER).replace(
            'listen = "127.0.0.1:0"', 'listen = ["127.0.0.1:0", "127.0.0.1:0"]'
        )
        free = rule("free", endpoint.port, protocol="udp", idle_timeout=FOREVER)
        with Gateway.start(ruleset(capped, free)) as gateway:
            clients = [ends.enter_context(Peer()) for _ in range(3)]
            for client in clients:
                assert asks(client, gateway.address("free"))
                for listener in (0, 1):
                    assert asks(client, gateway.address("capped", listener))
            ended = limited(gateway, 2)
            assert [record["rule"] for record in ended] == ["capped"] * 2
            assert [record["client"] for record in ended] == [clients[0].to] * 2
            cut(gateway)


def test_a_cap_of_several_workers() -> None:
    """With several workers max_flows holds for all together, but for one flow of each other worker."""
    most, workers = 8, 4
    with Answering() as endpoint, ExitStack() as ends:
        text = rule("way", endpoint.port, protocol="udp", max_flows=most, idle_timeout=FOREVER)
        with Gateway.start(ruleset(text, workers=workers)) as gateway:
            pids = gateway.workers
            before = sum(map(open_fds, pids))
            clients = [ends.enter_context(Peer()) for _ in range(60)]
            for turn in range(3):
                for client in clients:
                    assert asks(client, gateway.address("way"), b"%d" % turn)
                    live = sum(map(open_fds, pids)) - before
                    assert live <= most + workers - 1
            for client in clients[:most]:  # as many as may be: they settle, and none ends another
                assert asks(client, gateway.address("way"))
            wait_for("the flows to settle", lambda: sum(map(open_fds, pids)) - before <= most + workers - 1)
            ended = {record["cause"] for record in gateway.events("session")}
            assert ended == {"flow_limit"}
            left = [record for record in cut(gateway) if record["cause"] == "drain"]
        assert most <= len(left) <= most + workers - 1


def test_a_dead_workers_flows_count_no_more() -> None:
    """Flows that ended with their worker make room: its clients get new ones, and nobody loses theirs."""
    most = 20
    with Answering() as endpoint, ExitStack() as ends:
        text = rule(
            "way",
            endpoint.port,
            protocol="udp",
            max_flows=most,
            max_flows_per_client=most,
            idle_timeout=FOREVER,
        )
        with Gateway.start(ruleset(text, workers=2)) as gateway:
            clients = [ends.enter_context(Peer()) for _ in range(most)]
            for client in clients:
                assert asks(client, gateway.address("way"))
            assert not gateway.events("session")
            for turn in range(3):
                os.kill(gateway.workers[0], signal.SIGKILL)
                gateway.await_event("worker_started", 3 + turn)
                wait_for("a worker", lambda: len(gateway.workers) == 2)
                for client in clients:
                    assert asks(client, gateway.address("way"), b"%d" % turn)
            assert not gateway.events("session"), "a flow ended although there was room"
            live = cut(gateway)
        assert len(live) == most
        assert {record["client"] for record in live} == {client.to for client in clients}


def test_a_cap_does_not_leak_over_thousands_of_flows() -> None:
    """After thousands of flows under both caps, with two workers, exactly as many fit as before."""
    most = 10
    with Answering() as endpoint, ExitStack() as ends:
        text = rule(
            "way", endpoint.port, protocol="udp", responses=1, max_flows=most, max_flows_per_client=most
        )
        with Gateway.start(ruleset(text, workers=2)) as gateway:
            clients = [ends.enter_context(Peer()) for _ in range(most)]
            address = gateway.address("way")
            for _ in range(300):
                for client in clients:
                    client.send(b"question", address)
                assert {client.take() for client in clients} == {b"question"}
            records = flows(gateway, 300 * most)
        assert {record["cause"] for record in records} == {"answered"}
