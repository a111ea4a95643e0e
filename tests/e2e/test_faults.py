"""The faults of the 2015 article's first program, and their kin: each stays mended."""

import os
import resource
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e import needs
from tests.e2e.gateway import Gateway, open_fds, resident_bytes, rule, ruleset, wait_for
from tests.e2e.peers import (
    Echo,
    Endpoint,
    Sending,
    assert_idle,
    blackhole,
    busy_share,
    clog,
    connect,
    digest,
    echoes,
    payload,
    read_exactly,
    read_to_reset,
    reset,
    turned_away,
)

STALL = 30.0
"""Seconds for which a client reads nothing while its endpoint sends, as the issue asks."""


def limit_fds(pid: int, limit: int) -> None:
    """Set a running process's soft limit of open files; it keeps those it has."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))


def test_a_dead_endpoint_holds_up_nobody_else() -> None:
    """While a dial gets no answer, the sessions of another rule, and new ones, go on; then it times out."""
    with blackhole() as dead, Echo() as echo:
        text = ruleset(rule("dead", dead, connect_timeout="1h"), rule("live", echo.port))
        with Gateway.start(text) as gateway, ExitStack() as open_ones:
            before = open_ones.enter_context(connect(gateway.address("live")))
            assert echoes(before)
            for _ in range(50):
                open_ones.enter_context(connect(gateway.address("dead"))).sendall(b"anybody?")
            for _ in range(50):
                with connect(gateway.address("live")) as client:
                    assert echoes(client)
            assert echoes(before)
            assert_idle(gateway.workers[0])
            assert gateway.stop() == 0
            causes = [record["cause"] for record in gateway.events("session") if record["rule"] == "dead"]
            assert causes == ["drain"] * 50


def test_a_client_that_reads_nothing_costs_nothing() -> None:
    """For 30 s a client reads nothing while its endpoint sends: little memory, an idle CPU, others unhurt."""
    with Endpoint() as endpoint, Echo() as echo:
        text = ruleset(rule("bulk", endpoint.port), rule("live", echo.port))
        with Gateway.start(text) as gateway, connect(gateway.address("live")) as other:
            (worker,) = gateway.workers
            assert echoes(other)
            before = resident_bytes(worker)
            with connect(gateway.address("bulk")) as client, endpoint.accept() as server:
                server.settimeout(None)
                data = payload(64 << 20)
                sending = Sending(server, data)
                client.recv(1)
                share = busy_share(worker, STALL)
                assert sending.is_alive(), "nothing pushed back on the endpoint"
                grown = resident_bytes(worker) - before
                assert echoes(other, payload(100_000))
                with connect(gateway.address("live")) as newcomer:
                    assert echoes(newcomer)
                got = read_exactly(client, len(data) - 1)
                assert digest(data[:1] + got) == digest(data)
                sending.done()
            assert share < 0.05, f"{share:.2f} of a core for {STALL} s in which nothing moved"
            assert grown < 8 << 20, f"{grown} bytes held for a client that does not read"


def test_many_clogged_sessions_cost_little_memory() -> None:
    """Two hundred sessions clogged both ways at once neither grow the worker nor keep it busy."""
    with Endpoint(receive=8192) as endpoint, Gateway.start(ruleset(rule("bulk", endpoint.port))) as gateway:
        (worker,) = gateway.workers
        before = resident_bytes(worker)
        with ExitStack() as ends:
            for _ in range(200):
                client = ends.enter_context(connect(gateway.address("bulk"), receive=8192))
                server = ends.enter_context(endpoint.accept())
                for side in (client, server):
                    side.setblocking(False)
                    with suppress(BlockingIOError):
                        while side.send(bytes(65536)):
                            pass
            assert_idle(worker)
            assert resident_bytes(worker) - before < 64 << 20
        gateway.sessions(200)


@pytest.mark.parametrize("who", ["client", "endpoint"])
@pytest.mark.parametrize("size", [1000, 20_000_000])
def test_a_reset_in_mid_send_is_passed_on(who: str, size: int) -> None:
    """A reset of one side while bytes are on their way to it resets the other side, and kills nobody."""
    with Endpoint() as endpoint, Gateway.start(ruleset(rule("way", endpoint.port))) as gateway:
        (worker,) = gateway.workers
        with connect(gateway.address("way")) as client, endpoint.accept() as server:
            lost, left = (client, server) if who == "client" else (server, client)
            sending = Sending(left, bytes(size))
            assert lost.recv(1) == b"\0"
            reset(lost)
            sending.join()
            if sending.error is None:
                assert read_to_reset(left) == b""
            else:  # it was still sending: send(2) is then told, and recv(2) no more
                assert isinstance(sending.error, ConnectionResetError)
        record = gateway.session()
        assert (record["stage"], record["cause"]) == ("relay", f"{who}_reset")
        assert gateway.workers == [worker]


@pytest.mark.parametrize("who", ["client", "endpoint"])
def test_a_reset_while_clogged_is_noticed(who: str) -> None:
    """A reset behind bytes that the other side does not read ends the session all the same."""
    with Endpoint() as endpoint, Gateway.start(ruleset(rule("way", endpoint.port))) as gateway:
        with connect(gateway.address("way")) as client, endpoint.accept() as server:
            lost = client if who == "client" else server
            clog(lost)
            reset(lost)
            assert gateway.session()["cause"] == f"{who}_reset"
        assert_idle(gateway.workers[0])


def test_no_fds_for_new_clients() -> None:
    """Out of fds, the listener pauses and rests; who waits in its queue is served once fds are free again."""
    needs.root()
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port))) as gateway, ExitStack() as ends:
        (worker,) = gateway.workers
        first = [ends.enter_context(connect(gateway.address("way"))) for _ in range(5)]
        assert all(map(echoes, first))
        limit_fds(worker, open_fds(worker))
        waiting = [ends.enter_context(connect(gateway.address("way"))) for _ in range(30)]
        (paused,) = gateway.await_event("listener_paused")
        assert (paused["rule"], paused["error"], paused["level"]) == ("way", "EMFILE", "warning")
        assert_idle(worker)
        assert all(map(echoes, first)), "a live session suffered"
        limit_fds(worker, 1000)
        assert all(map(echoes, waiting))
        gateway.await_event("listener_resumed")
        assert len(gateway.events("listener_paused")) == 1
        for client in (*first, *waiting):
            client.close()
        assert {record["cause"] for record in gateway.sessions(35)} == {"client_eof"}


def test_more_clients_than_a_worker_takes() -> None:
    """A worker takes so many sessions as it has fds for, lets the others wait, and loses none of them."""
    needs.program("prlimit")
    wrap = ("prlimit", "--nofile=128:128")
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port)), wrap=wrap) as gateway:
        with ExitStack() as ends:
            clients = [ends.enter_context(connect(gateway.address("way"))) for _ in range(150)]
            for number, client in enumerate(clients):
                client.sendall(b"%04d" % number)
            gateway.await_event("listener_paused")
            assert_idle(gateway.workers[0])
            for number, client in enumerate(clients):  # each end makes room for another one
                assert read_exactly(client, 4) == b"%04d" % number
                client.close()
        records = gateway.sessions(150)
        assert {(record["cause"], record["up"], record["down"]) for record in records} == {
            ("client_eof", 4, 4)
        }
        with connect(gateway.address("way")) as late:
            assert echoes(late)
        gateway.await_event("listener_resumed")


def test_no_fd_for_the_endpoint() -> None:
    """A client that took the last fd is reset with a record of its own, and the gateway goes on."""
    needs.root()
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port))) as gateway:
        (worker,) = gateway.workers
        with connect(gateway.address("way")) as first:
            assert echoes(first)
            taken = {int(name) for name in os.listdir(f"/proc/{worker}/fd")}  # noqa: PTH208  numbers only
            free = next(fd for fd in range(max(taken) + 2) if fd not in taken)
            limit_fds(worker, free + 1)  # the limit is on the number: just this one can be had
            assert turned_away(gateway.address("way"))
            record = gateway.session()
            assert (record["stage"], record["cause"], record["level"]) == ("dial", "fd_limit", "warning")
            limit_fds(worker, 1000)
            with connect(gateway.address("way")) as lucky:
                assert echoes(lucky)
            assert echoes(first)


def test_no_fd_for_a_pipe() -> None:
    """A bulk transfer that finds no fd for a pipe is copied instead, whole."""
    needs.root()
    with Endpoint() as endpoint, Gateway.start(ruleset(rule("way", endpoint.port))) as gateway:
        (worker,) = gateway.workers
        with connect(gateway.address("way")) as client, endpoint.accept() as server:
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            limit_fds(worker, 3)
            data = payload(20_000_000)
            sending = Sending(client, data)
            assert digest(read_exactly(server, len(data))) == digest(data)
            sending.done()
        assert gateway.session()["up"] == len(data) + 1


def test_clients_that_leave_before_accept() -> None:
    """Clients that reset while they wait in the queue neither stop the listener nor lose their record."""
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port))) as gateway:
        (worker,) = gateway.workers
        os.kill(worker, signal.SIGSTOP)
        for _ in range(20):
            reset(connect(gateway.address("way")))
        os.kill(worker, signal.SIGCONT)
        with connect(gateway.address("way")) as client:
            assert echoes(client)
        records = gateway.sessions(21)
        assert len(records) == 21
        assert sum(record["cause"] == "client_reset" for record in records) == 20


def test_nothing_is_left_behind() -> None:
    """After a thousand sessions, some of them reset, the worker has as many fds as before."""
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port))) as gateway:
        (worker,) = gateway.workers
        with connect(gateway.address("way")) as client:
            assert echoes(client)
        gateway.sessions(1)
        before = open_fds(worker)
        for number in range(1000):
            client = connect(gateway.address("way"))
            if number % 4 == 0:
                reset(client)
                continue
            assert echoes(client)
            (reset if number % 4 == 1 else type(client).close)(client)
        assert len(gateway.sessions(1001)) == 1001
        wait_for("the fds are closed", lambda: open_fds(worker) <= before)
        assert len({record["session"] for record in gateway.events("session")}) == 1001


def test_failed_dials_leave_nothing_behind(tmp_path: Path) -> None:
    """A missing endpoint, dialled again and again, leaves no fd and no session behind."""
    with Gateway.start(ruleset(rule("way", f"unix:{tmp_path}/nobody"))) as gateway:
        (worker,) = gateway.workers
        before = open_fds(worker)
        for _ in range(300):
            assert turned_away(gateway.address("way"))
        assert len(gateway.sessions(300)) == 300
        wait_for("the fds are closed", lambda: open_fds(worker) <= before)
