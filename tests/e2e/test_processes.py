"""The master and its workers: restarts, drains, cuts, and every child reaped."""

import os
import resource
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests import program
from tests.e2e import needs
from tests.e2e.gateway import Gateway, children, rule, ruleset, state, wait_for, workers_of
from tests.e2e.peers import (
    Address,
    Echo,
    Endpoint,
    assert_idle,
    connect,
    echoes,
    is_refused,
    read_to_end,
)


def is_gone(pid: int) -> bool:
    """Say whether a process has ended and been reaped."""
    return not Path(f"/proc/{pid}").exists()


class Load:
    """Clients that come one after the other, in threads, and count how they fared."""

    def __init__(self, address: Address, threads: int = 4) -> None:
        self.address = address
        self.served = 0
        self.broken: list[OSError | AssertionError] = []
        """Sessions that were open when their worker died."""
        self.refused: list[OSError] = []
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                client = connect(self.address)
            except OSError as error:
                self.refused.append(error)
                continue
            with client:
                try:
                    assert echoes(client)
                except (OSError, AssertionError) as error:
                    self.broken.append(error)
                else:
                    with self._lock:
                        self.served += 1

    def more(self, count: int) -> None:
        """Wait until so many more clients were served."""
        enough = self.served + count
        wait_for(f"{enough} served", lambda: self.served >= enough)

    def end(self) -> None:
        """Let the clients under way finish, and begin no more."""
        self._ending.set()
        for thread in self._threads:
            thread.join()


def test_a_killed_worker_under_load() -> None:
    """A worker's death refuses nobody and leaves no zombie; another one takes its place."""
    with (
        Echo() as echo,
        Gateway.start(ruleset(rule("way", echo.port), workers=2)) as gateway,
        ExitStack() as ends,
    ):
        old = gateway.workers
        held = [ends.enter_context(connect(gateway.address("way"))) for _ in range(40)]
        assert all(map(echoes, held))
        load = Load(gateway.address("way"))
        for turn in range(3):
            load.more(50)
            os.kill(gateway.workers[0], signal.SIGKILL)
            ended = gateway.await_event("worker_ended", turn + 1)[turn]
            assert (ended["signal"], ended["level"]) == ("SIGKILL", "warning")
            gateway.await_event("worker_started", 3 + turn)
            load.more(50)
        load.end()
        assert not load.refused
        assert len(load.broken) <= 3 * 4, "more sessions broke than the dead workers can have had"
        wait_for("two workers", lambda: len(gateway.workers) == 2)
        assert all(state(pid) != "Z" for pid in gateway.workers)
        assert is_gone(old[0])
        alive = sum(_lives(client) for client in held)
        if old[1] in gateway.workers:
            assert 0 < alive < 40
        with connect(gateway.address("way")) as client:
            assert echoes(client)


def _lives(client: socket.socket) -> bool:
    with suppress(OSError, AssertionError):
        return echoes(client)
    return False


def test_only_its_own_sessions_end() -> None:
    """Of the sessions of two workers, exactly those of the one that was killed end."""
    with (
        Echo() as echo,
        Gateway.start(ruleset(rule("way", echo.port), workers=2)) as gateway,
        ExitStack() as ends,
    ):
        dying, staying = gateway.workers
        clients = [ends.enter_context(connect(gateway.address("way"))) for _ in range(60)]
        assert all(map(echoes, clients))
        sockets_of_staying = len(_sockets(staying))
        os.kill(dying, signal.SIGKILL)
        gateway.await_event("worker_started", 3)
        alive = [client for client in clients if _lives(client)]
        assert 0 < len(alive) < 60
        assert len(_sockets(staying)) == sockets_of_staying
        for client in alive:
            client.close()
        assert len(gateway.sessions(len(alive))) == len(alive)


def _sockets(pid: int) -> list[str]:
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return [link for link in links if link.startswith("socket:")]


