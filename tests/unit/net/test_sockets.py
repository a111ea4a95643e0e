"""Sockets: what their errors mean, what their addresses look like, what clients inherit."""

import errno
import os
import socket
from pathlib import Path

import pytest

from appliance.net.sockets import (
    TCP_RTO_MAX_MS,
    AcceptError,
    Endpoint,
    abort_on_close,
    classify_accept,
    dial_cause,
    endpoint_named,
    endpoint_of,
    has_address,
    keep_alive,
    listening_socket,
    peer_text,
    resume_soon,
    sockaddr_of,
)
from appliance.outcome import LEGAL, Cause, Stage
from appliance.values import ListenAddress, TargetAddress
from tests.ports import free_for_both_families
from tests.unit.net.loop import tcp_pair

CLIENT_GONE = [
    # accept(2) lists these as its own:
    errno.ECONNABORTED,
    errno.EINTR,
    errno.EPERM,
    errno.EPROTO,
    # and these as the new socket's, "to be treated like EAGAIN by retrying":
    errno.ENETDOWN,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
]


@pytest.mark.parametrize("number", CLIENT_GONE, ids=errno.errorcode.get)
def test_an_error_of_one_client_is_not_the_listeners(number: int) -> None:
    """Every errno that accept(2) passes on from the new socket lets the next client be accepted."""
    assert classify_accept(number) is AcceptError.CLIENT_GONE


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EWOULDBLOCK])
def test_an_empty_queue_is_no_error(number: int) -> None:
    """EAGAIN and its other name say that all clients are taken."""
    assert classify_accept(number) is AcceptError.NONE_WAITING


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, 9999, None])
def test_what_runs_out_pauses(number: int | None) -> None:
    """No fd, no memory, and whatever nobody foresaw: trying on at once would spin."""
    assert classify_accept(number) is AcceptError.EXHAUSTED


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ECONNREFUSED, Cause.DIAL_REFUSED),
        (errno.ECONNRESET, Cause.DIAL_REFUSED),
        (errno.EAGAIN, Cause.DIAL_REFUSED),
        (errno.ETIMEDOUT, Cause.DIAL_TIMEOUT),
        (errno.EMFILE, Cause.FD_LIMIT),
        (errno.ENFILE, Cause.FD_LIMIT),
        (errno.ENOBUFS, Cause.FD_LIMIT),
        (errno.ENOMEM, Cause.FD_LIMIT),
        (errno.EADDRNOTAVAIL, Cause.FD_LIMIT),
        (errno.ENETUNREACH, Cause.DIAL_UNREACHABLE),
        (errno.EHOSTUNREACH, Cause.DIAL_UNREACHABLE),
        (errno.ENOENT, Cause.DIAL_UNREACHABLE),
        (errno.EACCES, Cause.DIAL_UNREACHABLE),
        (0, Cause.DIAL_UNREACHABLE),
        (None, Cause.DIAL_UNREACHABLE),
    ],
)
def test_an_error_of_connect_is_a_cause(number: int | None, cause: Cause) -> None:
    """Each errno of connect(2) says what a session ends with."""
    assert dial_cause(number) is cause


def test_every_error_of_connect_is_legal_while_dialling() -> None:
    """No errno at all ends a session with a cause that its stage does not have."""
    assert {dial_cause(number) for number in errno.errorcode} <= LEGAL[Stage.DIAL]


@pytest.mark.parametrize(
    ("sockaddr", "text"),
    [
        (("203.0.113.9", 51022), "203.0.113.9:51022"),
        (("2001:db8::1", 51022, 0, 0), "[2001:db8::1]:51022"),
        (("::ffff:203.0.113.9", 51022, 0, 0), "203.0.113.9:51022"),
        (("::ffff:0:1", 80, 0, 0), "[::ffff:0:1]:80"),
        (("fe80::1%lo", 80, 0, 1), "[fe80::1%lo]:80"),
        ("", "unix"),
        (b"\0autobound", "unix"),
        (None, "unix"),
    ],
)
def test_a_peer_is_written_as_in_the_log(sockaddr: object, text: str) -> None:
    """IPv4 bare, IPv6 in brackets, IPv4 on a socket of both families as IPv4, unix as such."""
    assert peer_text(sockaddr) == text


