"""When a flow ends by itself: nothing passes any more, or it has had its answers."""

import json
import os
import time
from contextlib import ExitStack
from threading import Thread

from tests.e2e.datagram_peers import (
    Answering,
    Peer,
    asks,
    counts,
    cut,
    flow,
    flows,
    free_ports,
    own_host,
    stopped,
)
from tests.e2e.gateway import Gateway, open_fds, rule, ruleset, wait_for
from tests.e2e.peers import assert_idle

FOREVER = "1h"


def pause(peer: Peer, seconds: float) -> None:
    """Let time pass, in which nothing may come."""
    peer.socket.settimeout(seconds)
    try:
        raise AssertionError(f"{peer.take()!r} came")
    except TimeoutError:
        peer.socket.settimeout(20.0)


def test_a_silent_flow_ends_not_before_its_time() -> None:
    """A flow ends once nothing has passed for idle_timeout, counted from the last datagram, not the first."""
    with Answering() as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout="1s"))
        with Gateway.start(text) as gateway:
            begun = time.monotonic()
            assert asks(client, gateway.address("way"))
            pause(client, 0.4)
            assert asks(client, gateway.address("way"))
            last_ms = (time.monotonic() - begun) * 1000
            record = flow(gateway)
        assert record["cause"] == "idle_timeout"
        assert record["duration_ms"] >= max(1400, last_ms + 1000 - 100)
        assert counts(record) == (2, 8, 2, 8)


def test_either_way_keeps_a_flow_alive() -> None:
    """A flow in which datagrams pass up only, or down only, outlives its idle_timeout."""
    with Peer() as endpoint, Peer() as talker, Peer() as hearer:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout="3s"))
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            hearer.send(b"once", address)
            theirs = endpoint.receive()[1]
            senders = set()
            begun = time.monotonic()
            while time.monotonic() - begun < 7:
                talker.send(b"up", address)
                senders.add(endpoint.receive()[1])
                endpoint.send(b"down", theirs)
                assert hearer.take() == b"down"
                pause(hearer, 0.1)
            assert not gateway.events("session")
            assert len(senders) == 1
            assert_idle(gateway.workers[0])
            up, down = sorted(flows(gateway, 2), key=lambda record: int(record["down"]))
        assert up["cause"] == down["cause"] == "idle_timeout"
        assert counts(up)[2:] == (0, 0)
        assert counts(down)[:2] == (1, 4)


def test_the_idle_timeout_of_all_rules() -> None:
    """[defaults] idle_timeout holds for UDP flows too, and a rule that has its own keeps that."""
    with Answering() as endpoint, Peer() as one, Peer() as two, Peer() as three:
        text = ruleset(
            '[defaults]\nidle_timeout = "300ms"\n\n',
            rule("common", endpoint.port, protocol="udp"),
            rule("own", endpoint.port, protocol="udp", idle_timeout=FOREVER),
            rule("both", endpoint.port, protocol="tcp+udp"),
        )
        with Gateway.start(text) as gateway:
            assert asks(one, gateway.address("own"))
            assert asks(two, gateway.address("common"))
            assert asks(three, gateway.address("both", 1))
            assert {record["rule"] for record in flows(gateway, 2)} == {"common", "both"}
            assert asks(one, gateway.address("own"))
            own = cut(gateway)[-1]
        assert (own["rule"], own["cause"], counts(own)) == ("own", "drain", (2, 8, 2, 8))


