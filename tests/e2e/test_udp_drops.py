"""What the kernel drops because a receive buffer is full: counted, and reported where it belongs."""

import os
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e import needs
from tests.e2e.datagram_peers import (
    SO_RCVBUFFORCE,
    Address,
    Answering,
    Peer,
    asks,
    counts,
    cut,
    flow,
    stopped,
)
from tests.e2e.gateway import Gateway, rule, ruleset, wait_for

FOREVER = "1h"
LOOK_AT_DROPS = 10.0
"""Seconds between two looks at what the kernel dropped."""
SENT = 300


def silent(_: bytes) -> list[bytes]:
    """Answer nothing."""
    return []


def overflow(gateway: Gateway, worker: int, client: Peer) -> None:
    """Send more to a listener, while its worker stands still, than the listener's buffer holds."""
    with stopped(worker):
        for number in range(SENT):
            client.send(b"%d" % number, gateway.address("way"))


def flush(endpoint: Answering, client: Peer, address: Address) -> int:
    """Send until one comes through: all that waited before it has come, too. Give how many it took."""
    for number in range(1, 1000):
        mark = b"mark %d of %s" % (number, client.to.encode())
        client.send(mark, address)
        with suppress(AssertionError):
            wait_for("the mark", lambda: mark in endpoint.asked, timeout=0.1)  # noqa: B023
            return number
    raise AssertionError("nothing comes through")


def dropped(gateway: Gateway) -> int:
    """Sum up what the gateway has reported as dropped so far."""
    return sum(int(event["count"]) for event in gateway.events("datagrams_dropped"))


def test_drops_at_a_listener_are_reported_while_it_runs() -> None:
    """Datagrams for which a listener had no room are counted exactly, each once, while it runs."""
    with Answering(answers=silent) as endpoint, Peer() as client:
        text = ruleset(
            rule("way", endpoint.port, protocol="udp", receive_buffer="8KiB", idle_timeout=FOREVER)
        )
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            overflow(gateway, worker, client)
            (event,) = gateway.await_event("datagrams_dropped", timeout=LOOK_AT_DROPS + 10)
            forwarded = len(endpoint.asked)
            assert 0 < forwarded < SENT
            assert event["count"] == SENT - forwarded
            assert (event["rule"], event["worker"], event["level"]) == ("way", 0, "warning")
            assert event["listener"] == f"127.0.0.1:{gateway.port('way')}"
            assert "error" not in event
            more = flush(endpoint, client, gateway.address("way"))
            (record,) = cut(gateway)
            assert record["up_datagrams"] == forwarded + more
            assert dropped(gateway) == SENT - forwarded, "reported twice"


def test_drops_at_a_listener_are_reported_at_the_end() -> None:
    """What was dropped since the last report is reported when the gateway stops."""
    with Answering(answers=silent) as endpoint, Peer() as client:
        text = ruleset(
            rule("way", endpoint.port, protocol="udp", receive_buffer="8KiB", idle_timeout=FOREVER)
        )
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            sent = 0
            for _ in range(3):
                overflow(gateway, worker, client)
                sent += SENT + flush(endpoint, client, gateway.address("way"))
            (record,) = cut(gateway)
            assert record["up_datagrams"] == len(endpoint.asked)
            assert dropped(gateway) == sent - len(endpoint.asked) > 0


def test_a_new_worker_does_not_report_what_the_old_one_has() -> None:
    """Drops that a worker had reported before it died are not reported again by the next one."""
    with Answering(answers=silent) as endpoint, Peer() as client:
        text = ruleset(
            rule("way", endpoint.port, protocol="udp", receive_buffer="8KiB", idle_timeout=FOREVER)
        )
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            overflow(gateway, worker, client)
            gateway.await_event("datagrams_dropped", timeout=LOOK_AT_DROPS + 10)
            lost = SENT - len(endpoint.asked)
            assert dropped(gateway) == lost
            os.kill(worker, signal.SIGKILL)
            gateway.await_event("worker_started", 2)
            flush(endpoint, client, gateway.address("way"))
            cut(gateway)
            assert dropped(gateway) == lost