@pytest.mark.parametrize(
    ("text", "sockaddr"),
    [
        ("203.0.113.9:51022", ("203.0.113.9", 51022)),
        ("[2001:db8::1]:51022", ("2001:db8::1", 51022, 0, 0)),
        ("unix", ""),
        ("", ""),
        ("name.example:80", ""),
        ("[name.example]:80", ""),
        ("203.0.113.9", ""),
        ("203.0.113.9:65536", ""),
        ("203.0.113.9:0", ""),
        ("203.0.113.9:", ""),
    ],
)
def test_a_clients_address_is_read_back(text: str, sockaddr: object) -> None:
    """What the log has is what accept(2) gave; what is no address is none, and is not looked up."""
    assert sockaddr_of(text) == sockaddr
    if sockaddr:
        assert peer_text(sockaddr) == text


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("10.0.0.5:80", Endpoint(socket.AF_INET, ("10.0.0.5", 80), "10.0.0.5:80")),
        ("[2001:db8::1]:80", Endpoint(socket.AF_INET6, ("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80")),
        ("unix:/run/a.sock", Endpoint(socket.AF_UNIX, "/run/a.sock", "unix:/run/a.sock")),
    ],
)
def test_an_address_is_made_ready_to_dial(text: str, endpoint: Endpoint) -> None:
    """Numeric and unix addresses need no resolver."""
    assert endpoint_of(TargetAddress.parse(text)) == endpoint


def test_an_answer_of_the_resolver_is_an_endpoint() -> None:
    """Both families of getaddrinfo(3); anything else is a bug."""
    assert endpoint_named(socket.AF_INET, ("10.0.0.5", 80)).text == "10.0.0.5:80"
    assert endpoint_named(socket.AF_INET6, ("::1", 80, 0, 0)).text == "[::1]:80"
    with pytest.raises(TypeError):
        endpoint_named(socket.AF_UNIX, "/run/a.sock")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_a_client_inherits_the_listeners_options(listen: str) -> None:
    """TCP_NODELAY and keep-alive with its times are on an accepted socket that nobody touched."""
    with listening_socket(endpoint_of(ListenAddress.parse(listen)), reuse_port=True) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        fd, _ = listener._accept()  # type: ignore[attr-defined]  # see sockets.Socket
        with client, socket.socket(fileno=fd) as accepted:
            tcp = {
                option: accepted.getsockopt(socket.IPPROTO_TCP, option)
                for option in (
                    socket.TCP_NODELAY,
                    socket.TCP_KEEPIDLE,
                    socket.TCP_KEEPINTVL,
                    socket.TCP_KEEPCNT,
                )
            }
            assert tcp == {
                socket.TCP_NODELAY: 1,
                socket.TCP_KEEPIDLE: 60,
                socket.TCP_KEEPINTVL: 15,
                socket.TCP_KEEPCNT: 4,
            }
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert not os.get_inheritable(fd)


def test_a_listener_neither_blocks_nor_outlives_an_exec() -> None:
    """An accept that finds nobody says so; a program started by us does not hold the port."""
    with listening_socket(endpoint_of(ListenAddress.parse("127.0.0.1:0")), reuse_port=False) as listener:
        assert not listener.get_inheritable()
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_an_ipv6_listener_leaves_ipv4_alone() -> None:
    """[::] and 0.0.0.0 at one port are two listeners."""
    port = free_for_both_families()
    six = endpoint_of(ListenAddress.parse(f"[::]:{port}"))
    with (
        listening_socket(six, reuse_port=False),
        listening_socket(Endpoint(socket.AF_INET, ("0.0.0.0", port), ""), reuse_port=False) as four,
    ):
        assert four.getsockname()[1] == port


def test_a_bind_that_fails_leaves_nothing() -> None:
    """The address's error comes out, and the socket is closed (an unclosed one would be a warning)."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)),
    ):
        listening_socket(Endpoint(socket.AF_INET, taken.getsockname(), ""), reuse_port=False)


def test_a_unix_listener_has_no_tcp_options(tmp_path: Path) -> None:
    """Options of TCP are not set where they would be an error."""
    with listening_socket(Endpoint(socket.AF_UNIX, f"{tmp_path}/s", ""), reuse_port=False) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def test_abort_on_close_is_a_reset() -> None:
    """The peer reads ECONNRESET, not an orderly end."""
    mine, theirs = tcp_pair()
    with theirs:
        abort_on_close(mine)
        mine.close()
        with pytest.raises(ConnectionResetError):
            theirs.recv(1)


def test_keep_alive_can_be_set_on_an_endpoint() -> None:
    """An endpoint's socket inherits nothing; it is set there by hand."""
    mine, theirs = tcp_pair()
    with mine, theirs:
        assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        keep_alive(mine)
        assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_a_host_has_the_address_of_its_connections(listen: str) -> None:
    """An address that is there is known as such, of either family; tests/netns takes one away."""
    server = listening_socket(endpoint_of(ListenAddress.parse(listen)), reuse_port=False)
    with server, socket.create_connection(server.getsockname()[:2]) as connection:
        assert has_address(connection)


def test_what_a_listener_has_of_resuming_its_clients_have() -> None:
    """A client of a listener that resumes soon does so too, where the kernel knows how."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        resume_soon(server)
        with socket.create_connection(server.getsockname()) as other:
            accepted, _ = server.accept()
            with accepted:
                longest = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                assert longest in {0, 120_000}
                if longest:
                    assert accepted.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS) == 2000
            assert other.fileno() >= 0
