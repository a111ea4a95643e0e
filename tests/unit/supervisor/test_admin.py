"""The admin socket: one line in, one line out, and nobody who connects can hold it up."""

import errno
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.supervisor import admin
from appliance.supervisor.admin import GRACE, MODE, MOST, Admin, Answer, admin_socket, refusal_hint, remove
from appliance.supervisor.admin_wire import LARGEST_REQUEST, PATIENCE
from tests.unit.net.loop import Loop, loop, open_fds

ECHO = b'{"verb":"echo","said":"hello"}'
ABSTRACT = f"\0portway-test/{os.getpid()}"
LATE = b'{"verb":"late"}'


class Said(msgspec.Struct):
    """What the verb of these tests takes, and replies."""

    said: str


@dataclass
class Served:
    """An admin socket with three verbs: one answers at once, one when told to, one is broken."""

    address: str
    loop: Loop
    admin: Admin
    late: list[Answer] = field(default_factory=list)

    def connect(self, request: bytes = b"") -> socket.socket:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.connect(ABSTRACT if self.address == "@" else self.address)
        peer.setblocking(False)
        peer.sendall(request)
        return peer

    def reply(self, peer: socket.socket) -> Any:
        """Turn until the peer has its reply, and nothing behind it."""
        whole = self.read(peer)
        assert whole.endswith(b"\n")
        assert whole.count(b"\n") == 1
        return json.loads(whole)

    def read(self, peer: socket.socket) -> bytes:
        got = bytearray()

        def ended() -> bool:
            try:
                data = peer.recv(65536)
            except BlockingIOError:
                return False
            except ConnectionResetError:  # what it had sent was not read to the end
                return True
            got.extend(data)
            return not data

        self.loop.until(ended)
        return bytes(got)

    def wait(self, seconds: float) -> None:
        self.loop.clock.now += seconds
        self.loop.turn()
        self.loop.turn()


@contextmanager
def served(address: str) -> Iterator[Served]:
    listening = admin_socket(address)
    with loop() as made:
        late: list[Answer] = []

        def broken(_request: bytes, _answer: Answer) -> None:
            raise ZeroDivisionError

        verbs: dict[str, Callable[[bytes, Answer], None]] = {
            "echo": lambda request, answer: answer(msgspec.json.decode(request, type=Said)),
            "late": lambda _, answer: late.append(answer),
            "broken": broken,
        }
        serving = Admin(made.reactor, listening, verbs)
        try:
            yield Served(address, made, serving, late)
        finally:
            remove(listening)
            serving.abandon()


@pytest.fixture(autouse=True)
def abstract_names_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep two runs of these tests on one machine apart, which share a mount namespace."""
    monkeypatch.setattr(
        admin,
        "admin_sockaddr",
        lambda address: ABSTRACT if address == "@" else address,
    )


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "admin.sock")


@pytest.fixture(params=["path", "@"])
def on(request: pytest.FixtureRequest, path: str) -> Iterator[Served]:
    with served(path if request.param == "path" else "@") as made:
        yield made


def test_a_request_has_its_reply(on: Served) -> None:
    """The verb gets the line with its keys; its reply is a line, and then the connection is closed."""
    with on.connect(ECHO + b"\n") as peer:
        assert on.reply(peer) == {"said": "hello"}


def test_a_request_may_come_in_pieces_and_end_with_the_stream(on: Served) -> None:
    """Nothing is answered before the line is whole; an end of the stream is one of the line, too."""
    with on.connect() as peer:
        for at in range(len(ECHO)):
            peer.send(ECHO[at : at + 1])
            on.loop.turn()
        peer.shutdown(socket.SHUT_WR)
        assert on.reply(peer) == {"said": "hello"}


def test_a_reply_may_be_late(on: Served) -> None:
    """While a verb takes its time others are answered."""
    with on.connect(LATE + b"\n") as slow, on.connect(ECHO + b"\n") as quick:
        assert on.reply(quick) == {"said": "hello"}
        on.loop.until(lambda: on.late)
        on.late[0](Said("at last"))
        on.late[0](Said("again"))
        assert on.reply(slow) == {"said": "at last"}


def test_a_long_reply_is_written_as_it_is_read(on: Served) -> None:
    """A reader that takes its time gets all of it, and holds nobody up."""
    with on.connect(LATE + b"\n") as slow:
        on.loop.until(lambda: on.late)
        on.late[0](Said("x" * 5_000_000))
        with on.connect(ECHO + b"\n") as quick:
            assert on.reply(quick) == {"said": "hello"}
        assert len(on.reply(slow)["said"]) == 5_000_000


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (b"\n", "not what is wanted"),
        (b"GET / HTTP/1.0\r\n", "not what is wanted"),
        (b"[]\n", "not what is wanted"),
        (b"{}\n", "verb"),
        (b'{"verb":1}\n', "verb"),
        (b'{"verb":"\xff"}\n', "not what is wanted"),
        (b"[" * 4000 + b"\n", "not what is wanted"),
        (b'{"verb":"nonsense"}\n', 'no verb "nonsense"; there is: echo, late, broken'),
        (b'{"verb":"echo"}\n', "said"),
        (b"x" * LARGEST_REQUEST + b"\n", "at most 4096 bytes"),
        (b"x" * (LARGEST_REQUEST + 1), "at most 4096 bytes"),
        (b"\0" * 100_000, "at most 4096 bytes"),
    ],
)
def test_garbage_is_told_so(on: Served, request_: bytes, why: str) -> None:
    """Whatever is no request gets a line that says why, and the next request is answered."""
    with on.connect(request_) as peer:
        assert why in on.reply(peer)["error"]
    with on.connect(ECHO + b"\n") as peer:
        assert on.reply(peer) == {"said": "hello"}


def test_the_longest_request(on: Served) -> None:
    """LARGEST_REQUEST bytes with the line's end are taken."""
    with on.connect(ECHO + b" " * (LARGEST_REQUEST - len(ECHO) - 1) + b"\n") as peer:
        assert on.reply(peer) == {"said": "hello"}


