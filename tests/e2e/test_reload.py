"""A new ruleset in force, with the sessions of the former one alive: SIGHUP and `portway reload`."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from appliance.supervisor.admin_wire import ask
from tests.e2e.datagram_peers import Answering, Peer, asks
from tests.e2e.gateway import Gateway, open_fds, rule, ruleset, wait_for
from tests.e2e.peers import Echo, connect, echoes, is_refused
from tests.ports import free_for_both_families


def put(gateway: Gateway, text: str) -> None:
    """Change the gateway's ruleset in its file."""
    (gateway.folder / "rules.toml").write_text(text)


def reload(gateway: Gateway, text: str) -> None:
    """Put a ruleset in force, and wait until the former workers have been told to drain."""
    before = len(gateway.events("reloaded"))
    started = len(gateway.events("worker_started"))
    put(gateway, text)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.await_event("reloaded", before + 1)
    gateway.await_event("worker_started", started + 1)


def ended(gateway: Gateway, count: int) -> None:
    """Wait for the end of so many workers, none of which was lost."""
    assert all(event["level"] == "info" for event in gateway.await_event("worker_ended", count))


def greeted(address: tuple[str, int]) -> bytes:
    with connect(address) as client:
        return client.recv(100)


def test_sessions_go_on_and_the_next_ones_go_by_the_new_ruleset() -> None:
    """The listener stays the same, down to the port that the kernel picked; its endpoint is another one."""
    with Echo(greeting=b"one") as one, Echo(greeting=b"two") as two:  # noqa: SIM117  one line would not do
        with Gateway.start(ruleset(rule("web", one.port), workers=2)) as gateway:
            address = gateway.address("web")
            with connect(address) as live:
                assert live.recv(100) == b"one"
                reload(gateway, ruleset(rule("web", two.port), workers=2))
                wait_for("the new endpoint", lambda: greeted(address) == b"two")
                assert echoes(live, b"still here")
                (told,) = gateway.events("reloaded")
                assert (told["rules"], told["kept"], told["opened"], told["closed"]) == (1, 1, 0, 0)
                assert len(gateway.events("listening")) == 1
                ended(gateway, 1)  # the one that had no session
            ended(gateway, 2)
            assert greeted(address) == b"two"


def test_a_rule_comes_and_a_rule_goes() -> None:
    """What only the new ruleset has is listened on; what only the former one had is refused."""
    with Echo() as echo, Gateway.start(ruleset(rule("old", echo.port), rule("both", echo.port))) as gateway:
        old = gateway.address("old")
        reload(gateway, ruleset(rule("both", echo.port), rule("new", echo.port)))
        with connect(gateway.address("new")) as client:
            assert echoes(client)
        with connect(gateway.address("both")) as client:
            assert echoes(client)
        wait_for("the old rule's end", lambda: is_refused(old))
        (told,) = gateway.events("reloaded")
        assert (told["kept"], told["opened"], told["closed"]) == (1, 1, 1)


def test_no_client_is_lost_while_rulesets_come_and_go() -> None:
    """Whoever connects in the middle of a reload, or waits in a queue, is served; also by fewer workers."""
    with Echo() as echo, Gateway.start(ruleset(rule("web", echo.port), workers=1)) as gateway:
        address, failures, over = gateway.address("web"), [], threading.Event()

        def visit() -> None:
            while not over.is_set():
                try:
                    with connect(address) as client:
                        assert echoes(client)
                except (OSError, AssertionError) as failure:
                    failures.append(failure)
                    return

        visitors = [threading.Thread(target=visit) for _ in range(4)]
        for visitor in visitors:
            visitor.start()
        for workers in (2, 1, 3, 1, 2):
            reload(gateway, ruleset(rule("web", echo.port), workers=workers))
        over.set()
        for visitor in visitors:
            visitor.join()
        assert failures == []
        wait_for("two workers", lambda: len(gateway.workers) == 2)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ('[[rule]]\nname = "web"\n', "listen"),
        ("[[rule\n", "rules.toml:1"),
    ],
)
def test_a_ruleset_with_problems_changes_nothing(broken: str, why: str) -> None:
    """The log says what is wrong and where; the gateway goes on as it was, and a later reload works."""
    with Echo() as echo, Gateway.start(good := ruleset(rule("web", echo.port))) as gateway:
        put(gateway, broken)
        gateway.process.send_signal(signal.SIGHUP)
        (failed,) = gateway.await_event("reload_failed")
        assert why in failed["message"]
        with connect(gateway.address("web")) as client:
            assert echoes(client)
        assert len(gateway.events("worker_started")) == 1
        reload(gateway, good)


