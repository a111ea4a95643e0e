"""Dialling: which endpoint, how often, how long, and what is left when it is given up."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.net.dial import BUSY_RETRY, Attempt, Upstream
from appliance.net.resolve import Name
from appliance.net.sockets import LINGER_ABORT, Endpoint, Socket, endpoint_named
from appliance.outcome import Cause
from appliance.values import TargetAddress
from tests.unit.net.loop import Loop, loop, open_fds

TIMEOUT = 5.0


@dataclass(eq=False)
class Caller:
    """The session that wants an endpoint."""

    peer: object = ("127.0.0.1", 9)
    connection: Socket | None = None
    endpoint: Endpoint | None = None
    watched: bool = False
    causes: list[Cause] = field(default_factory=list)
    faults: int = 0

    def dialled(self, connection: Socket, endpoint: Endpoint, *, watched: bool) -> None:
        assert self.connection is None
        self.connection, self.endpoint, self.watched = connection, endpoint, watched

    def dial_failed(self, cause: Cause) -> None:
        self.causes.append(cause)

    def on_fault(self) -> None:
        self.faults += 1

    @property
    def is_told(self) -> bool:
        return self.connection is not None or bool(self.causes)

    def close(self, at: Loop) -> None:
        assert self.connection is not None
        if self.watched:
            at.reactor.forget(self.connection.fileno(), self.connection.close)
        else:
            self.connection.close()


@dataclass
class Script:
    """A resolver that knows what the test says: endpoints, or nothing yet."""

    known: dict[str, tuple[Endpoint, ...] | None] = field(default_factory=dict)
    waiting: list[tuple[Name, object]] = field(default_factory=list)

    def resolve(self, name: Name, asker: object) -> tuple[Endpoint, ...] | None:
        found = self.known.get(name[0])
        if found is None:
            self.waiting.append((name, asker))
        return found

    def withdraw(self, name: Name, asker: object) -> None:
        self.waiting.remove((name, asker))


def upstream(at: Loop, *targets: str, script: Script | None = None) -> Upstream:
    resolver = script or Script()
    addresses = [TargetAddress.parse(target) for target in targets]
    return Upstream(at.reactor, resolver, addresses, TIMEOUT)  # type: ignore[arg-type]  # a stand-in


@contextmanager
def server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def refusing() -> Iterator[str]:
    """Give an address that is bound, so nobody else gets it, and where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """Give an address whose SYNs are dropped: its queue is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        name = full.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(name)
        try:
            yield f"127.0.0.1:{name[1]}"
        finally:
            for filler in fillers:
                filler.close()


def go(at: Loop, of: Upstream) -> tuple[Attempt, Caller]:
    caller = Caller()
    attempt = of.dial(caller)
    attempt.go()
    return attempt, caller


def test_an_endpoint_is_connected() -> None:
    """The caller gets an open connection that is in the epoll set already, and knows where it goes."""
    with loop() as at, server() as address:
        attempt, caller = go(at, upstream(at, address))
        at.until(lambda: caller.is_told)
        assert caller.connection is not None
        assert caller.endpoint == attempt.endpoint
        assert caller.endpoint is not None
        assert caller.endpoint.text == address
        assert attempt.attempts == 1
        assert caller.watched
        at.reactor.rewatch(caller.connection.fileno(), 0)  # raises where it is not in the set
        caller.close(at)


def test_a_unix_endpoint_is_connected_at_once(tmp_path: Path) -> None:
    """Without a turn of the loop, and not in the epoll set."""
    path = str(tmp_path / "s")
    with loop() as at, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        _, caller = go(at, upstream(at, f"unix:{path}"))
        assert caller.connection is not None
        assert not caller.watched
        assert len(at.reactor) == 0
        caller.close(at)


@pytest.mark.parametrize("kind", ["absent", "no-socket"])
def test_a_unix_endpoint_that_is_not_there(tmp_path: Path, kind: str) -> None:
    """A path without a socket is unreachable or refused, at once."""
    path = tmp_path / "s"
    if kind == "no-socket":
        path.touch()
    with loop() as at:
        before = open_fds()
        attempt, caller = go(at, upstream(at, f"unix:{path}"))
        assert caller.causes == [Cause.DIAL_UNREACHABLE if kind == "absent" else Cause.DIAL_REFUSED]
        assert attempt.attempts == 1
        assert open_fds() == before


@contextmanager
def busy(path: str) -> Iterator[socket.socket]:
    """Listen at a path, with a queue that one client has filled."""
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(path)
        listening.listen(0)
        first.connect(path)
        yield listening


def test_a_unix_endpoint_with_a_full_queue_is_tried_again(tmp_path: Path) -> None:
    """EAGAIN of a unix connect is neither "under way" nor an end: once there is room it is connected."""
    with loop() as at, busy(f"{tmp_path}/s") as listening:
        _, caller = go(at, upstream(at, f"unix:{tmp_path}/s"))
        at.clock.now += BUSY_RETRY * 3
        at.turn()
        assert not caller.is_told
        listening.accept()[0].close()
        at.clock.now += BUSY_RETRY * 3
        at.turn()
        assert caller.connection is not None
        assert len(at.reactor.timers) == 0
        caller.close(at)


@pytest.mark.parametrize("how", ["timed_out", "abandon"])
def test_a_unix_endpoint_that_stays_busy_is_given_up(tmp_path: Path, how: str) -> None:
    """At the deadline the dial fails; an abandoned one hears nothing; neither leaves a timer or a fd."""
    with loop() as at, busy(f"{tmp_path}/s"):
        before = open_fds()
        attempt, caller = go(at, upstream(at, f"unix:{tmp_path}/s"))
        getattr(attempt, how)()
        assert caller.causes in ([[]] if how == "abandon" else [[Cause.DIAL_TIMEOUT], [Cause.DIAL_REFUSED]])
        assert len(at.reactor.timers) == 0
        at.turn()
        assert open_fds() == before


def test_a_busy_endpoint_waits_for_the_others(tmp_path: Path) -> None:
    """Another endpoint that refuses does not end the wait for the one that is only busy."""
    with loop() as at, busy(f"{tmp_path}/s") as listening, refusing() as closed:
        attempt, caller = go(at, upstream(at, f"unix:{tmp_path}/s", closed))
        at.until(lambda: caller.is_told or attempt._socket is None)
        listening.accept()[0].close()
        at.clock.now += BUSY_RETRY * 3
        at.turn()
        assert caller.connection is not None
        caller.close(at)


def test_endpoints_take_turns() -> None:
    """Each session begins one endpoint further on."""
    with loop() as at, server() as one, server() as two, server() as three:
        of = upstream(at, one, two, three)
        begun = []
        for _ in range(4):
            attempt, _ = go(at, of)
            assert attempt.endpoint is not None
            begun.append(attempt.endpoint.text)
            attempt.abandon()
        assert begun == [one, two, three, one]


def test_the_next_endpoint_is_tried() -> None:
    """A refused connection goes on to the next endpoint, with a deadline of its own."""
    with loop() as at, refusing() as closed, server() as address:
        attempt, caller = go(at, upstream(at, closed, address))
        at.clock.now += 3
        at.until(lambda: caller.is_told)
        assert caller.endpoint is not None
        assert caller.endpoint.text == address
        assert attempt.attempts == 2
        assert attempt.started == at.clock.now
        assert attempt.deadline == at.clock.now + TIMEOUT
        caller.close(at)


def test_an_endpoint_that_answers_and_resets_at_once() -> None:
    """Connected and reset by the time it is looked at: its bytes are the relay's, it is no failed dial."""
    with loop() as at, socket.create_server(("127.0.0.1", 0)) as listening:
        _, caller = go(at, upstream(at, f"127.0.0.1:{listening.getsockname()[1]}"))
        accepted, _ = listening.accept()
        accepted.sendall(b"421 too many")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ABORT)
        accepted.close()
        at.until(lambda: caller.is_told)
        assert caller.causes == []
        assert caller.connection is not None
        assert caller.connection.recv(100) == b"421 too many"
        with pytest.raises(ConnectionResetError):
            caller.connection.recv(100)
        caller.close(at)


