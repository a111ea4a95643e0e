"""Binding UDP: beside TCP on the same port, apart from it, and never a port that somebody has."""

import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from appliance.net.datagram_sockets import IP_PKTINFO, datagram_socket, receive_buffer_of
from appliance.ruleset import Protocol, Ruleset, read
from appliance.supervisor import binding
from appliance.supervisor.binding import Binder, Bound, Refusal
from tests.ports import free_for_both_families

LOOPBACK = "127.0.0.1"
BUFFER = 256 << 10


def ruleset(*rules: tuple[str, str]) -> Ruleset:
    """Make a ruleset of a rule for each protocol and address."""
    text = "".join(
        f'[[rule]]\nname = "rule-{number}"\nprotocol = "{protocol}"\n'
        f'listen = "{listen}"\nto = "10.0.0.5:80"\n'
        for number, (protocol, listen) in enumerate(rules)
    )
    made = read(f'[defaults]\nreceive_buffer = "{BUFFER}B"\n{text}'.encode(), "test")
    assert isinstance(made, Ruleset), made
    return made


@contextmanager
def bound(
    *rules: tuple[str, str], workers: int = 2, inherited: Iterable[socket.socket] = ()
) -> Iterator[Binder]:
    """Bind; whatever was bound is closed afterwards."""
    binder = Binder(workers, inherited)
    try:
        binder.bind(ruleset(*rules))
        yield binder
    finally:
        binder.close()
        for unused in binder.unused:
            unused.close()


def port_of(one: Bound) -> int:
    return int(one.sockets[0].getsockname()[1])


def kinds(binder: Binder) -> list[tuple[Protocol, int]]:
    return [(one.protocol, int(one.sockets[0].family)) for one in binder.bound]


def datagrams_at(host: str = LOOPBACK, port: int = 0) -> socket.socket:
    """Be another program."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host, port))
    return made


def test_each_worker_has_a_socket_of_its_own() -> None:
    """As many as workers, at one port, each made ready: non-blocking, with its receive buffer."""
    with bound(("udp", "127.0.0.1:0"), workers=3) as binder:
        (one,) = binder.bound
        assert (one.protocol, one.shared, one.inherited) == (Protocol.UDP, False, False)
        assert len({each.fileno() for each in one.sockets}) == 3
        assert len({each.getsockname() for each in one.sockets}) == 1
        for worker, each in enumerate(one.sockets):
            assert one.sockets_for(worker) == (each,)
            assert each.type == socket.SOCK_DGRAM
            assert not each.getblocking()
            assert receive_buffer_of(each) == BUFFER
        assert one.address == f"127.0.0.1:{port_of(one)}"


def test_a_client_stays_with_its_worker() -> None:
    """The kernel's hash is over both addresses: each client goes to one socket, and all sockets have some."""
    with bound(("udp", "127.0.0.1:0"), workers=3) as binder:
        (one,) = binder.bound
        clients = [datagrams_at() for _ in range(60)]
        for _ in range(3):
            for client in clients:
                client.sendto(b"?", (LOOPBACK, port_of(one)))
        seen = [senders(each) for each in one.sockets]
        assert sum(map(len, seen)) == 180
        assert sum(len(set(each)) for each in seen) == 60
        assert all(seen)  # one in 10 ** 10 otherwise
        for client in clients:
            client.close()


def senders(receiver: socket.socket) -> list[object]:
    found: list[object] = []
    while True:
        try:
            found.append(receiver.recvfrom(10)[1])
        except BlockingIOError:
            return found


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"])
def test_both_protocols_get_one_port(listen: str) -> None:
    """`tcp+udp` at port 0: the kernel picks one that both have."""
    with bound(("tcp+udp", listen)) as binder:
        assert [one.protocol for one in binder.bound] == [Protocol.TCP, Protocol.UDP]
        assert len({port_of(one) for one in binder.bound}) == 1
        assert len({one.address for one in binder.bound}) == 1


def test_both_protocols_of_both_families_get_one_port() -> None:
    """`:0` is four sockets for each worker, at one port."""
    with bound(("tcp+udp", ":0")) as binder:
        assert kinds(binder) == [
            (protocol, int(family))
            for protocol in (Protocol.TCP, Protocol.UDP)
            for family in (socket.AF_INET6, socket.AF_INET)
        ]
        assert len({port_of(one) for one in binder.bound}) == 1
        assert not binder.without_ipv6