def test_an_address_that_cannot_be_bound_changes_nothing() -> None:
    """What could be bound beside it is given up again, and the former listeners are not touched."""
    with Echo() as echo, socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        with Gateway.start(good := ruleset(rule("web", echo.port))) as gateway:
            before = open_fds(gateway.process.pid)
            put(gateway, good + rule("more", echo.port) + rule("busy", echo.port, listen=busy))
            gateway.process.send_signal(signal.SIGHUP)
            (failed,) = gateway.await_event("reload_failed")
            assert busy in failed["message"]
            assert open_fds(gateway.process.pid) == before
            with connect(gateway.address("web")) as client:
                assert echoes(client)


def test_a_flow_goes_on_as_a_new_one() -> None:
    """A client's next datagram begins a flow of the new ruleset; none goes to a worker that drains."""
    with Answering() as server, Peer() as client:
        text = ruleset(rule("dns", server.to, protocol="udp"), workers=2)
        with Gateway.start(text) as gateway:
            address = gateway.address("dns")
            assert asks(client, address, b"before")
            reload(gateway, text)
            ended(gateway, 2)
            for number in range(20):
                assert asks(client, address, b"after %d" % number)


def test_a_unix_socket_stays_and_goes_with_its_rule(tmp_path: Path) -> None:
    """Its file is the same one while a rule has it, and is gone once none has."""
    path = str(tmp_path / "s")
    with Echo() as echo:
        with_it = ruleset(rule("web", echo.port), rule("local", echo.port, listen=f"unix:{path}"))
        with Gateway.start(with_it) as gateway:
            inode = Path(path).stat().st_ino
            reload(gateway, with_it)
            ended(gateway, 1)
            with connect(path) as client:
                assert echoes(client)
            assert Path(path).stat().st_ino == inode
            reload(gateway, ruleset(rule("web", echo.port)))
            wait_for("the file's end", lambda: not Path(path).exists())


def test_many_reloads_leave_nothing_behind() -> None:
    """The master has the same files, and as many children, as after the first one."""
    with Echo() as echo, Answering() as server:
        text = ruleset(rule("web", echo.port), rule("dns", server.to, protocol="udp"), workers=2)
        with Gateway.start(text) as gateway:
            before = open_fds(gateway.process.pid)
            for number in range(10):
                reload(gateway, text)
                ended(gateway, 2 * (number + 1))
            wait_for("the same files", lambda: open_fds(gateway.process.pid) == before)
            wait_for("two workers", lambda: len(gateway.workers) == 2)


def test_a_stop_ends_the_former_generation_too() -> None:
    """Live sessions of both have drain_timeout; the second signal cuts both."""
    with Echo() as echo:
        text = ruleset(rule("web", echo.port), drain="60s")
        with Gateway.start(text) as gateway, connect(gateway.address("web")) as former:
            assert echoes(former)
            reload(gateway, text)
            wait_for("the drain", lambda: len(gateway.workers) == 2)
            gateway.process.send_signal(signal.SIGTERM)
            gateway.await_event("draining")
            assert echoes(former)
            assert gateway.stop() == 0


def test_an_address_that_went_comes_back_at_once(tmp_path: Path) -> None:
    """Also before the workers of the ruleset without it are ready; and who is there stays."""
    admin = str(tmp_path / "admin")
    with Echo() as echo, Answering() as server:
        kept = rule("kept", echo.port)
        gone = rule("web", echo.port) + rule("dns", server.to, protocol="udp")
        with Gateway.start(ruleset(gone, kept), env={"PORTWAY_ADMIN": admin}) as gateway:
            for port in (gateway.port("web"), gateway.port("dns")):
                gone = gone.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1)
            with connect(gateway.address("web")) as client, Peer() as peer:
                assert echoes(client)
                assert asks(peer, gateway.address("dns"), b"before")
                for text in (ruleset(kept), ruleset(gone, kept)):
                    put(gateway, text)
                    assert b"error" not in ask(admin, b'{"verb":"reload"}')
                assert echoes(client)
            ended(gateway, 2)
            with connect(gateway.address("web")) as client, Peer() as peer:
                assert echoes(client)
                assert asks(peer, gateway.address("dns"), b"after")


