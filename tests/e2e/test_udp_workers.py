"""UDP and the processes: which worker has a flow, what a worker's death costs, and how a gateway stops."""

import os
import signal
import time
from contextlib import ExitStack, suppress

import pytest

from tests.e2e.datagram_peers import Answering, Peer, asks, counts, cut, flow, flows, free_ports, stopped
from tests.e2e.gateway import Gateway, open_fds, rule, ruleset, state, wait_for
from tests.e2e.peers import Echo, assert_idle, connect, echoes
from tests.e2e.test_processes import is_gone

FOREVER = "1h"
QUIET = 2.0
"""Seconds of silence after which a draining gateway takes a flow for ended."""


def test_a_client_stays_with_its_worker() -> None:
    """Of four workers one has all datagrams of a client, and each worker has some of the clients."""
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout="1s"), workers=4)
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            idle = {pid: open_fds(pid) for pid in gateway.workers}
            clients = [ends.enter_context(Peer((f"127.0.0.{1 + n % 4}", 0))) for n in range(80)]
            for turn in range(20):
                for client in clients:
                    client.send(b"%d" % turn, address)
                for client in clients:
                    assert client.receive() == (b"%d" % turn, address)
            taken = [open_fds(pid) - before for pid, before in idle.items()]
            records = flows(gateway, len(clients))
        assert sum(taken) == len(clients)
        assert min(taken) > 0, taken
        assert {counts(record)[::2] for record in records} == {(20, 20)}
        assert {record["client"] for record in records} == {client.to for client in clients}


def test_a_killed_worker_costs_only_its_own_flows() -> None:
    """After a worker's death the others' flows go on, with the port they had; its clients get new flows."""
    with Peer() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER), workers=4)
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            idle = {pid: open_fds(pid) for pid in gateway.workers}
            clients = [ends.enter_context(Peer()) for _ in range(60)]

            def sides() -> list[tuple[str, int]]:
                """Pass a datagram each way for each client; give which port the endpoint saw for it."""
                seen = []
                for number, client in enumerate(clients):
                    client.send(b"%d" % number, address)
                    data, theirs = endpoint.receive()
                    assert data == b"%d" % number
                    endpoint.send(data, theirs)
                    assert client.receive() == (data, address)
                    seen.append(theirs)
                return seen

            before = sides()
            assert sides() == before
            dying = gateway.workers[1]
            lost = open_fds(dying) - idle[dying]
            os.kill(dying, signal.SIGKILL)
            after = sides()
            assert sum(one != other for one, other in zip(before, after, strict=True)) == lost > 0
            assert sides() == after
            gateway.await_event("worker_started", 5)
            assert not gateway.events("session")
            assert len(cut(gateway)) == len(clients)


def test_what_waits_for_a_dead_worker_is_taken_by_the_next() -> None:
    """Datagrams in the queue of a worker that dies are forwarded by the one that takes its place."""
    with Answering() as endpoint, Peer() as client, Peer() as new:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER))
        with Gateway.start(text) as gateway:
            assert asks(client, gateway.address("way"))
            (worker,) = gateway.workers
            with stopped(worker):
                for number in range(20):
                    client.send(b"%d" % number, gateway.address("way"))
                    new.send(b"%d" % number, gateway.address("way"))
                os.kill(worker, signal.SIGKILL)
                for peer in (client, new):
                    assert [peer.take() for _ in range(20)] == [b"%d" % number for number in range(20)]
            cut(gateway)


def test_an_idle_gateway_stops_at_once() -> None:
    """With no flow left a stop signal ends the gateway without a wait."""
    with Answering() as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", responses=1), workers=2, drain=FOREVER)
        with Gateway.start(text) as gateway:
            assert asks(client, gateway.address("way"))
            flow(gateway)
            begun = time.monotonic()
            gateway.stop()
            assert time.monotonic() - begun < QUIET


def test_a_quiet_flow_ends_a_while_after_the_stop_signal() -> None:
    """A draining gateway takes a flow for ended once it is quiet for 2 s, long before any time-out."""
    with Answering() as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER), drain=FOREVER)
        with Gateway.start(text) as gateway:
            assert asks(client, gateway.address("way"))
            gateway.stop()
            record = flow(gateway)
        assert (record["stage"], record["cause"], record["level"]) == ("relay", "drain", "info")
        assert QUIET * 1000 <= record["duration_ms"] <= (QUIET + 2) * 1000


def test_a_busy_flow_goes_on_while_draining_and_new_ones_do_not_begin() -> None:
    """After a stop signal a flow goes on while it is used; who comes new gets none; then it ends."""
    with Peer() as endpoint, Peer() as client, Peer() as new:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER), drain=FOREVER)
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            client.send(b"before", address)
            theirs = endpoint.receive()[1]
            gateway.process.send_signal(signal.SIGTERM)
            gateway.await_event("draining")
            begun = time.monotonic()
            turn = 0
            while time.monotonic() - begun < 2 * QUIET:
                turn += 1
                client.send(b"%d" % turn, address)
                assert endpoint.receive() == (b"%d" % turn, theirs), "what a new client sent has come"
                endpoint.send(b"answer", theirs)
                assert client.receive() == (b"answer", address)
                if turn > 10:  # by then each worker has its order, whatever the machine is doing
                    new.send(b"new", address)
                time.sleep(0.05)
            assert gateway.process.poll() is None
            gateway.process.wait(20)
            record = flow(gateway)
        assert (record["cause"], counts(record)[::2]) == ("drain", (turn + 1, turn))


