"""Listeners: what a failed accept costs, when they pause, and that a queue is not lost."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.net.dial import Caller, Dialling
from appliance.net.listener import BURST, QUIET, RETRY, WORKER_FULL, Listener, State
from appliance.net.pipes import PipePool
from appliance.net.reactor import EXCLUSIVE, Reactor
from appliance.net.relay import Relay
from appliance.net.session import Route, Session, Sessions
from appliance.net.sockets import Endpoint, peer_text
from appliance.outcome import Cause
from tests.unit.net.loop import Loop, loop, open_fds

EXHAUSTING = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]
GONE = [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT]


@dataclass
class Bound:
    """A listening socket whose accept fails as the test says, one failure for each call."""

    real: socket.socket
    failures: list[int] = field(default_factory=list)
    calls: int = 0

    @property
    def family(self) -> int:
        return self.real.family

    def fileno(self) -> int:
        return self.real.fileno()

    def close(self) -> None:
        self.real.close()

    def _accept(self) -> tuple[int, object]:
        self.calls += 1
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number))
        fd, peer = self.real._accept()  # type: ignore[attr-defined]  # see sockets.Socket
        assert isinstance(fd, int)
        return fd, peer


@dataclass(eq=False)
class Waiting:
    """A dialling that never ends."""

    attempts: int = 0
    endpoint: Endpoint | None = None
    started: float = 0.0
    deadline: float = 1e9

    def go(self) -> None:
        """Wait."""

    def timed_out(self) -> None:
        raise AssertionError

    def abandon(self) -> None:
        """Nothing is left behind."""


@dataclass
class Front:
    """A listener, its clients, and what it reported."""

    at: Loop
    bound: Bound
    sessions: Sessions
    relay: Relay
    paused: list[str] = field(default_factory=list)
    resumed: int = 0
    clients: list[socket.socket] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)

    def dial(self, caller: Caller) -> Dialling:
        """Be the dialer."""
        assert isinstance(caller, Session)
        self.peers.append(peer_text(caller.peer))
        return Waiting()

    def listen(self, *, shared: bool = False) -> Listener:
        route = Route("rule", "listener", self, 3600.0, self.relay, self.sessions)
        return Listener(self.at.reactor, self.bound, route, self, shared=shared)  # type: ignore[arg-type]  # a stand-in

    def listener_paused(self, listener: Listener, error: str) -> None:
        assert listener.state is State.PAUSED
        self.paused.append(error)

    def listener_resumed(self, listener: Listener) -> None:
        assert listener.state is State.READY
        self.resumed += 1

    def connect(self, count: int = 1) -> None:
        """Have clients wait in the queue: on loopback they are in it when connect returns."""
        for _ in range(count):
            self.clients.append(socket.create_connection(self.bound.real.getsockname()))

    def wait(self, seconds: float) -> None:
        self.at.clock.now += seconds
        self.at.turn()


@contextmanager
def front(most: int = 1000) -> Iterator[Front]:
    before = open_fds()
    with loop() as at, socket.create_server(("127.0.0.1", 0), backlog=256) as real:
        real.setblocking(False)
        sessions = Sessions(most, lambda _: None)
        made = Front(at, Bound(real), sessions, Relay(at.reactor, PipePool(4)))
        try:
            yield made
        finally:
            sessions.cut(Cause.DRAIN)
            for client in made.clients:
                client.close()
    assert open_fds() == before


def accepted(of: Front) -> int:
    return len(of.peers)


def test_clients_become_sessions() -> None:
    """Each client in the queue is a session, which knows its address."""
    with front() as of:
        of.listen()
        of.connect(3)
        of.at.until(lambda: accepted(of) == 3)
        ports = [client.getsockname()[1] for client in of.clients]
        assert sorted(of.peers) == sorted(f"127.0.0.1:{port}" for port in ports)
        assert len(of.sessions.live) == 3


@pytest.mark.parametrize("number", GONE, ids=errno.errorcode.get)
def test_one_failed_client_costs_no_other(number: int) -> None:
    """An error of one client is passed over without a pause and without a report."""
    with front() as of:
        listener = of.listen()
        of.connect()
        of.bound.failures = [number] * 3
        of.at.until(lambda: accepted(of) == 1)
        assert listener.state is State.READY
        assert (of.paused, of.resumed) == ([], 0)


@pytest.mark.parametrize("number", EXHAUSTING, ids=errno.errorcode.get)
def test_exhaustion_pauses_and_is_said_once(number: int) -> None:
    """No fd or memory: the loop sleeps, tries again every RETRY seconds, and says one line for all of it."""
    with front() as of:
        of.listen()
        of.connect()
        of.bound.failures = [number] * 3
        of.at.turn()
        for _ in range(5):
            of.at.turn()
        assert of.bound.calls == 1, "it spins"
        for tries in (2, 3, 4):
            of.wait(RETRY + 1 / 16)
            of.at.turn()
            assert of.bound.calls >= tries
        of.at.until(lambda: accepted(of) == 1)
        assert of.paused == [errno.errorcode[number]]
        assert of.resumed == 1


def test_trouble_is_not_reported_over_and_over() -> None:
    """A second pause soon after the first one is no news; after QUIET seconds it is; each has its end."""
    with front() as of:
        of.listen()
        reports = []
        for quiet in (0.0, 0.0, QUIET):
            of.wait(quiet)
            of.connect()
            of.bound.failures = [errno.EMFILE]
            of.at.turn()
            of.wait(RETRY + 1 / 16)
            of.at.turn()
            reports.append((len(of.paused), of.resumed))
        assert accepted(of) == 3
        assert reports == [(1, 1), (1, 1), (2, 2)]


def test_trouble_that_lasts_is_reported() -> None:
    """A pause that was no news at first, and goes on, is told after QUIET seconds."""
    with front() as of:
        of.listen()
        of.connect()
        of.bound.failures = [errno.EMFILE]
        of.at.turn()
        of.wait(RETRY + 1 / 16)
        of.at.turn()
        assert len(of.paused) == 1
        of.connect()
        of.bound.failures = [errno.ENFILE] * 1000
        of.at.turn()
        for _ in range(int(QUIET / RETRY)):
            of.wait(RETRY + 1 / 16)
            of.at.turn()
        assert of.paused == ["EMFILE", "ENFILE"]


def test_a_pause_gives_up_idle_pipes() -> None:
    """Fds that nobody uses are freed for sessions."""
    with front() as of:
        of.listen()
        pipe = of.relay.pipes.borrow()
        assert pipe is not None
        of.relay.pipes.give_back(pipe)
        of.connect()
        of.bound.failures = [errno.EMFILE]
        of.at.turn()
        assert len(of.relay.pipes) == 0


def test_a_full_worker_pauses_until_a_tenth_is_free() -> None:
    """`most` sessions pause the listener before accept is even called; at 90 % it comes back."""
    with front(most=10) as of:
        listener = of.listen()
        of.connect(12)
        of.at.until(lambda: listener.state is State.PAUSED)
        assert len(of.sessions.live) == 10
        assert of.paused == [WORKER_FULL]
        of.wait(RETRY * 2)
        of.at.turn()
        assert len(of.sessions.live) == 10
        end_one(of)
        of.wait(RETRY * 2)
        of.at.turn()
        assert len(of.sessions.live) == 10, "9 of 10 is 90 %: there is room again"
        assert of.paused == [WORKER_FULL]


def end_one(of: Front) -> None:
    next(iter(of.sessions.live)).end(Cause.DRAIN)


def test_a_full_worker_does_not_come_back_one_by_one() -> None:
    """With 100 sessions the listener stays paused at 91, and takes ten at 90."""
    with front(most=100) as of:
        listener = of.listen()
        of.connect(110)
        of.at.until(lambda: listener.state is State.PAUSED)
        for _ in range(9):
            end_one(of)
        of.wait(RETRY * 2)
        of.at.turn()
        assert listener.state is State.PAUSED
        assert len(of.sessions.live) == 91
        end_one(of)
        of.wait(RETRY * 2)
        of.at.until(lambda: len(of.sessions.live) == 100)
        assert accepted(of) == 110
        assert of.paused == [WORKER_FULL], "said once, although it is full again"


def test_a_busy_queue_is_taken_in_bursts() -> None:
    """No turn accepts more than BURST clients, so that live sessions have their turn; all get in."""
    with front() as of:
        of.listen()
        of.connect(200)
        most = 0
        for _ in range(200):
            before = accepted(of)
            of.at.turn()
            most = max(most, accepted(of) - before)
            if accepted(of) == 200:
                break
        assert accepted(of) == 200
        assert most == BURST


def test_closing_takes_the_queue_in_first() -> None:
    """Who has connected before the drain is served; then the port is closed."""
    with front() as of:
        listener = of.listen()
        of.connect(BURST * 2 + 3)
        listener.close()
        assert accepted(of) == BURST * 2 + 3
        assert listener.state is State.CLOSED
        of.at.turn()
        assert of.bound.fileno() == -1
        assert len(of.at.reactor) == 0


def test_closing_while_paused_closes() -> None:
    """A paused listener has no room for its queue: it closes, and its retry finds it closed."""
    with front() as of:
        listener = of.listen()
        of.connect()
        of.bound.failures = [errno.EMFILE]
        of.at.turn()
        listener.close()
        assert of.bound.fileno() == -1
        of.wait(RETRY * 2)
        assert listener.state is State.CLOSED
        assert accepted(of) == 0


def test_closing_into_exhaustion_ends() -> None:
    """An accept that runs out while the queue is taken in does not loop for ever."""
    with front() as of:
        listener = of.listen()
        of.connect(3)
        of.bound.failures = [errno.ECONNABORTED, errno.EMFILE]
        listener.close()
        assert listener.state is State.CLOSED
        of.at.turn()
        assert of.bound.fileno() == -1
        of.wait(RETRY * 2)
        assert listener.state is State.CLOSED


def test_a_fault_does_not_end_the_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in starting one session is reported; the next client is accepted."""
    with front() as of:
        listener = of.listen()
        of.connect()
        with monkeypatch.context() as patch:
            patch.setattr(Session, "start", lambda _: 1 // 0)
            of.at.turn()
        assert len(of.at.faults) == 1
        of.at.faults.clear()
        of.sessions.live.pop().client.close()
        of.connect()
        of.at.until(lambda: accepted(of) == 1)
        assert listener.state is State.READY


def test_a_listener_that_cannot_be_watched_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC or ENOMEM of epoll_ctl(2), when a pause ends, is one more pause: it must not be for ever."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with front() as of:
        of.listen()
        of.connect()
        of.bound.failures = [errno.EMFILE]
        of.at.turn()
        with monkeypatch.context() as patch:
            patch.setattr(Reactor, "watch", refuse)
            of.wait(RETRY * 2)
        of.at.faults.clear()
        for _ in range(3):
            of.wait(RETRY * 2)
            of.at.turn()
        assert accepted(of) == 1


@pytest.mark.parametrize("shared", [False, True])
def test_a_shared_socket_wakes_one_worker(shared: bool) -> None:
    """A socket that several workers wait for is watched with EPOLLEXCLUSIVE, one of its own is not."""
    with front() as of:
        of.listen(shared=shared)
        info = Path(f"/proc/self/fdinfo/{of.at.reactor._epoll.fileno()}").read_text()
        watched = {line.split()[1]: int(line.split()[3], 16) for line in info.splitlines() if "tfd" in line}
        assert bool(watched[str(of.bound.fileno())] & EXCLUSIVE) is shared
        of.connect()
        of.at.until(lambda: accepted(of) == 1)