def test_a_fault_in_a_verb_is_told(on: Served) -> None:
    """It is reported as a fault is, and the peer hears that there was one."""
    with on.connect(b'{"verb":"broken"}\n') as peer:
        assert "fault" in on.reply(peer)["error"]
    assert isinstance(on.loop.faults.pop(), ZeroDivisionError)


def test_time_is_up(on: Served) -> None:
    """Without a request, and with a reply that is not read, a connection has PATIENCE seconds."""
    with on.connect(ECHO) as silent, on.connect(LATE + b"\n") as deaf, on.connect(LATE + b"\n") as waiting:
        on.loop.until(lambda: len(on.late) == 2)
        on.late[0](Said("x" * 5_000_000))
        on.wait(PATIENCE - 0.5)
        assert len(on.loop.reactor) == 4
        on.wait(1.0)
        assert len(on.loop.reactor) == 1
        assert "no request within 5 s" in on.reply(silent)["error"]
        assert 0 < len(on.read(deaf)) < 5_000_000
        assert on.read(waiting) == b""
        on.late[1](Said("too late"))
    assert not len(on.loop.reactor.timers)


@pytest.mark.parametrize("request_", [b"", b"{", LATE + b"\n"])
def test_a_peer_that_goes_is_forgotten(on: Served, request_: bytes) -> None:
    """At any stage: its fd is closed, and a reply to it is no error."""
    fds = open_fds()
    peer = on.connect(request_)
    on.loop.until(lambda: len(on.loop.reactor) == 2 and (on.late or b"late" not in request_))
    peer.close()
    on.loop.until(lambda: len(on.loop.reactor) == 1)
    on.loop.turn()
    assert open_fds() == fds
    for answer in on.late:
        answer(Said("nobody"))
    assert not len(on.loop.reactor.timers)


def test_a_peer_that_goes_while_it_is_written_to(on: Served) -> None:
    """The rest of the reply is nobody's."""
    peer = on.connect(LATE + b"\n")
    on.loop.until(lambda: on.late)
    on.late[0](Said("x" * 5_000_000))
    peer.close()
    on.loop.until(lambda: len(on.loop.reactor) == 1)


def test_a_peer_that_goes_before_the_reply(on: Served) -> None:
    """A reply in the same turn in which the peer goes raises nothing."""
    peer = on.connect(LATE + b"\n")
    on.loop.until(lambda: on.late)
    peer.close()
    on.late[0](Said("nobody"))
    on.loop.until(lambda: len(on.loop.reactor) == 1)


def test_there_are_so_many_at_a_time_and_the_others_wait(on: Served) -> None:
    """Of a hundred who are all answered late no more than MOST are served at once, and each has its turn."""
    with ExitStack() as ends:
        peers = [ends.enter_context(on.connect(LATE + b"\n")) for _ in range(100)]
        for first in range(0, 100, MOST):
            expected = min(first + MOST, 100)
            on.loop.until(lambda expected=expected: len(on.late) == expected)  # type: ignore[misc]
            on.wait(GRACE + 0.1)
            assert len(on.late) == expected
            for answer in on.late[first:]:
                answer(Said("done"))
        assert [on.reply(peer) for peer in peers] == [{"said": "done"}] * 100


