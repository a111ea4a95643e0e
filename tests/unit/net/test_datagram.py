"""A listener of datagrams: to whom each belongs, where answers leave from, and what draining takes."""

import errno
import itertools
import os
import socket

import pytest

from appliance.net.datagram import DatagramListener
from appliance.net.datagram_sockets import is_drained, prepare_datagrams
from appliance.net.trains import segment_control
from appliance.outcome import Cause
from tests.unit.net.datagrams import Rig, datagrams_at, port_of, readable, rig, waiting
from tests.unit.net.loop import open_fds

WILDCARDS = (("0.0.0.0:0", ("127.0.0.1", "127.0.0.2", "127.0.0.3")), ("[::]:0", ("::1",)))


def target(server: socket.socket) -> str:
    return f"127.0.0.1:{port_of(server)}"


def exchange(made: Rig, client: socket.socket, server: socket.socket, to: tuple[str, int]) -> object:
    """Ask at one of the listener's addresses; the answer must come from there. Give what the endpoint saw."""
    client.sendto(b"?", to)
    made.until(lambda: readable(server))
    _, where = server.recvfrom(100)
    server.sendto(b"!", where)
    made.until(lambda: readable(client))
    data, sender = client.recvfrom(100)
    assert (data, sender[:2]) == (b"!", to)
    return where


# -- where answers leave from -------------------------------------------------------------------------


@pytest.mark.parametrize(("listen", "hosts"), WILDCARDS, ids=["ipv4", "ipv6"])
def test_answers_leave_from_where_the_client_wrote_to(listen: str, hosts: tuple[str, ...]) -> None:
    """Of a listener of every address; one client at two of them is two flows."""
    with datagrams_at() as server, rig(target(server), listen=listen) as made:
        port = port_of(made.bound)
        anywhere = "" if ":" in hosts[0] else "0.0.0.0"
        with socket.socket(made.bound.family, socket.SOCK_DGRAM) as client:
            client.bind((anywhere, 0))
            client.setblocking(False)
            seen = {exchange(made, client, server, (host, port)) for host in hosts for _ in range(3)}
        assert len(seen) == len(made.listener.flows) == len(hosts)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0"])
def test_a_clients_flow_is_one_whatever_it_sends(listen: str) -> None:
    """Runs of equal datagrams, trains, datagrams on their own: its endpoint sees one address all the time."""
    with datagrams_at() as client, datagrams_at() as server, rig(target(server), listen=listen) as made:
        seen = set()
        for _ in range(3):
            send_runs(client, made.where)
            for _ in range(100):
                client.sendto(os.urandom(3), made.where)
                client.sendto(os.urandom(5), made.where)
                made.at.turn()
            made.until(lambda: is_drained(made.bound))
            while readable(server):
                seen.add(server.recvfrom(1 << 16)[1])
        assert len(seen) == len(made.listener.flows) == 1
        assert made.flow.up == 3 * (200 + 80 + 10)
        assert made.flow.drops is None


def send_runs(client: socket.socket, to: tuple[str, int]) -> None:
    for _ in range(80):
        client.sendto(b"x" * 1000, to)
    client.sendmsg([b"x" * 10_000], [segment_control(1000)], 0, to)


def test_a_socket_of_both_families_answers_both() -> None:
    """It came from outside; an IPv4 client's answers leave from the IPv4 address it wrote to."""
    outside = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    outside.bind(("::", 0))
    prepare_datagrams(outside, 1 << 20)
    with (
        datagrams_at() as server,
        socket.socket(type=socket.SOCK_DGRAM) as four,
        datagrams_at("::1") as six,
        rig(target(server), bound=outside) as made,
    ):
        four.bind(("0.0.0.0", 0))
        four.setblocking(False)
        for host in ("127.0.0.1", "127.0.0.9"):
            exchange(made, four, server, (host, port_of(outside)))
        exchange(made, six, server, ("::1", port_of(outside)))
        assert len(made.listener.flows) == 3