def test_clients_in_the_queue_of_a_dead_worker_are_served() -> None:
    """Who has connected, and was not accepted when the worker died, is served by the next one."""
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port))) as gateway, ExitStack() as ends:
        (worker,) = gateway.workers
        os.kill(worker, signal.SIGSTOP)
        waiting = [ends.enter_context(connect(gateway.address("way"))) for _ in range(50)]
        os.kill(worker, signal.SIGKILL)
        assert all(map(echoes, waiting))


def test_a_worker_that_keeps_dying() -> None:
    """A worker that dies again and again is started after pauses that grow, and works once it lives."""
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port))) as gateway:
        for number in range(4):
            gateway.await_event("worker_started", number + 1)
            os.kill(gateway.events("worker_started")[-1]["pid"], signal.SIGKILL)
            gateway.await_event("worker_ended", number + 1)
        pauses = [event["restart_ms"] for event in gateway.events("worker_ended")]
        assert pauses == sorted(pauses)
        assert pauses[0] == 0
        assert pauses[-1] > pauses[1] > 0
        with connect(gateway.address("way")) as client:
            assert echoes(client)
        assert_idle(gateway.process.pid)


def test_a_worker_that_cannot_be_started_is_tried_again() -> None:
    """A master that has no fd left to start a worker tries again until it has."""
    needs.root()
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port))) as gateway:
        master, (worker,) = gateway.process.pid, gateway.workers
        resource.prlimit(master, resource.RLIMIT_NOFILE, (3, 20000))
        os.kill(worker, signal.SIGKILL)
        gateway.await_event("worker_ended")
        assert_idle(master)
        resource.prlimit(master, resource.RLIMIT_NOFILE, (1000, 20000))
        with connect(gateway.address("way")) as client:
            assert echoes(client)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("to_group", [False, True], ids=["master", "group"])
def test_drain(number: signal.Signals, *, to_group: bool) -> None:
    """A stop signal, also a terminal's to the group, refuses new clients and lets the live ones finish."""
    with Echo() as echo, Endpoint() as endpoint:
        text = ruleset(rule("way", echo.port), rule("half", endpoint.port), workers=2, drain="1h")
        with Gateway.start(text, start_new_session=True) as gateway:
            address = gateway.address("way")
            with (
                connect(address) as one,
                connect(gateway.address("half")) as two,
                endpoint.accept() as server,
            ):
                assert echoes(one)
                if to_group:
                    os.killpg(gateway.process.pid, number)
                else:
                    gateway.process.send_signal(number)
                (draining,) = gateway.await_event("draining")
                assert draining["signal"] == number.name
                wait_for("new clients are refused", lambda: is_refused(address))
                assert echoes(one, b"still here")
                two.sendall(b"last words")
                two.close()
                assert read_to_end(server) == b"last words"
                assert gateway.process.poll() is None
            assert gateway.process.wait(20) == 0
            sessions = gateway.events("session")
            assert {record["cause"] for record in sessions if record["rule"] == "half"} == {"client_eof"}
            assert not [record for record in sessions if record["cause"] == "drain"]
            assert gateway.events()[-1]["event"] == "stopped"


def test_the_drain_deadline_cuts() -> None:
    """Sessions still there at the drain deadline are reset, with a record each, and the exit is clean."""
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port), workers=2, drain="300ms")) as gateway:
        with ExitStack() as ends:
            clients = [ends.enter_context(connect(gateway.address("way"))) for _ in range(20)]
            assert all(map(echoes, clients))
            assert gateway.stop() == 0
            for client in clients:
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        assert [record["cause"] for record in gateway.events("session")] == ["drain"] * 20


def test_the_second_signal_cuts() -> None:
    """A second stop signal does not wait for the deadline."""
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port), workers=2, drain="1h")) as gateway:
        with connect(gateway.address("way")) as client:
            assert echoes(client)
            gateway.process.send_signal(signal.SIGTERM)
            gateway.await_event("draining")
            assert echoes(client)
            assert gateway.stop() == 0
        assert gateway.events("session")[0]["cause"] == "drain"