def test_those_who_ask_nothing_make_room(on: Served) -> None:
    """A hundred who only connect keep one who asks from his reply for less than the patience of the first."""
    with ExitStack() as ends:
        mute = [ends.enter_context(on.connect()) for _ in range(100)]
        asks = ends.enter_context(on.connect(ECHO + b"\n"))
        for _ in range(100 // MOST + 1):
            for _ in range(MOST + 2):
                on.loop.turn()
            on.wait(GRACE + 0.1)
        assert on.reply(asks) == {"said": "hello"}
        assert "too many" in on.reply(mute[0])["error"]
    assert on.loop.clock.now - 1000.0 < PATIENCE


def test_without_fds_it_does_not_spin(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed accept is tried again after a pause, and the peer then has its reply."""
    with served(path) as on, on.connect(ECHO + b"\n") as peer:
        tries = []

        class Exhausted:
            def accept(self) -> None:
                tries.append(1)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

            def fileno(self) -> int:
                return real.fileno()

        real = on.admin._listening
        monkeypatch.setattr(on.admin, "_listening", Exhausted())
        for _ in range(10):
            on.loop.turn()
        assert len(tries) == 1
        monkeypatch.setattr(on.admin, "_listening", real)
        on.wait(GRACE + 0.1)
        assert on.reply(peer) == {"said": "hello"}


def test_a_peer_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """At an abstract address only the gateway's user and root are answered."""
    with served("@") as on:
        monkeypatch.setattr("appliance.supervisor.admin.os.geteuid", lambda: 1000)
        for uid, is_let_in in ((0, True), (1000, True), (65532, False)):
            monkeypatch.setattr(admin, "_uid_of", lambda _, uid=uid: uid)
            with on.connect(ECHO + b"\n") as peer:
                reply = on.reply(peer)
            assert (reply == {"said": "hello"}) is is_let_in
            assert (
                "only user 1000, whose gateway it is, and root may ask" in reply.get("error", "")
            ) is not is_let_in


def test_whose_a_peer_is(path: str) -> None:
    """The kernel's word for a peer of this process is this user."""
    one, other = socket.socketpair()
    with one, other:
        assert admin._uid_of(one) == os.geteuid()


def test_a_path_has_its_mode_whatever_the_umask(path: str) -> None:
    """User and group may ask, and nobody else; the file goes with the socket."""
    before = os.umask(0o777)
    try:
        listening = admin_socket(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(path).stat().st_mode) == MODE == 0o660
    remove(listening)
    remove(listening)
    assert not Path(path).exists()


def test_a_stale_file_is_replaced_and_a_live_one_is_not(path: str) -> None:
    """A killed gateway's socket is in nobody's way; one that somebody listens on stays his."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
        killed.listen()
    with served(path) as on:
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)) as refused:
            admin_socket(path)
        assert "ss -lxp" in str(refusal_hint(path, refused.value))
        with on.connect(ECHO + b"\n") as peer:
            assert on.reply(peer) == {"said": "hello"}


def test_two_of_one_mount_namespace() -> None:
    """The second one is refused, and the hint says who has it."""
    with served("@"), pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)) as refused:
        admin_socket("@")
    assert "another gateway" in str(refusal_hint("@", refused.value))


def test_a_place_where_no_socket_can_be(tmp_path: Path) -> None:
    """The error is the kernel's, with a hint, and no fd is left."""
    fds = open_fds()
    (tmp_path / "file").touch()
    for path, number in (
        ("absent/a.sock", errno.ENOENT),
        ("file/a.sock", errno.ENOTDIR),
        ("file", errno.EADDRINUSE),
    ):
        with pytest.raises(OSError, match=os.strerror(number)) as refused:
            admin_socket(str(tmp_path / path))
        assert refusal_hint(path, refused.value)
    assert open_fds() == fds


def test_a_copy_that_a_child_still_has(on: Served) -> None:
    """A connection that ends while a worker is being forked is not watched on through the worker's copy."""
    with on.connect() as peer:
        on.loop.until(lambda: len(on.loop.reactor) == 2)
        (connection,) = on.admin._open
        with connection._peer.dup():
            connection.end()
            on.loop.turn()
            peer.send(ECHO)
            assert on.loop.reactor._epoll.poll(0) == []


def test_a_child_lets_go(on: Served) -> None:
    """What a forked worker closes are its copies: all of them."""
    fds = open_fds()
    with on.connect(LATE + b"\n") as peer:
        on.loop.until(lambda: on.late)
        pid = os.fork()
        if not pid:  # what follows must not raise into the test
            peer.close()
            before = open_fds()
            on.admin.abandon()
            os._exit(len(before - open_fds()))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
        on.late[0](Said("still here"))
        assert on.reply(peer) == {"said": "still here"}
    assert open_fds() == fds
