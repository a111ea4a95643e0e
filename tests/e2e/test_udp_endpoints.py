"""Endpoints that are gone, come back, have names, or cannot be reached: what a flow makes of it."""

import resource
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e import needs
from tests.e2e.datagram_peers import (
    Answering,
    Held,
    Peer,
    asks,
    counts,
    cut,
    flow,
    flows,
    inside,
    send_train,
    stopped,
)
from tests.e2e.gateway import Gateway, Record, open_fds, rule, ruleset, wait_for
from tests.e2e.peers import assert_idle
from tests.e2e.test_udp_addresses import namespace

FOREVER = "1h"


def outcome(record: Record) -> tuple[str, str, int]:
    """Give what a test of an endpoint looks at: stage, cause, attempts (the record leaves 1 out)."""
    return record["stage"], record["cause"], record.get("attempts", 1)


def test_an_endpoint_that_is_not_there() -> None:
    """Where nobody has the endpoint's port its flow ends as soon as ICMP says so; the next one does, too."""
    with Held() as held, Peer() as client:
        text = ruleset(rule("way", held.port, protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            before = open_fds(worker)
            for turn in range(20):
                client.send(b"anybody?", gateway.address("way"))
                record = flows(gateway, turn + 1)[turn]
                assert outcome(record) == ("relay", "endpoint_refused", 1)
                assert (record["level"], record["endpoint"]) == ("warning", held.to)
                assert counts(record) == (1, 8, 0, 0)
            wait_for("the descriptors to be closed", lambda: open_fds(worker) == before)
            assert_idle(worker)


def test_many_datagrams_for_an_endpoint_that_is_not_there() -> None:
    """Each datagram for an endpoint that is gone is accounted for: passed on, or dropped, in some record."""
    with Held() as held, Peer() as client:
        text = ruleset(rule("way", held.port, protocol="udp", idle_timeout="500ms"))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            for _ in range(5):
                with stopped(worker):
                    for _ in range(50):
                        client.send(b"anybody?", gateway.address("way"))

            def accounted() -> int:
                records = gateway.events("session")
                dropped = sum(sum(record.get("drops", {}).values()) for record in records)
                return dropped + sum(int(record["up_datagrams"]) for record in records)

            wait_for("each datagram in a record", lambda: accounted() >= 250)
            assert accounted() == 250
            assert {record["cause"] for record in gateway.events("session")} <= {
                "endpoint_refused", "idle_timeout",
            }  # fmt: skip


def test_an_endpoint_comes_back() -> None:
    """An endpoint that was down and comes back serves the next datagram, with no restart and no grudge."""
    with Held() as held, Peer() as client:
        text = ruleset(rule("way", held.port, protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            for turn in range(3):
                client.send(b"anybody?", gateway.address("way"))
                assert flows(gateway, 2 * turn + 1)[-1]["cause"] == "endpoint_refused"
                with Answering(held.address, shared=True):
                    assert asks(client, gateway.address("way"))
                client.send(b"still there?", gateway.address("way"))
                last = flows(gateway, 2 * turn + 2)[-1]
                assert outcome(last) == ("relay", "endpoint_refused", 1)
                assert counts(last) == (2, 16, 1, 4)


def test_one_dead_endpoint_costs_the_others_nothing() -> None:
    """Flows of another rule go on while datagrams for a dead endpoint come in."""
    with Held() as held, Answering() as live, Peer() as client, Peer() as other:
        text = ruleset(
            rule("dead", held.port, protocol="udp", idle_timeout=FOREVER),
            rule("live", live.port, protocol="udp", idle_timeout=FOREVER),
        )
        with Gateway.start(text) as gateway:
            dead_end, way = gateway.address("dead"), gateway.address("live")
            for turn in range(100):
                client.send(b"anybody?", dead_end)
                assert asks(other, way, b"%d" % turn)
            records = cut(gateway)
        (alive,) = (record for record in records if record["rule"] == "live")
        assert counts(alive)[::2] == (100, 100)
        assert "drops" not in alive


@pytest.mark.parametrize("responses", [None, 1], ids=["lasting", "answered"])
def test_the_next_endpoint_answers_the_first_datagram(responses: int | None) -> None:
    """Where the first endpoint refuses, the next one gets the client's datagram, which nobody sends again."""
    more = {"idle_timeout": "300ms"} if responses is None else {}
    with Held() as dead, Answering() as live, ExitStack() as ends:
        text = rule("way", [dead.to, live.to], protocol="udp", **more)
        text = text if responses is None else text.replace("protocol", f"responses = {responses}\nprotocol")
        with Gateway.start(ruleset(text)) as gateway:
            clients = [ends.enter_context(Peer()) for _ in range(6)]
            for client in clients:
                assert asks(client, gateway.address("way"), b"question")
            records = {record["client"]: record for record in flows(gateway, len(clients))}
        cause = "idle_timeout" if responses is None else "answered"
        first, *later = (records[client.to] for client in clients)
        assert outcome(first) == ("relay", cause, 2)
        assert [outcome(record) for record in later] == [("relay", cause, 1)] * len(later), "no grudge kept"
        assert {record["endpoint"] for record in records.values()} == {live.to}
        assert {counts(record)[2:] for record in records.values()} == {(1, 8)}
        assert counts(first)[0] == 1, "the datagram that the dead endpoint had counts as well"
        assert live.asked == [b"question"] * len(clients)


def test_a_grudge_ends_after_ten_seconds() -> None:
    """An endpoint that refused is passed over for 10 s, and then has its turn again."""
    with Held() as held, Answering() as steady, ExitStack() as ends:
        text = ruleset(rule("way", [held.to, steady.to], protocol="udp", responses=1))
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            clients = [ends.enter_context(Peer()) for _ in range(4)]
            assert asks(clients[0], address)
            with Answering(held.address, shared=True) as back:
                for client in clients:
                    assert asks(client, address)
                assert not back.asked

                def served() -> bool:
                    assert asks(clients[0], address)
                    return bool(back.asked)

                wait_for("the endpoint to have its turn again", served)
            duration = sum(1 for _ in gateway.events("session"))
            assert duration > 4


def test_every_endpoint_refuses() -> None:
    """Where all endpoints refuse, the flow ends so, and names the last one and the tries."""
    with Held() as one, Held() as two, Held() as three, Peer() as client:
        text = ruleset(rule("way", [one.to, two.to, three.to], protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            for turn in range(4):
                client.send(b"anybody?", gateway.address("way"))
                record = flows(gateway, turn + 1)[turn]
                assert outcome(record) == ("relay", "endpoint_refused", 3)
                assert counts(record)[1::2] == (8, 0)


def test_flows_take_endpoints_by_turns() -> None:
    """Live endpoints get flows by turns, and a flow stays with its own."""
    with Answering() as one, Answering() as two, Answering() as three, ExitStack() as ends:
        text = ruleset(rule("way", [one.to, two.to, three.to], protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            clients = [ends.enter_context(Peer()) for _ in range(9)]
            for _ in range(5):
                for client in clients:
                    assert asks(client, gateway.address("way"))
            records = {record["client"]: record for record in cut(gateway)}
        assert [records[client.to]["endpoint"] for client in clients] == [one.to, two.to, three.to] * 3
        assert [list(each.came.values()) for each in (one, two, three)] == [[5] * 3] * 3


def test_an_endpoint_dies_in_mid_flow() -> None:
    """A flow whose endpoint dies ends; its client's next datagram goes to the other endpoint."""
    with Held() as held, Answering() as other, ExitStack() as ends:
        text = ruleset(rule("way", [held.to, other.to], protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            clients = [ends.enter_context(Peer()) for _ in range(4)]
            with Answering(held.address, shared=True) as dying:
                for client in clients:
                    assert asks(client, gateway.address("way"))
                assert len(dying.came) == len(other.came) == 2
            stranded = clients[::2]
            for number, client in enumerate(stranded):
                client.send(b"lost", gateway.address("way"))
                record = flows(gateway, number + 1)[number]
                assert (record["client"], *outcome(record)) == (client.to, "relay", "endpoint_refused", 1)
            for client in clients:
                assert asks(client, gateway.address("way"), b"next")
            assert len(gateway.events("session")) == len(stranded)
            assert len(other.came) == 4
            cut(gateway)


def test_an_endpoint_dies_under_a_burst() -> None:
    """Of datagrams that come in one go after an endpoint's death, those past the error reach the other."""
    with Held() as held, Answering() as other, Peer() as client:
        text = ruleset(rule("way", [held.to, other.to], protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            with Answering(held.address, shared=True):
                assert asks(client, gateway.address("way"))
            with stopped(worker):
                for number in range(50):
                    client.send(b"%d" % number, gateway.address("way"))
            answers = [client.take() for _ in range(49)]
            assert answers == [b"%d" % number for number in range(1, 50)]
            assert flow(gateway)["cause"] == "endpoint_refused"
            cut(gateway)


def test_a_quick_pool_with_a_dead_endpoint() -> None:
    """Bursts of questions to endpoints of which one dies between two bursts are all answered."""
    with Held() as held, Answering() as steady, ExitStack() as ends:
        text = ruleset(rule("way", [held.to, steady.to], protocol="udp", responses=1))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            address = gateway.address("way")
            clients = [ends.enter_context(Peer()) for _ in range(64)]

            def ask_all(question: bytes) -> None:
                with stopped(worker):
                    for client in clients:
                        client.send(question, address)
                for client in clients:
                    assert client.take() == question

            with Answering(held.address, shared=True):
                for turn in range(8):
                    ask_all(b"turn %d" % turn)
            ask_all(b"one is dead")
            ask_all(b"still")
            records = flows(gateway, 10 * len(clients))
        assert {record["cause"] for record in records} == {"answered"}


def test_a_train_for_an_endpoint_that_is_not_there() -> None:
    """A train whose endpoint refuses makes no datagram that nobody sent, at the next one."""
    with Held() as dead, Answering() as live, ExitStack() as ends:
        text = ruleset(rule("way", [dead.to, live.to], protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            sent = set()
            for turn in range(12):
                client = ends.enter_context(Peer())
                with stopped(worker):
                    for number in range(10):
                        train = [b"%02d %02d %02d" % (turn, number, each) for each in range(8)]
                        send_train(client, train, gateway.address("way"))
                        sent.update(train)
                assert client.take() in sent
            assert set(live.asked) <= sent
            cut(gateway)


def test_a_name_that_does_not_resolve() -> None:
    """A name nobody knows ends the flow, with what it held, or is passed over for the other endpoint."""
    with Answering() as live, Peer() as lost, Peer() as found:
        text = ruleset(
            rule("lost", "nothing.invalid:53", protocol="udp", connect_timeout="60s", idle_timeout="50s"),
            rule(
                "found", ["nothing.invalid:53", live.to], protocol="udp", connect_timeout="60s", responses=1
            ),
        )
        with Gateway.start(text) as gateway:
            lost.send(b"anybody?", gateway.address("lost"))
            assert asks(found, gateway.address("found"))
            records = {record["rule"]: record for record in flows(gateway, 2)}
            failed = gateway.await_event("resolve_failed")[0]
        assert outcome(records["lost"])[:2] == ("dial", "dial_resolve")
        assert records["lost"]["level"] == "warning"
        assert records["lost"]["drops"] == {"unsent": 1}
        assert counts(records["lost"]) == (0, 0, 0, 0)
        assert "endpoint" not in records["lost"]
        assert outcome(records["found"])[:2] == ("relay", "answered")
        assert failed["name"] == "nothing.invalid"


def test_localhost() -> None:
    """What comes while a name is looked up is held, and goes out in order once it is known."""
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", f"localhost:{endpoint.port}", protocol="udp", idle_timeout="500ms"))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            clients = [ends.enter_context(Peer()) for _ in range(5)]
            with stopped(worker):
                for number in range(8):
                    for client in clients:
                        client.send(b"%d" % number, gateway.address("way"))
            for client in clients:
                assert [client.take() for _ in range(8)] == [b"%d" % number for number in range(8)]
            records = flows(gateway, len(clients))
        assert {record["endpoint"] for record in records} == {endpoint.to}
        assert {counts(record)[::2] for record in records} == {(8, 8)}
        assert not any("drops" in record for record in records)


def test_every_address_of_a_name_is_tried(tmp_path: Path) -> None:
    """Of a name with several addresses, of both families, those that refuse are passed over."""
    needs.root()
    needs.program("unshare")
    needs.ipv6()
    hosts = tmp_path / "hosts"
    hosts.write_text("::1 many.test\n127.0.0.2 many.test\n127.0.0.1 many.test\n")
    wrap = ("unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$0" "$@"')
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", f"many.test:{endpoint.port}", protocol="udp", responses=1))
        with Gateway.start(text, wrap=wrap) as gateway:
            for _ in range(5):
                assert asks(ends.enter_context(Peer()), gateway.address("way"))
            records = flows(gateway, 5)
        assert {record["endpoint"] for record in records} == {endpoint.to}
        assert max(record.get("attempts", 1) for record in records) >= 2


def test_no_route() -> None:
    """An endpoint to which there is no route ends the flow at once, with its datagram, and no crash."""
    needs.root()
    needs.program("unshare")
    wrap = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"')
    text = ruleset(
        rule("way", "192.0.2.1:53", protocol="udp"), rule("live", 7000, protocol="udp", responses=1)
    )
    with Gateway.start(text, wrap=wrap) as gateway, ExitStack() as ends:
        pid = gateway.process.pid
        client = ends.enter_context(inside(pid, Peer))
        ends.enter_context(inside(pid, lambda: Answering(("127.0.0.1", 7000))))
        for turn in range(3):
            client.send(b"anybody?", gateway.address("way"))
            record = flows(gateway, 2 * turn + 1)[-1]
            assert outcome(record) == ("dial", "dial_unreachable", 1)
            assert (record["endpoint"], record["drops"]) == ("192.0.2.1:53", {"unsent": 1})
            assert asks(client, gateway.address("live"))
            flows(gateway, 2 * turn + 2)


def test_an_unreachable_endpoint_then_the_next() -> None:
    """An endpoint without a route is passed over, as one that refuses is."""
    needs.root()
    needs.program("unshare")
    wrap = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"')
    text = ruleset(rule("way", ["192.0.2.1:53", "127.0.0.1:7000"], protocol="udp", responses=1))
    with Gateway.start(text, wrap=wrap) as gateway, ExitStack() as ends:
        pid = gateway.process.pid
        client = ends.enter_context(inside(pid, Peer))
        ends.enter_context(inside(pid, lambda: Answering(("127.0.0.1", 7000))))
        for _ in range(3):
            assert asks(client, gateway.address("way"))
        records = flows(gateway, 3)
        assert [outcome(record) for record in records] == [("relay", "answered", n) for n in (2, 1, 1)]


def test_an_endpoint_without_descriptors_left() -> None:
    """A worker that has no descriptor for a flow's endpoint says so in the record, and serves the next."""
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            client, kept = (ends.enter_context(Peer()) for _ in range(2))
            assert asks(kept, gateway.address("way"))
            _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, hard))
            client.send(b"no room", gateway.address("way"))
            record = flow(gateway)
            assert outcome(record) == ("dial", "fd_limit", 1)
            assert record["drops"] == {"unsent": 1}
            assert asks(kept, gateway.address("way"))
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))
            assert asks(client, gateway.address("way"))
            cut(gateway)


def test_no_port_left_for_an_endpoint() -> None:
    """Where other programs have taken the host's ports, a flow that gets none says so, and others go on."""
    wrap = namespace("sysctl -qw net.ipv4.ip_local_port_range='40000 40009'")
    text = ruleset(rule("way", 7000, listen="127.0.0.1:6000", protocol="udp", idle_timeout=FOREVER))
    with Gateway.start(text, wrap=wrap) as gateway, ExitStack() as ends:
        pid = gateway.process.pid
        assert gateway.events("ready")[0]["flows_max"] < 10
        ends.enter_context(inside(pid, lambda: Answering(("127.0.0.1", 7000))))
        for port in range(40_000, 40_008):
            ends.enter_context(inside(pid, lambda: Peer(("0.0.0.0", port))))  # noqa: B023  called at once
        clients = [
            ends.enter_context(inside(pid, lambda: Peer(("127.0.0.1", port))))  # noqa: B023  called at once
            for port in range(5000, 5003)
        ]
        for client in clients[:2]:
            assert asks(client, ("127.0.0.1", 6000))
        clients[2].send(b"no port", ("127.0.0.1", 6000))
        record = flow(gateway)
        assert (record["client"], *outcome(record)) == (clients[2].to, "dial", "fd_limit", 1)
        assert record["drops"] == {"unsent": 1}
        for client in clients[:2]:
            assert asks(client, ("127.0.0.1", 6000))
        assert_idle(gateway.workers[0])
        cut(gateway)