def test_trains_of_a_socket_of_both_families() -> None:
    """There three control messages come with a train: none is cut, and it is one flow with every datagram."""
    outside = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    outside.bind(("::", 0))
    prepare_datagrams(outside, 1 << 20)
    with datagrams_at() as client, datagrams_at() as server, rig(target(server), bound=outside) as made:
        for _ in range(8):
            client.sendmsg([b"x" * 9500], [segment_control(1000)], 0, ("127.0.0.1", port_of(outside)))
            made.until(lambda: is_drained(outside))
        assert [len(each) for each in waiting(server)] == 8 * [*[1000] * 9, 500]
        assert len(made.listener.flows) == 1


def test_a_host_with_many_addresses() -> None:
    """More than there are sockets for: the others' answers leave right all the same."""
    with datagrams_at() as server, rig(target(server), listen="0.0.0.0:0") as made:
        with datagrams_at("0.0.0.0") as client:
            for number in range(1, 41):
                exchange(made, client, server, (f"127.0.1.{number}", port_of(made.bound)))
        assert len(made.listener.flows) == 40


# -- much at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 63, 64, 65, 500])
def test_bursts_arrive_in_order(count: int) -> None:
    """However many wait: each is sent on once, in the order they came."""
    with datagrams_at() as client, datagrams_at() as server, rig(target(server)) as made:
        sent = [b"%d" % number for number in range(count)]
        came: list[bytes] = []
        for at in range(0, count, 100):
            for each in sent[at : at + 100]:
                client.sendto(each, made.where)
            made.until(lambda: is_drained(made.bound))
            came += waiting(server)
        assert came == sent


def test_many_clients_at_once() -> None:
    """Each has its own flow and its own answers, whatever order they come in."""
    clients = [datagrams_at() for _ in range(50)]
    with datagrams_at() as server, rig(target(server), responses=1) as made:
        for rounds in range(1, 5):
            for number, client in enumerate(clients):
                client.sendto(b"%d" % number, made.where)
            made.until(lambda: is_drained(made.bound))
            made.until(lambda rounds=rounds: echo(server) or len(made.ends.told) == 50 * rounds)  # type: ignore[misc]
            assert [waiting(client) for client in clients] == [[b"%d" % number] for number in range(50)]
        assert [end.cause for end in made.ends.told] == [Cause.ANSWERED] * 200
        assert all((end.up, end.down) == (1, 1) for end in made.ends.told)
    for client in clients:
        client.close()


def echo(server: socket.socket) -> bool:
    """Send back what has come; False, for `until` to go on."""
    while readable(server):
        data, where = server.recvfrom(100)
        server.sendto(data, where)
    return False


@pytest.mark.parametrize("spare_fds", [1, 2, 10, 128])
def test_a_flood_of_clients_takes_no_more_fds_than_there_are(spare_fds: int) -> None:
    """Those that make room have their fds until the turn is over: it begins no more than are spare."""
    clients, most = [datagrams_at() for _ in range(200)], 20
    with datagrams_at() as server, rig(target(server), most=most, spare_fds=spare_fds) as made:
        before = len(open_fds())
        for client in clients:
            client.sendto(b"?", made.where)
        held = []
        for _ in range(1000):
            made.at.clock.now += 0.001  # no two turns begin at the same moment
            made.at.reactor.defer(lambda: held.append(len(open_fds()) - before))  # runs before the closing
            made.at.turn()
            if is_drained(made.bound):
                break
        assert is_drained(made.bound), "it goes on in the next turn"
        assert max(held) <= most + spare_fds
        assert len(made.ends.told) == 200 - most
        assert {end.cause for end in made.ends.told} == {Cause.FLOW_LIMIT}
        assert len(waiting(server)) == 200
    for client in clients:
        client.close()


# -- errors ---------------------------------------------------------------------------------------------