def test_all_endpoints_fail() -> None:
    """Each is tried once, the last one's cause is told, and no fd is left."""
    with loop() as at, refusing() as one, refusing() as two:
        before = open_fds()
        attempt, caller = go(at, upstream(at, one, two))
        at.until(lambda: caller.is_told)
        assert caller.causes == [Cause.DIAL_REFUSED]
        assert attempt.attempts == 2
        at.turn()
        assert open_fds() == before
        assert len(at.reactor) == 0


def test_an_endpoint_that_does_not_answer_is_given_up() -> None:
    """After the deadline the next one is tried; where there is none, the cause is the time-out."""
    with loop() as at, silent() as mute, server() as address:
        before = open_fds()
        attempt, caller = go(at, upstream(at, mute, address))
        assert attempt.deadline == at.reactor.now + TIMEOUT
        at.turn()
        assert not caller.is_told
        at.clock.now += TIMEOUT
        at.turn()
        attempt.timed_out()
        assert attempt.deadline == at.clock.now + TIMEOUT
        at.until(lambda: caller.is_told)
        assert caller.endpoint is not None
        assert caller.endpoint.text == address
        assert attempt.attempts == 2
        caller.close(at)
        at.turn()
        attempt, caller = go(at, upstream(at, mute))
        attempt.timed_out()
        assert caller.causes == [Cause.DIAL_TIMEOUT]
        at.turn()
        assert open_fds() == before