def test_clients_in_the_queue_at_a_drain_are_served() -> None:
    """Who has connected when the drain begins is served, though nobody had accepted it yet."""
    with (
        Echo() as echo,
        Gateway.start(ruleset(rule("way", echo.port), drain="1h")) as gateway,
        ExitStack() as ends,
    ):
        (worker,) = gateway.workers
        os.kill(worker, signal.SIGSTOP)
        waiting = [ends.enter_context(connect(gateway.address("way"))) for _ in range(100)]
        gateway.process.send_signal(signal.SIGTERM)
        gateway.await_event("draining")
        os.kill(worker, signal.SIGCONT)
        assert all(map(echoes, waiting))


def test_the_master_is_killed() -> None:
    """Workers whose master vanished refuse new clients, serve those they have, and end."""
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port), workers=2, drain="1h")) as gateway:
        workers, address = gateway.workers, gateway.address("way")
        try:
            with ExitStack() as ends:
                clients = [ends.enter_context(connect(address)) for _ in range(30)]
                assert all(map(echoes, clients))
                gateway.process.kill()
                gateway.process.wait()
                wait_for("new clients are refused", lambda: is_refused(address))
                assert all(map(echoes, clients))
            wait_for("the workers end", lambda: all(is_gone(pid) or state(pid) == "Z" for pid in workers))
        finally:
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        records = gateway.events("session")
        assert sum(record["up"] > 0 for record in records) == 30
        gateway.process.returncode = 0  # killed on purpose


def test_pid_1() -> None:
    """As the first process of a container it reaps orphans it never started, and stops on SIGTERM."""
    needs.root()
    needs.program("unshare")
    wrap = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with Echo() as echo, Gateway.start(ruleset(rule("way", echo.port)), wrap=wrap) as gateway:
        (master,) = children(gateway.process.pid)
        assert gateway.events("ready")[0]["pid"] == 1
        (worker,) = workers_of(master)
        enter = [needs.program("nsenter"), "-t", str(master), "-p", "-m"]
        # The shell's child outlives it, and so becomes a child of PID 1.
        subprocess.run([*enter, "sh", "-c", "sleep 0.2 & sleep 0.2 & exit 0"], check=True)
        wait_for("the orphans come and go", lambda: workers_of(master) == [worker])
        assert state(master) != "Z"
        with connect(gateway.address("way")) as client:
            assert echoes(client)
        os.kill(master, signal.SIGTERM)
        assert gateway.process.wait(20) == 0


def test_load_is_spread() -> None:
    """Of many clients every worker gets some."""
    with (
        Echo() as echo,
        Gateway.start(ruleset(rule("way", echo.port), workers=2)) as gateway,
        ExitStack() as ends,
    ):
        idle = [len(_sockets(pid)) for pid in gateway.workers]
        clients = [ends.enter_context(connect(gateway.address("way"))) for _ in range(200)]
        assert all(map(echoes, clients))
        taken = [(len(_sockets(pid)) - before) / 2 for pid, before in zip(gateway.workers, idle, strict=True)]
        assert sum(taken) == 200
        assert min(taken) >= 40, taken


def test_without_a_tunnel_there_is_no_openssl() -> None:
    """Neither master nor worker loads what TLS and certificates need: 9 MB, and 100 ms before it listens."""
    with Gateway.start(ruleset(rule("web", 9))) as gateway:
        for pid in (gateway.process.pid, *gateway.workers):
            mapped = Path(f"/proc/{pid}/maps").read_text()
            assert "/msgspec/_core." in mapped
            for name in ("libssl", "_ssl", "cryptography", "_cffi_backend"):
                assert f"/{name}" not in mapped, name
            # The interpreter of the source has digests of OpenSSL's, which the frozen one does without.
            assert program.under_test == "source" or "/libcrypto" not in mapped
