"""Datagram sockets: what is set, what the kernel tells, and what its errors mean."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from appliance.net.datagram_sockets import (
    IP_PKTINFO,
    SO_RCVBUFFORCE,
    datagram_socket,
    drop_cause,
    endpoint_lost,
    grow_receive_buffer,
    is_drained,
    is_wildcard,
    kernel_drops,
    prepare_datagrams,
    queued_errors,
    receive_buffer_of,
    report_errors,
)
from appliance.net.sockets import Endpoint, endpoint_of
from appliance.outcome import LEGAL, Cause, Drop, Stage
from appliance.values import ListenAddress

BUFFER = 1 << 18


def endpoint(text: str) -> Endpoint:
    return endpoint_of(ListenAddress.parse(text))


@contextmanager
def bound(text: str, *, reuse_port: bool = False, receive_buffer: int = BUFFER) -> Iterator[socket.socket]:
    with datagram_socket(endpoint(text), reuse_port=reuse_port, receive_buffer=receive_buffer) as made:
        yield made


def where_sent(receiver: socket.socket) -> list[bytes]:
    """Receive a datagram; give the control messages."""
    _, controls, _, _ = receiver.recvmsg(100, 128)
    return [data for _, _, data in controls]


# -- made ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"])
def test_a_listeners_socket_never_blocks_and_is_not_inherited(text: str) -> None:
    """O_NONBLOCK, close-on-exec, one family only, and the buffer as it was asked for."""
    with bound(text) as made:
        assert not made.getblocking()
        assert not made.get_inheritable()
        assert made.type == socket.SOCK_DGRAM
        assert receive_buffer_of(made) == BUFFER
        if made.family == socket.AF_INET6:
            assert made.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_workers_share_a_port_and_others_do_not() -> None:
    """With reuse_port as many as one likes, without it the first one only."""
    with bound("127.0.0.1:0", reuse_port=True) as one:
        text = f"127.0.0.1:{one.getsockname()[1]}"
        with bound(text, reuse_port=True) as other:
            assert other.getsockname() == one.getsockname()
        with pytest.raises(OSError, match="in use"), bound(text):
            pass


def test_a_refused_bind_leaves_no_socket() -> None:
    """The error is bind's; nothing stays open (a ResourceWarning would fail this test)."""
    with pytest.raises(OSError, match="assign"), bound("203.0.113.77:0"):
        pass


@pytest.mark.parametrize(
    ("text", "to", "size"), [("0.0.0.0:0", "127.0.0.2", 12), ("[::]:0", "::1", 20)], ids=["ipv4", "ipv6"]
)
def test_a_wildcard_is_told_where_datagrams_were_sent_to(text: str, to: str, size: int) -> None:
    """With each one comes the address that its answer has to leave from."""
    with bound(text) as made, socket.socket(made.family, socket.SOCK_DGRAM) as client:
        assert is_wildcard(made)
        client.sendto(b"?", (to, made.getsockname()[1]))
        (data,) = where_sent(made)
        assert len(data) == size
        where = data[4:8] if size == 12 else data[:16]
        assert socket.inet_ntop(made.family, where) == to


def test_a_socket_of_one_address_is_not() -> None:
    """It knows that address; a message with each datagram would cost time."""
    with bound("127.0.0.1:0") as made, socket.socket(type=socket.SOCK_DGRAM) as client:
        assert not is_wildcard(made)
        client.sendto(b"?", made.getsockname())
        assert where_sent(made) == []


def test_a_socket_from_outside_is_prepared() -> None:
    """One of both families tells of either."""
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as outside,
        socket.socket(type=socket.SOCK_DGRAM) as four,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six,
    ):
        outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        outside.bind(("::", 0))
        prepare_datagrams(outside, BUFFER)
        port = outside.getsockname()[1]
        assert not outside.getblocking()
        assert receive_buffer_of(outside) == BUFFER
        assert outside.getsockopt(socket.IPPROTO_IP, IP_PKTINFO)
        six.sendto(b"?", ("::1", port))
        assert socket.inet_ntop(socket.AF_INET6, where_sent(outside)[0][:16]) == "::1"
        four.sendto(b"?", ("127.0.0.3", port))
        assert b"\x7f\0\0\3" in where_sent(outside)[-1]


# -- the receive buffer ------------------------------------------------------------------------------


def test_a_buffer_that_is_not_granted_is_as_large_as_may_be() -> None:
    """Without CAP_NET_ADMIN net.core.rmem_max is the most; whatever is refused, no error comes of it."""
    asked: list[tuple[int, int]] = []

    class Strict(socket.socket):
        def setsockopt(self, *given: object) -> None:
            level, option, value = given
            assert isinstance(level, int)
            assert isinstance(option, int)
            assert isinstance(value, int)
            asked.append((option, value))
            if option == SO_RCVBUFFORCE or value > BUFFER:
                raise PermissionError(errno.EPERM, "no CAP_NET_ADMIN")
            super().setsockopt(level, option, value)

    with Strict(type=socket.SOCK_DGRAM) as receiver:
        grow_receive_buffer(receiver, BUFFER)
        assert receive_buffer_of(receiver) == BUFFER
        grow_receive_buffer(receiver, 2 * BUFFER)
        assert receive_buffer_of(receiver) == BUFFER
    assert asked == [(option, size) for size in (BUFFER, 2 * BUFFER) for option in (33, socket.SO_RCVBUF)]