def test_a_port_that_one_of_them_has_not_free_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel picked for TCP is tried for UDP, and given up for another one when that is taken."""
    real, tried = datagram_socket, list[int]()
    with datagrams_at() as taken:

        def taken_at_first(endpoint: object, **named: object) -> socket.socket:
            address = getattr(endpoint, "sockaddr")  # noqa: B009  an Endpoint, as the real one has it
            tried.append(address[1])
            if len(set(tried)) < 3:
                raise OSError(errno.EADDRINUSE, "Address already in use")
            return real(endpoint, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(binding, "datagram_socket", taken_at_first)
        with bound(("tcp+udp", "127.0.0.1:0")) as binder:
            assert not binder.refused
            assert len({port_of(one) for one in binder.bound}) == 1
            assert port_of(binder.bound[0]) == tried[-1] != taken.getsockname()[1]
            assert len(binder.bound) == 2


def test_no_port_for_both_is_refused_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some tries; nothing stays bound by half."""

    def taken(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(binding, "datagram_socket", taken)
    with bound(("tcp+udp", "127.0.0.1:0")) as binder:
        assert binder.bound == []
        assert [(each.protocol, each.error.errno) for each in binder.refused] == [
            (Protocol.UDP, errno.EADDRINUSE)
        ]


def test_protocols_have_ports_of_their_own() -> None:
    """Two rules, TCP and UDP at one port, are no conflict, and neither lets another program share it."""
    port = free_for_both_families()
    with bound(("tcp", f"127.0.0.1:{port}"), ("udp", f"127.0.0.1:{port}")) as binder:
        assert not binder.refused
        assert [one.protocol for one in binder.bound] == [Protocol.TCP, Protocol.UDP]
        with bound(("tcp+udp", f"127.0.0.1:{port}")) as second:
            assert not second.bound
            assert [each.error.errno for each in second.refused] == [errno.EADDRINUSE]


def test_addresses_of_one_port_are_no_conflict() -> None:
    """A wildcard and one address beside it: SO_REUSEPORT makes way for our own only."""
    port = free_for_both_families()
    with bound(("udp", f"127.0.0.1:{port}"), ("udp", f"127.0.0.2:{port}")) as binder:
        assert not binder.refused
        assert [one.address for one in binder.bound] == [f"127.0.0.{n}:{port}" for n in (1, 2)]


@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0", ""])
def test_a_taken_port_is_refused(listen: str) -> None:
    """Whoever has it; the message names the protocol, so that a rule of both is clear."""
    port = free_for_both_families()  # of the kernel's choice, a TCP connection may have it
    with datagrams_at(port=port):
        with bound(("tcp+udp", f"{listen}:{port}")) as binder:
            assert binder.bound == []
            (refusal,) = binder.refused
            assert refusal.what == (
                f'rule "rule-0": cannot listen on {listen}:{port}/udp: Address already in use'
            )
            assert refusal.hint == "another program listens there; `ss -lunp` names it"
        with socket.create_server((LOOPBACK, port)):
            pass  # the TCP half was given up


def test_a_port_of_another_gateway_is_refused() -> None:
    """SO_REUSEPORT of the same user would let it in, and take every other client."""
    with bound(("udp", "127.0.0.1:0")) as first:
        port = port_of(first.bound[0])
        for again in (f"127.0.0.1:{port}", f"0.0.0.0:{port}", f":{port}"):
            with bound(("udp", again)) as second:
                assert not second.bound
                assert [each.error.errno for each in second.refused] == [errno.EADDRINUSE]


def test_a_refusal_of_tcp_says_nothing_of_protocols() -> None:
    """As it was before there was UDP."""
    refusal = Refusal("web", "0.0.0.0:80", OSError(errno.EADDRINUSE, "Address already in use"))
    assert refusal.what == 'rule "web": cannot listen on 0.0.0.0:80: Address already in use'
    assert refusal.hint == "another program listens there; `ss -ltnp` names it"


def test_a_range_of_both_knows_its_offsets() -> None:
    """Each port for each protocol."""
    for _ in range(10):
        port = min(free_for_both_families(), 65_534)
        with bound(("tcp+udp", f"127.0.0.1:{port}-{port + 1}")) as binder:
            if binder.refused:
                continue
            assert [(one.protocol.value, port_of(one) - port, one.offset) for one in binder.bound] == [
                ("tcp", 0, 0),
                ("udp", 0, 0),
                ("tcp", 1, 1),
                ("udp", 1, 1),
            ]
            return
    raise AssertionError("no two free ports in a row, ten times")


@pytest.mark.parametrize(("listen", "told"), [("0.0.0.0:0", True), ("127.0.0.1:0", False)])
def test_a_wildcard_is_told_where_datagrams_were_sent_to(listen: str, told: bool) -> None:
    """Answers must leave from there."""
    with bound(("udp", listen)) as binder:
        for each in binder.bound[0].sockets:
            assert bool(each.getsockopt(socket.IPPROTO_IP, IP_PKTINFO)) is told


def test_buffers_that_were_not_granted_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By rule, with what the kernel gave; a rule that got what it asked for is not."""
    with bound(("udp", "127.0.0.1:0")) as binder:
        assert binder.small_buffers == {}
    monkeypatch.setattr(binding, "receive_buffer_of", lambda _: 4096)
    with bound(("udp", "127.0.0.1:0"), ("tcp", "127.0.0.1:0"), ("udp", "127.0.0.1:0")) as binder:
        assert binder.small_buffers == {"rule-0": 4096, "rule-2": 4096}


# -- sockets that came from outside -------------------------------------------------------------------


def test_an_inherited_socket_is_read_by_one_worker() -> None:
    """Two that read one socket would each have half of a client's datagrams."""
    outside = datagrams_at()
    port = outside.getsockname()[1]
    with bound(("udp", f"127.0.0.1:{port}"), workers=3, inherited=[outside]) as binder:
        (one,) = binder.bound
        assert (one.inherited, one.shared) == (True, True)
        assert [one.sockets_for(worker) for worker in range(3)] == [(outside,), (), ()]
        assert not outside.getblocking()
        assert receive_buffer_of(outside) == BUFFER
        assert not binder.unused


def test_an_inherited_socket_is_taken_for_its_protocol() -> None:
    """A TCP and a UDP socket of one address are told apart, and what is not there is bound."""
    stream = socket.create_server((LOOPBACK, 0))
    port = stream.getsockname()[1]
    with bound(("tcp+udp", f"127.0.0.1:{port}"), inherited=[stream]) as binder:
        assert [(one.protocol, one.inherited) for one in binder.bound] == [
            (Protocol.TCP, True),
            (Protocol.UDP, False),
        ]
    stream = socket.create_server((LOOPBACK, 0))
    datagrams = datagrams_at(port=stream.getsockname()[1])
    port = stream.getsockname()[1]
    with bound(("tcp+udp", f"127.0.0.1:{port}"), inherited=[datagrams, stream]) as binder:
        assert [one.sockets for one in binder.bound] == [(stream,), (datagrams,)]
        assert not binder.unused


@pytest.mark.parametrize("only_six", [False, True])
def test_an_inherited_wildcard_is_matched(only_six: bool) -> None:
    """[::] of both families is `:port` as a whole; an IPv6-only one is half of it, and IPv4 is bound."""
    port = free_for_both_families()
    outside = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_six))
    outside.bind(("::", port))
    with bound(("udp", f":{port}"), inherited=[outside]) as binder:
        assert not binder.refused
        found = [(int(one.sockets[0].family), one.inherited) for one in binder.bound]
        assert found[0] == (socket.AF_INET6, True)
        assert found[1:] == ([(socket.AF_INET, False)] if only_six else [])


def test_what_no_rule_asks_for_is_told() -> None:
    """A datagram socket is not taken for a rule that carries TCP alone."""
    port = free_for_both_families()
    outside = datagrams_at(port=port)
    with bound(("tcp", f"127.0.0.1:{port}"), inherited=[outside]) as binder:
        assert binder.unused == [outside]
        assert not binder.bound[0].inherited