def test_an_answered_flow_ends_at_once() -> None:
    """With responses = 1 the answer ends the flow and gives its descriptor back; the next question is new."""
    with Answering() as endpoint, Peer() as client:
        text = ruleset(rule("dns", endpoint.port, protocol="udp", responses=1, idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            before, address = open_fds(worker), gateway.address("dns")
            for turn in range(200):
                assert asks(client, address, b"question %d" % turn)
            records = flows(gateway, 200)
            wait_for("the descriptors to be closed", lambda: open_fds(worker) == before)
            assert_idle(worker)
        assert {record["cause"] for record in records} == {"answered"}
        assert {counts(record)[::2] for record in records} == {(1, 1)}
        assert {record["level"] for record in records} == {"info"}


def test_two_questions_back_to_back() -> None:
    """Two questions from one port, as a resolver asks for A and AAAA, are both answered, in either order."""
    with Peer() as endpoint, Peer() as client:
        text = ruleset(rule("dns", endpoint.port, protocol="udp", responses=1, idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            address = gateway.address("dns")
            for turn in range(20):
                client.send(b"A", address)
                client.send(b"AAAA", address)
                asked = [endpoint.receive() for _ in range(2)]
                assert {theirs for _, theirs in asked} == {asked[0][1]}, "two flows"
                for data, theirs in asked[:: 1 if turn % 2 else -1]:
                    endpoint.send(data + b" answered", theirs)
                assert {client.take(), client.take()} == {b"A answered", b"AAAA answered"}
            records = flows(gateway, 20)
        assert {record["cause"] for record in records} == {"answered"}
        assert {counts(record)[::2] for record in records} == {(2, 2)}


def test_questions_one_on_the_heels_of_the_other() -> None:
    """However the answers of a quick endpoint fall between questions of one port, none is lost."""
    with Answering() as endpoint, Peer() as client:
        text = ruleset(rule("dns", endpoint.port, protocol="udp", responses=1, idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            address = gateway.address("dns")
            for turn in range(300):
                questions = {b"%d:%d" % (turn, number) for number in range(1 + turn % 5)}
                for question in questions:
                    client.send(question, address)
                assert {client.take() for _ in questions} == questions
            asked = len(endpoint.asked)
            wait_for(
                "every flow to end",
                lambda: sum(counts(record)[2] for record in gateway.events("session")) == asked,
            )
            assert {record["cause"] for record in gateway.events("session")} == {"answered"}


def test_several_answers() -> None:
    """With responses = 2 the first answer ends nothing; the second does."""
    with Peer() as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", responses=2, idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            client.send(b"question", gateway.address("way"))
            theirs = endpoint.receive()[1]
            endpoint.send(b"one", theirs)
            assert client.take() == b"one"
            pause(client, 0.2)
            assert not gateway.events("session")
            endpoint.send(b"two", theirs)
            assert client.take() == b"two"
            record = flow(gateway)
        assert (record["cause"], counts(record)[::2]) == ("answered", (1, 2))


def test_an_unanswered_question_ends_in_silence() -> None:
    """With responses = 1 a question that has no answer ends by idle_timeout."""
    with Peer() as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", responses=1, idle_timeout="300ms"))
        with Gateway.start(text) as gateway:
            client.send(b"question", gateway.address("way"))
            assert endpoint.take() == b"question"
            record = flow(gateway)
        assert (record["cause"], counts(record)[::2]) == ("idle_timeout", (1, 0))


def test_a_late_answer_reaches_nobody_else() -> None:
    """An answer that comes after its flow has ended reaches neither its client nor any other one."""
    with Peer() as endpoint, Peer() as client, ExitStack() as ends:
        text = ruleset(
            rule("dns", endpoint.port, protocol="udp", responses=1, idle_timeout=FOREVER),
            rule("other", endpoint.port, protocol="udp", idle_timeout=FOREVER),
        )
        with Gateway.start(text) as gateway:
            client.send(b"question", gateway.address("dns"))
            old = endpoint.receive()[1]
            endpoint.send(b"answer", old)
            assert client.take() == b"answer"
            flow(gateway)
            others = [ends.enter_context(Peer()) for _ in range(30)]
            live = {}
            for other in others:
                other.send(b"hello", gateway.address("other"))
                live[other] = endpoint.receive()[1]
            if old not in live.values():  # one flow in a thousand gets the port of the one that ended
                endpoint.send(b"late", old)
            for other, theirs in live.items():
                endpoint.send(b"yours", theirs)
                assert other.take() == b"yours"
            assert not any(peer.waiting() for peer in (client, *others))
            cut(gateway)


def test_bursts_of_questions() -> None:
    """Hundreds of questions that come at once, to an endpoint that is quick or slow by turns, are answered.

    A gateway that has seen quick answers looks for them before it waits: those that are not there come later.
    """
    with Peer(receive=1 << 20) as slow, Answering() as quick, ExitStack() as ends:
        text = ruleset(
            rule("quick", quick.port, protocol="udp", responses=1, idle_timeout=FOREVER),
            rule("slow", slow.port, protocol="udp", responses=1, idle_timeout=FOREVER),
        )
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            before = open_fds(worker)
            to_quick, to_slow = gateway.address("quick"), gateway.address("slow")
            clients = [ends.enter_context(Peer()) for _ in range(128)]
            for _ in range(6):
                with stopped(worker):
                    for client in clients:
                        client.send(b"ask", to_quick)
                assert {client.take() for client in clients} == {b"ask"}
                with stopped(worker):
                    for client in clients:
                        client.send(b"wait", to_slow)
                for _, theirs in [slow.receive() for _ in clients]:
                    slow.send(b"done", theirs)
                assert {client.take() for client in clients} == {b"done"}
            records = flows(gateway, 12 * len(clients))
            wait_for("the descriptors to be closed", lambda: open_fds(worker) == before)
            assert_idle(worker)
        assert {(record["cause"], *counts(record)[::2]) for record in records} == {("answered", 1, 1)}


def test_a_reader_of_the_log_that_stalls_stalls_no_flow() -> None:
    """While nobody reads the log, flows have their answers; then the log says how much is missing."""
    address = own_host(), free_ports(1, own_host())
    ours, theirs = os.pipe()
    read = bytearray()

    def read_until(mark: bytes) -> None:
        while mark not in read:
            piece = os.read(ours, 1 << 16)
            assert piece, "the log ended"
            read.extend(piece)

    with Answering() as endpoint, Peer() as client:
        text = rule("dns", endpoint.port, listen="{}:{}".format(*address), protocol="udp", responses=1)
        with Gateway.start(ruleset(text), stdout=theirs) as gateway:
            os.close(theirs)
            read_until(b'"ready"')
            for number in range(5000):
                assert asks(client, address, b"%d" % number)
            reader = Thread(target=read_until, args=(b'"stopped"',))
            reader.start()
            gateway.stop()
            reader.join()
    os.close(ours)
    events = [json.loads(line) for line in read.splitlines()]
    missing = sum(event["count"] for event in events if event["event"] == "log_dropped")
    assert missing > 0
    assert missing + sum(event["event"] == "session" for event in events) == 5000