def test_what_the_kernel_drops_is_counted_exactly() -> None:
    """Of so many sent into a small buffer, those that do not come are those that it counts."""
    with bound("127.0.0.1:0", receive_buffer=4096) as made, socket.socket(type=socket.SOCK_DGRAM) as client:
        assert kernel_drops(made) == 0
        for _ in range(2):
            for _ in range(100):
                client.sendto(b"x" * 500, made.getsockname())
            read_all(made)
        came = 200 - kernel_drops(made)
        assert 0 < came < 200
        assert is_drained(made)


def read_all(receiver: socket.socket) -> int:
    count = 0
    while True:
        try:
            receiver.recv(1 << 16)
        except BlockingIOError:
            return count
        count += 1


def test_each_drop_is_counted_once() -> None:
    """What came and what was dropped is what was sent, also over several rounds."""
    with bound("127.0.0.1:0", receive_buffer=4096) as made, socket.socket(type=socket.SOCK_DGRAM) as client:
        came = 0
        for sent in range(50, 500, 50):
            for _ in range(50):
                client.sendto(b"x" * 300, made.getsockname())
            came += read_all(made)
            assert came + kernel_drops(made) == sent


def test_a_socket_is_drained_when_nothing_waits() -> None:
    """One datagram, even an empty one, is something."""
    with bound("127.0.0.1:0") as made, socket.socket(type=socket.SOCK_DGRAM) as client:
        assert is_drained(made)
        client.sendto(b"", made.getsockname())
        assert not is_drained(made)
        made.recv(1)
        assert is_drained(made)


def test_a_kernel_that_does_not_tell() -> None:
    """Before Linux 4.12 there is no such count: no drops are known, and something may wait."""

    class Old(socket.socket):
        def getsockopt(self, *_: object) -> bytes:  # type: ignore[override]
            return b""

    with Old(type=socket.SOCK_DGRAM) as receiver:
        assert kernel_drops(receiver) == 0
        assert not is_drained(receiver)


# -- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_icmp_errors_are_queued(family: int, host: str) -> None:
    """Where nobody listens the host says so; the errno is told once, and no more waits after that."""
    with socket.socket(family, socket.SOCK_DGRAM) as nobody:
        nobody.bind((host, 0))
        where = nobody.getsockname()
    with socket.socket(family, socket.SOCK_DGRAM) as connection:
        connection.setblocking(False)
        report_errors(connection, family)
        connection.connect(where)
        assert queued_errors(connection) == []
        connection.send(b"?")
        assert queued_errors(connection) == [errno.ECONNREFUSED]
        assert queued_errors(connection) == []
        with pytest.raises(BlockingIOError):
            connection.recv(1)


ICMP = {
    "ECONNREFUSED": Cause.ENDPOINT_REFUSED,
    "EHOSTUNREACH": Cause.ENDPOINT_UNREACHABLE,
    "ENETUNREACH": Cause.ENDPOINT_UNREACHABLE,
    "EHOSTDOWN": Cause.ENDPOINT_UNREACHABLE,
    "ENONET": Cause.ENDPOINT_UNREACHABLE,
    "ENOPROTOOPT": Cause.ENDPOINT_UNREACHABLE,
    "EOPNOTSUPP": Cause.ENDPOINT_UNREACHABLE,
}
"""icmp_err_convert, net/ipv4/icmp.c, without what says that a datagram is too long."""


@pytest.mark.parametrize("name", ICMP)
def test_what_icmp_says_of_an_endpoint(name: str) -> None:
    """Each code that the kernel makes an errno of ends a flow, or takes it to another endpoint."""
    cause = endpoint_lost(getattr(errno, name))
    assert cause is ICMP[name]
    assert cause in LEGAL[Stage.RELAY]


@pytest.mark.parametrize("name", ["EAGAIN", "ENOBUFS", "ENOMEM", "EMSGSIZE", "EPERM", "EINVAL", "EIO"])
def test_what_concerns_a_datagram_says_nothing_of_the_endpoint(name: str) -> None:
    """The flow goes on, whatever was the matter with this one."""
    assert endpoint_lost(getattr(errno, name)) is None
    assert endpoint_lost(None) is None


@pytest.mark.parametrize(
    ("name", "drop"),
    [
        ("EAGAIN", Drop.SEND_FULL),
        ("ENOBUFS", Drop.SEND_FULL),
        ("ENOMEM", Drop.SEND_FULL),
        ("EMSGSIZE", Drop.TOO_LONG),
        ("EPERM", Drop.SEND_FAILED),
        ("EACCES", Drop.SEND_FAILED),
        ("ENETUNREACH", Drop.SEND_FAILED),
    ],
)
def test_why_a_datagram_was_not_sent(name: str, drop: Drop) -> None:
    """Full, too long, or refused: what nobody foresaw is refused, too."""
    assert drop_cause(getattr(errno, name)) is drop
    assert drop_cause(None) is Drop.SEND_FAILED