def test_the_drain_deadline_holds_for_busy_flows() -> None:
    """At drain_timeout a flow is cut, however busy it is."""
    with Answering() as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER), drain="1s")
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            assert asks(client, address)
            gateway.process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            client.socket.settimeout(0.1)
            while gateway.process.poll() is None:
                assert time.monotonic() - begun < 20
                with suppress(TimeoutError, ConnectionRefusedError):
                    asks(client, address)
            record = flow(gateway)
        assert record["cause"] == "drain"
        assert record["duration_ms"] >= 1000
        assert record["up_datagrams"] > 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_stop_signal_cuts_at_once(workers: int) -> None:
    """The second stop signal ends every flow, busy or not, and each has its record."""
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(
            rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER), workers=workers, drain=FOREVER
        )
        with Gateway.start(text) as gateway:
            clients = [ends.enter_context(Peer()) for _ in range(50)]
            assert all(asks(client, gateway.address("way")) for client in clients)
            begun = time.monotonic()
            records = cut(gateway)
            assert time.monotonic() - begun < QUIET
        assert [record["cause"] for record in records] == ["drain"] * 50
        assert {record["client"] for record in records} == {client.to for client in clients}


def test_what_waits_at_a_stop_signal_is_forwarded() -> None:
    """Datagrams that came before the stop signal, of clients with a flow or without, get their answers."""
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER), drain=FOREVER)
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            address = gateway.address("way")
            old, *new = clients = [ends.enter_context(Peer()) for _ in range(20)]
            assert asks(old, address)
            with stopped(worker):
                for number in range(10):
                    for client in clients:
                        client.send(b"%d" % number, address)
                gateway.process.send_signal(signal.SIGTERM)
                gateway.await_event("draining")
            for client in clients:
                assert [client.receive()[0] for _ in range(10)] == [b"%d" % number for number in range(10)]
            gateway.process.wait(20)
            records = flows(gateway, len(clients))
        assert sum(record["up_datagrams"] for record in records) == 201
        assert len(new) == 19


def test_what_waits_of_an_idle_gateway_at_a_stop_signal_is_forwarded() -> None:
    """Datagrams that came before the stop signal are answered also where there was no flow at all yet."""
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", endpoint.port, protocol="udp", responses=1), drain=FOREVER)
        with Gateway.start(text) as gateway:
            (worker,) = gateway.workers
            clients = [ends.enter_context(Peer()) for _ in range(50)]
            with stopped(worker):
                for client in clients:
                    client.send(b"question", gateway.address("way"))
                gateway.process.send_signal(signal.SIGTERM)
                gateway.await_event("draining")
            assert {client.take() for client in clients} == {b"question"}
            gateway.process.wait(20)
            assert {record["cause"] for record in flows(gateway, 50)} == {"answered"}


def test_the_master_is_killed() -> None:
    """Workers whose master vanished end their flows as in a drain, leave the records, and end."""
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(
            rule("way", endpoint.port, protocol="udp", idle_timeout=FOREVER), workers=2, drain=FOREVER
        )
        with Gateway.start(text) as gateway:
            workers = gateway.workers
            try:
                clients = [ends.enter_context(Peer()) for _ in range(20)]
                assert all(asks(client, gateway.address("way")) for client in clients)
                gateway.process.kill()
                gateway.process.wait()
                wait_for("the workers to end", lambda: all(is_gone(p) or state(p) == "Z" for p in workers))
            finally:
                for pid in workers:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            records = flows(gateway, len(clients))
            assert {record["cause"] for record in records} == {"drain"}
            gateway.process.returncode = 0  # killed on purpose


def test_sessions_and_flows_drain_each_in_their_way() -> None:
    """While a TCP session keeps a draining gateway alive, quiet flows of the same rule end."""
    with Echo() as echo, Answering(("127.0.0.1", echo.port)) as endpoint, Peer() as client:
        text = ruleset(rule("both", endpoint.port, protocol="tcp+udp", idle_timeout=FOREVER), drain=FOREVER)
        with Gateway.start(text) as gateway:
            address = gateway.address("both")
            assert asks(client, address)
            with connect(address) as session:
                assert echoes(session)
                gateway.process.send_signal(signal.SIGTERM)
                assert flow(gateway)["cause"] == "drain"
                assert echoes(session)
                assert_idle(gateway.workers[0])
            gateway.process.wait(20)
            assert [record["protocol"] for record in gateway.events("session")] == ["udp", "tcp"]


def test_a_gateway_follows_another_one() -> None:
    """A UDP port is free as soon as a gateway has ended, and a client's next datagram meets the next one."""
    with Answering() as endpoint, Peer() as client:
        port = free_ports()
        for _ in range(3):
            text = rule("way", endpoint.port, listen=f":{port}", protocol="udp", responses=1)
            with Gateway.start(ruleset(text, workers=2)) as gateway:
                for host in ("127.0.0.1", "127.0.0.2"):
                    assert asks(client, (host, port))
                flows(gateway, 2)