def test_abandoning_leaves_nothing() -> None:
    """A session that ends while dialling leaves no fd, no watch, no question, and hears nothing more."""
    script = Script()
    with loop() as at, silent() as mute, server() as address:
        before = open_fds()
        for target in (mute, address, "web.internal:80"):
            attempt, caller = go(at, upstream(at, target, address, script=script))
            attempt.abandon()
            at.turn()
            at.turn()
            assert not caller.is_told
        assert script.waiting == []
        assert open_fds() == before
        assert len(at.reactor) == 0


def test_a_known_name_is_dialled_at_once() -> None:
    """Each endpoint of a name is tried in the resolver's order, then the rule's next target."""
    with loop() as at, refusing() as one, refusing() as two, server() as last:
        script = Script({"web.internal": (named(one), named(two))})
        attempt, caller = go(at, upstream(at, "web.internal:80", last, script=script))
        assert attempt.endpoint is not None
        assert attempt.endpoint.text == one
        at.until(lambda: caller.is_told)
        assert caller.endpoint is not None
        assert caller.endpoint.text == last
        assert attempt.attempts == 3
        caller.close(at)


def named(address: str) -> Endpoint:
    host, _, port = address.rpartition(":")
    return endpoint_named(socket.AF_INET, (host, int(port)))


def test_an_unknown_name_is_waited_for() -> None:
    """The dial goes on with the answer, and its deadline begins anew with it."""
    script = Script()
    with loop() as at, server() as address:
        attempt, caller = go(at, upstream(at, "web.internal:8080", script=script))
        assert script.waiting == [(("web.internal", 8080), attempt)]
        at.clock.now += 4
        at.turn()
        attempt.resolved((named(address),))
        assert attempt.deadline == at.clock.now + TIMEOUT
        at.until(lambda: caller.is_told)
        assert caller.endpoint == named(address)
        caller.close(at)


def test_a_name_that_does_not_resolve() -> None:
    """The next target is tried; where there is none, the cause says so, and no endpoint was tried."""
    script = Script()
    with loop() as at, server() as address:
        attempt, caller = go(at, upstream(at, "web.internal:80", script=script))
        attempt.resolved(())
        assert caller.causes == [Cause.DIAL_RESOLVE]
        assert (attempt.attempts, attempt.endpoint) == (0, None)
        attempt, caller = go(at, upstream(at, "web.internal:80", address, script=script))
        attempt.resolved(())
        at.until(lambda: caller.is_told)
        assert caller.endpoint == named(address)
        caller.close(at)


def test_a_name_that_is_not_answered_in_time() -> None:
    """The deadline holds for the resolver, too; its late answer is not waited for."""
    script = Script()
    with loop() as at:
        attempt, caller = go(at, upstream(at, "web.internal:80", script=script))
        attempt.timed_out()
        assert caller.causes == [Cause.DIAL_RESOLVE]
        assert script.waiting == []


def test_a_target_on_an_absent_interface() -> None:
    """A link-local target whose interface is not there (now) fails its dial, not the worker."""
    script = Script({"fe80::1%nosuch0": ()})
    with loop() as at, server() as address:
        of = upstream(at, "[fe80::1%nosuch0]:80", script=script)
        _, caller = go(at, of)
        assert caller.causes in ([Cause.DIAL_RESOLVE], [Cause.DIAL_UNREACHABLE])
        _, caller = go(at, upstream(at, "[fe80::1%nosuch0]:80", address, script=script))
        at.until(lambda: caller.is_told)
        assert caller.endpoint == named(address)
        caller.close(at)


def test_no_fd_for_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMFILE of socket(2) is a cause, not a fault."""
    from appliance.net import dial  # noqa: PLC0415  to patch what it imported

    def refuse(*_: object) -> Socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(dial, "Socket", refuse)
    with loop() as at:
        _, caller = go(at, upstream(at, "127.0.0.1:9", "127.0.0.1:10"))
        assert caller.causes == [Cause.FD_LIMIT]


def test_no_room_in_the_epoll_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC of epoll_ctl(2) (fs.epoll.max_user_watches) is a cause as well, and leaves no fd."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with loop() as at, server() as address:
        before = open_fds()
        monkeypatch.setattr(type(at.reactor), "watch", refuse)
        _, caller = go(at, upstream(at, address))
        assert caller.causes == [Cause.FD_LIMIT]
        at.turn()
        assert open_fds() == before


def test_a_fault_of_the_dialling_is_the_sessions() -> None:
    """Who raises while dialling ends the session that wanted it."""
    with loop() as at:
        caller = Caller()
        upstream(at, "127.0.0.1:9").dial(caller).on_fault()
        assert caller.faults == 1