def test_the_answer_comes_when_the_new_ruleset_is_in_force(tmp_path: Path) -> None:
    """So the gateway is healthy right after it, and all the while; until then status tells of the former."""
    admin = str(tmp_path / "admin")
    with (
        Echo() as echo,
        Gateway.start(text := ruleset(rule("web", echo.port)), env={"PORTWAY_ADMIN": admin}) as gateway,
    ):
        limits = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
        # Enough to accept who asks and to read the file; the two of a worker's line are too many.
        short = open_fds(gateway.process.pid) + 2
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (short, limits[1]))
        put(gateway, text.replace("workers = 1", "workers = 2"))
        late = json.loads(ask(admin, b'{"verb":"reload"}'))
        assert "not ready yet" in late["error"]
        told = json.loads(ask(admin, b'{"verb":"status"}'))
        assert [worker["state"] for worker in told["workers"]] == ["ready"]
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, limits)
        for _ in range(3):
            assert "rules" in json.loads(ask(admin, b'{"verb":"reload"}'))
            told = json.loads(ask(admin, b'{"verb":"status"}'))
            assert [worker["state"] for worker in told["workers"]] == ["ready", "ready"]


def test_a_flow_goes_on_at_a_listener_of_all_addresses() -> None:
    """The former listener, of one address, takes none of its datagrams, though its flow is live."""
    port, over = free_for_both_families(), threading.Event()
    with Peer() as server, Peer() as client:
        one, every = (
            ruleset(rule("dns", server.to, listen=f"{host}:{port}", protocol="udp"), drain="1h")
            for host in ("127.0.0.1", "0.0.0.0")
        )
        with Gateway.start(one) as gateway:
            client.send(b"before", ("127.0.0.1", port))
            _, sender = server.receive()

            def answer() -> None:
                while not over.wait(0.05):
                    server.send(b"answer", sender)

            answering = threading.Thread(target=answer)
            answering.start()
            reload(gateway, every)
            ended(gateway, 1)
            over.set()
            answering.join()
            client.send(b"after", ("127.0.0.1", port))
            assert server.take() == b"after"


def test_many_signals_are_a_few_reloads() -> None:
    """Each would start workers of its own; the last one is not lost."""
    with Echo() as echo, Gateway.start(text := ruleset(rule("web", echo.port))) as gateway:
        most = 0
        for _ in range(200):
            gateway.process.send_signal(signal.SIGHUP)
            most = max(most, len(gateway.workers))
        put(gateway, text + rule("more", echo.port))
        gateway.process.send_signal(signal.SIGHUP)
        wait_for("the last ruleset", lambda: any(e["rules"] == 2 for e in gateway.events("reloaded")))
        assert most < 10


def test_what_cannot_be_read_twice_holds_nobody_up() -> None:
    """A FIFO that nobody writes to, as bash's <(...) is after the start, would be waited for for ever."""
    with Echo() as echo, Gateway.start(ruleset(rule("web", echo.port))) as gateway:
        path = gateway.folder / "rules.toml"
        path.unlink()
        os.mkfifo(path)
        gateway.process.send_signal(signal.SIGHUP)
        (failed,) = gateway.await_event("reload_failed")
        assert "restart" in failed["message"]


def portway(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "appliance", *arguments], capture_output=True, text=True, check=False
    )


def test_the_verb_says_what_it_did_or_why_not(tmp_path: Path) -> None:
    """Status 0 and counts; status 1 and the first problem; and status tells which ruleset is in force."""
    admin = str(tmp_path / "admin")
    with (
        Echo() as echo,
        Gateway.start(text := ruleset(rule("web", echo.port)), env={"PORTWAY_ADMIN": admin}) as gateway,
    ):
        put(gateway, text + rule("more", echo.port))
        done = portway("reload", "--admin", admin)
        assert (done.returncode, done.stdout) == (0, "rules=2 listeners: kept=1 opened=1 closed=0\n")
        told = json.loads(portway("status", "--admin", admin, "--json").stdout)
        assert told["ruleset"]["rules"] == 2
        put(gateway, "nonsense = 1\n")
        whole = portway("reload", "--admin", admin, str(gateway.folder / "rules.toml"))
        assert whole.returncode == 2
        assert "rules.toml:1:1: nonsense" in whole.stderr
        failed = portway("reload", "--admin", admin)
        assert failed.returncode == 1
        assert "nonsense" in failed.stderr
        done = portway("reload", "--admin", admin, "--json")
        assert done.returncode == 1
        put(gateway, text)
        done = portway("reload", "--admin", admin, "--json")
        assert json.loads(done.stdout) == {"rules": 1, "kept": 1, "opened": 0, "closed": 1}
