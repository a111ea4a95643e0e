"""Through a proxy: passed, refused, too late, given up; never a byte too many."""

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from appliance.net.sockets import LINGER_ABORT, Socket
from appliance.net.via_proxy import Passage
from appliance.values import Proxy as ProxyUrl
from appliance.values import TargetAddress
from tests.unit.net.loop import PATIENCE, Loop, Watcher, loop, open_fds
from tests.unit.net.proxies import Proxy, Script, connect, exactly, proxy, socks

TARGET = TargetAddress.parse("198.51.100.1:7443")
ASKED = b"CONNECT 198.51.100.1:7443 HTTP/1.1\r\nHost: 198.51.100.1:7443\r\n\r\n"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
GRANTED = bytes.fromhex("05 00 00 01 00000000 0000")
LONG = b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10000
REFUSED = "the proxy refuses to connect to 198.51.100.1:7443"
ENDED = "the proxy has ended the connection without an answer"
TIMEOUT = 5.0


@dataclass(eq=False)
class Caller:
    """Who wants to get through."""

    at: Loop
    connection: Socket | None = None
    failures: list[str] = field(default_factory=list)
    faults: int = 0
    watcher: Watcher = field(default_factory=Watcher)

    def passed(self, connection: Socket) -> None:
        assert self.connection is None
        self.connection = connection
        self.at.reactor.hand_over(connection.fileno(), self.watcher)

    def not_passed(self, why: str) -> None:
        self.failures.append(why)

    def on_fault(self) -> None:
        self.faults += 1

    @property
    def is_told(self) -> bool:
        return self.connection is not None or bool(self.failures)


def start(
    at: Loop, to: Proxy, scheme: str, credentials: str = "", target: TargetAddress = TARGET
) -> tuple[Passage, Caller]:
    """Connect to a proxy and begin."""
    caller = Caller(at)
    url = ProxyUrl.parse(f"{scheme}://{credentials}{to.address}")
    connection = socket.create_connection((url.address.host, url.address.first_port))
    plain = Socket(fileno=connection.detach())
    passage = Passage(at.reactor, caller, plain, url, target, at.reactor.now + TIMEOUT)
    passage.go(watched=False)
    return passage, caller


def end(at: Loop, caller: Caller) -> None:
    """Close what was passed, and see that nothing else is left."""
    if caller.connection is not None:
        at.reactor.forget(caller.connection.fileno(), caller.connection.close)
    at.turn()
    assert len(at.reactor) == 0
    assert len(at.reactor.timers) == 0
    assert caller.faults == 0


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize(
    ("scheme", "credentials", "script", "heard"),
    [
        ("http", "", lambda size: connect(ESTABLISHED + b"\x16\x03\x03", size), [ASKED]),
        (
            "http",
            "me:x@",
            lambda size: connect(b"HTTP/1.1 100 X\r\n\r\n" + ESTABLISHED + b"\x16\x03\x03", size),
            [ASKED.replace(b"\r\n\r\n", b"\r\nProxy-Authorization: Basic bWU6eA==\r\n\r\n")],
        ),
        (
            "socks5",
            "",
            lambda size: socks(GRANTED + b"\x16\x03\x03", size),
            [b"\5\1\0", bytes.fromhex("05 01 00 01 c6336401 1d13")],
        ),
        (
            "socks5",
            "me:x@",
            lambda size: socks(GRANTED + b"\x16\x03\x03", size, password=b"\1\2me\1x"),
            [b"\5\2\0\2", b"\1\2me\1x", bytes.fromhex("05 01 00 01 c6336401 1d13")],
        ),
    ],
)  # fmt: skip
def test_a_way_is_open(
    scheme: str, credentials: str, script: Callable[[int], Script], heard: list[bytes], size: int
) -> None:
    """However the proxy answers; what comes behind its answer is still in the socket, all of it."""
    with loop() as at, proxy(script(size)) as to:
        _, caller = start(at, to, scheme, credentials)
        at.until(lambda: caller.is_told)
        assert caller.failures == []
        assert to.heard == heard
        assert caller.connection is not None
        at.until(lambda: caller.watcher.events)  # watched for IN, by its new owner
        assert len(at.reactor.timers) == 0
        caller.connection.settimeout(PATIENCE)
        assert exactly(caller.connection, 3) == b"\x16\x03\x03"
        end(at, caller)