def test_drops_of_two_workers_and_two_listeners() -> None:
    """Each worker reports for each of its listeners what it lost there; the sum is exact."""
    with Answering(answers=silent) as endpoint, ExitStack() as ends:
        text = rule("way", endpoint.port, protocol="udp", receive_buffer="4KiB", idle_timeout=FOREVER)
        both = 'listen = ["127.0.0.1:0", "127.0.0.1:0"]'
        text = ruleset(text.replace('listen = "127.0.0.1:0"', both), workers=2)
        with Gateway.start(text) as gateway:
            addresses = [gateway.address("way", index) for index in (0, 1)]
            clients = [ends.enter_context(Peer()) for _ in range(20)]
            one, two = gateway.workers
            with stopped(one), stopped(two):
                for number in range(20):
                    for client in clients:
                        for address in addresses:
                            client.send(b"%d" % number, address)
            sent = 20 * len(clients) * len(addresses)
            sent += sum(flush(endpoint, client, address) for client in clients for address in addresses)
            records = cut(gateway)
            events = gateway.events("datagrams_dropped")
            assert sum(int(record["up_datagrams"]) for record in records) == len(endpoint.asked)
            assert dropped(gateway) == sent - len(endpoint.asked)
            assert len({(event["worker"], event["listener"]) for event in events}) == 4


def test_drops_of_a_flow_are_in_its_record() -> None:
    """Answers that came while a flow's own buffer was full are counted exactly, in that flow's record."""
    with Peer() as endpoint, Peer(receive=1 << 22) as client, Peer() as other:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            sides = {}
            for peer in (client, other):
                peer.send(b"question", gateway.address("way"))
                sides[peer] = endpoint.receive()[1]
            with stopped(worker):
                for number in range(2000):
                    endpoint.send(b"%d" % number, sides[client])
                endpoint.send(b"answer", sides[other])
            assert other.take() == b"answer"
            came, sent = [client.take()], 2000
            mark = b""
            while came[-1] != mark:  # what is sent while there is no room is lost as well
                sent += 1
                mark = b"mark %d" % sent
                endpoint.send(mark, sides[client])
                client.socket.settimeout(0.2)
                with suppress(TimeoutError):
                    while came[-1] != mark:
                        came.append(client.take())
            numbers = [int(data) for data in came if not data.startswith(b"mark")]
            assert numbers == list(range(len(numbers)))
            records = {record["client"]: record for record in cut(gateway)}
        assert 1 < len(came) < sent
        assert records[client.to]["drops"] == {"receive_full": sent - len(came)}
        assert counts(records[client.to])[::2] == (1, len(came))
        assert "drops" not in records[other.to]


def forced() -> None:
    """Be allowed a receive buffer beyond net.core.rmem_max."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
        except PermissionError:
            needs.root()
            pytest.skip("this root lacks CAP_NET_ADMIN")


def rmem_max() -> int:
    """Give what the kernel grants to whoever lacks CAP_NET_ADMIN."""
    return int(Path("/proc/sys/net/core/rmem_max").read_text())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_receive_buffer_beyond_the_limit(workers: int) -> None:
    """Who lacks CAP_NET_ADMIN gets net.core.rmem_max, and is told once for each rule that wants more."""
    needs.root()
    needs.program("setpriv")
    wrap = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-all")
    wanted = 2 * rmem_max()
    with Answering() as endpoint, Peer() as client:
        greedy = rule("greedy", endpoint.port, listen=":0", protocol="tcp+udp", receive_buffer=f"{wanted}B")
        modest = rule("modest", endpoint.port, protocol="udp", receive_buffer="4KiB")
        with Gateway.start(ruleset(greedy, modest, workers=workers), wrap=wrap) as gateway:
            (event,) = gateway.events("receive_buffer_limited")
            assert (event["rule"], event["level"]) == ("greedy", "warning")
            assert (event["wanted"], event["granted"]) == (wanted, rmem_max())
            assert asks(client, gateway.address("greedy"))
            cut(gateway)


def test_a_receive_buffer_for_root() -> None:
    """With CAP_NET_ADMIN a listener has the receive buffer its rule asks for, beyond the limit."""
    forced()
    with Answering(answers=silent) as endpoint, Peer() as client:
        wanted = 2 * rmem_max()
        text = rule("way", endpoint.port, protocol="udp", receive_buffer=f"{wanted}B", idle_timeout="500ms")
        with Gateway.start(ruleset(text)) as gateway:
            assert not gateway.events("receive_buffer_limited")
            (worker,) = gateway.workers
            count = rmem_max() // 1000
            with stopped(worker):  # what takes more than rmem_max, with what the kernel adds
                for _ in range(count):
                    client.send(bytes(100), gateway.address("way"))
            record = flow(gateway)
        assert record["up_datagrams"] == count