class Failing:
    """A listener's socket that fails to receive once, as the kernel might."""

    def __init__(self, bound: socket.socket, number: int) -> None:
        self._bound = bound
        self.number = number

    def recvfrom_into(self, buffer: bytearray) -> object:
        number, self.number = self.number, 0
        if number:
            raise OSError(number, os.strerror(number))
        return self._bound.recvfrom_into(buffer)

    def __getattr__(self, name: str) -> object:
        return getattr(self._bound, name)


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN])
def test_an_error_of_the_listeners_socket_is_passed_over(number: int) -> None:
    """It is about something sent before, and told once; the next client is served."""
    with datagrams_at() as client, datagrams_at() as server, rig(target(server)) as made:
        failing = Failing(made.bound, number)
        made.at.reactor.unwatch(made.bound.fileno())
        made.listener = DatagramListener(failing, made.listener.route)  # type: ignore[arg-type]
        assert exchange(made, client, server, made.where)


def test_an_error_that_comes_again_is_a_fault() -> None:
    """EBADF says that our own books are wrong: it is reported, not passed over for ever."""
    with rig("127.0.0.1:9") as made:
        failing = Failing(made.bound, errno.EBADF)
        made.at.reactor.unwatch(made.bound.fileno())
        made.listener = DatagramListener(failing, made.listener.route)  # type: ignore[arg-type]
        with pytest.raises(OSError, match="Bad file"):
            made.take()


def test_what_the_kernel_dropped_is_told_once() -> None:
    """Each look tells what was lost since the last one."""
    with datagrams_at() as client, rig("127.0.0.1:9") as made:
        made.bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert made.listener.newly_lost() == 0
        for _ in range(100):
            client.sendto(bytes(500), made.where)
        first = made.listener.newly_lost()
        assert 0 < first < 100
        assert made.listener.newly_lost() == 0
        for _ in range(3):
            client.sendto(bytes(500), made.where)
        assert made.listener.newly_lost() == 3


# -- draining -------------------------------------------------------------------------------------------


def test_draining_takes_who_has_come() -> None:
    """Clients whose datagram waits already are served, however many; who comes later is not."""
    clients = [datagrams_at() for _ in range(150)]
    with datagrams_at() as server, rig(target(server)) as made:
        for client in clients:
            client.sendto(b"?", made.where)
        made.listener.drain()
        assert len(made.listener.flows) == len(waiting(server)) == 150
        with datagrams_at() as late:
            late.sendto(b"?", made.where)
            made.at.turn()
            assert len(made.listener.flows) == 150
    for client in clients:
        client.close()


def test_while_draining_flows_go_on() -> None:
    """Both ways, as long as they live."""
    with datagrams_at() as client, datagrams_at() as server, rig(target(server)) as made:
        where = made.relayed(client, server, b"1")
        made.listener.drain()
        assert made.relayed(client, server, b"2") == where
        made.answered(client, server, b"!", where)


def test_who_comes_all_the_time_does_not_keep_it_from_draining() -> None:
    """A flood fills the queue faster than it is taken: draining begins all the same."""

    class Flooded(Failing):
        def recvfrom_into(self, buffer: bytearray) -> object:
            client.sendto(next(never_a_run), made.where)
            return super().recvfrom_into(buffer)

    never_a_run = itertools.cycle((b"?", b"??"))
    with datagrams_at() as client, datagrams_at() as server, rig(target(server)) as made:
        made.at.reactor.unwatch(made.bound.fileno())
        made.listener = DatagramListener(Flooded(made.bound, 0), made.listener.route)  # type: ignore[arg-type]
        client.sendto(b"?", made.where)
        made.listener.drain()
        assert not is_drained(made.bound)


def test_closing_ends_the_listener() -> None:
    """Its socket leaves the epoll set although another process holds it as well, and nobody is served."""
    with datagrams_at() as client, datagrams_at() as server, rig(target(server)) as made:
        where, copy = made.where, made.bound.dup()
        made.relayed(client, server, b"?")
        made.datagrams.cut(Cause.DRAIN)
        unwatched = made.listener
        unwatched.close()
        made.at.turn()
        with copy:
            client.sendto(b"?", where)
            made.at.turn()
            assert readable(copy)
        made.bound = socket.socket(type=socket.SOCK_DGRAM)
        made.listener = DatagramListener(made.bound, made.listener.route)