@pytest.mark.parametrize(
    ("scheme", "script", "failure"),
    [
        ("http", connect(b"HTTP/1.1 403 Forbidden\r\n\r\n"), f"{REFUSED}: 403 Forbidden"),
        ("http", connect(b"HTTP/1.1 407 X\r\n\r\n"), "the proxy wants a user and a password"),
        ("http", connect(b"SSH-2.0-x\r\n"), "the proxy does not answer in HTTP"),
        ("http", connect(LONG), "the proxy answers with more than 8192 bytes"),
        ("socks5", socks(b"\5\2\0\1" + bytes(6)), f"{REFUSED}: its rules do not allow it"),
        ("socks5", lambda client, _: client.sendall(b"\5\xff"), "the proxy wants a user and a password"),
        ("http", lambda client, _: client.shutdown(socket.SHUT_WR), ENDED),
        ("socks5", lambda client, _: client.shutdown(socket.SHUT_WR), ENDED),
    ],
)
def test_a_proxy_refuses(scheme: str, script: Script, failure: str) -> None:
    """The caller is told why, once, and nothing is left."""
    with loop() as at, proxy(script) as to:
        _, caller = start(at, to, scheme)
        at.until(lambda: caller.is_told)
        assert caller.failures == [failure]
        end(at, caller)
        at.clock.now += TIMEOUT * 2
        at.turn()
        assert caller.failures == [failure]


def reset(client: socket.socket, _: Proxy) -> None:
    """Abort."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ABORT)
    client.recv(1)
    client.close()
    raise ConnectionError


def test_a_proxy_aborts() -> None:
    """A reset is a failure, no fault."""
    with loop() as at, proxy(reset) as to:
        _, caller = start(at, to, "http")
        at.until(lambda: caller.is_told)
        assert caller.failures == [f"the proxy has ended the connection: {os.strerror(errno.ECONNRESET)}"]
        end(at, caller)


def test_a_proxy_that_hangs() -> None:
    """After the deadline there is no way, and before it nothing is said."""
    with loop() as at, proxy(lambda client, _: client.recv(1)) as to:
        _, caller = start(at, to, "http")
        at.clock.now += TIMEOUT * 0.9
        at.turn()
        assert not caller.is_told
        at.clock.now += TIMEOUT * 0.2
        at.turn()
        assert caller.failures == ["the proxy has not answered in time"]
        end(at, caller)


def test_a_passage_is_abandoned() -> None:
    """Nobody hears of it, and nothing is left; twice is no error."""
    with loop() as at, proxy(lambda client, _: client.recv(1)) as to:
        passage, caller = start(at, to, "socks5")
        assert passage._connection is not None
        fd = passage._connection.fileno()
        passage.abandon()
        passage.abandon()
        at.turn()
        assert not caller.is_told
        assert fd not in open_fds()
        end(at, caller)


def test_a_name_is_the_proxys_to_resolve() -> None:
    """It is sent as it is."""
    with loop() as at, proxy(connect(ESTABLISHED)) as to:
        _, caller = start(at, to, "http", target=TargetAddress.parse("gateway.example:7443"))
        at.until(lambda: caller.is_told)
        assert to.heard[0].startswith(b"CONNECT gateway.example:7443 HTTP/1.1\r\n")
        end(at, caller)


def test_a_question_that_is_sent_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A send buffer that is full is waited for."""

    class Narrow:
        """A socket that takes nothing at first, and then three bytes at a time."""

        def __init__(self, real: Socket) -> None:
            self._real = real
            self._calls = 0

        def send(self, data: bytes, flags: int) -> int:
            self._calls += 1
            if self._calls == 1:
                raise BlockingIOError
            return self._real.send(data[:3], flags)

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    with loop() as at, proxy(connect(ESTABLISHED)) as to:
        caller = Caller(at)
        connection = socket.create_connection((to.address.host, to.address.first_port))
        narrow = Narrow(Socket(fileno=connection.detach()))
        url = ProxyUrl("http", to.address)
        passage = Passage(at.reactor, caller, narrow, url, TARGET, at.reactor.now + TIMEOUT)  # type: ignore[arg-type]  # a stand-in
        passage.go(watched=False)
        at.until(lambda: caller.is_told)
        assert to.heard == [ASKED]
        end(at, caller)


def test_no_room_in_the_epoll_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC of epoll_ctl(2) is a failure, and leaves no fd."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with loop() as at, proxy(lambda client, _: client.recv(1)) as to:
        monkeypatch.setattr(type(at.reactor), "watch", refuse)
        _, caller = start(at, to, "http")
        assert caller.failures == [os.strerror(errno.ENOSPC)]


def test_a_fault_is_the_callers() -> None:
    """A passage that raises closes its socket and tells its caller."""
    with loop() as at, proxy(lambda client, _: client.recv(1)) as to:
        passage, caller = start(at, to, "http")
        passage.on_fault()
        assert caller.faults == 1
        caller.faults = 0
        end(at, caller)
