"""Flows over loopback: what passes, what is counted, and what ends one."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from appliance.net import contact
from appliance.net.datagram_sockets import is_drained
from appliance.net.flow import LONGEST_WAIT, MOST_HELD_DATAGRAMS
from appliance.net.trains import UDP_GRO, segment_control
from appliance.outcome import Cause, Drop, Stage
from tests.unit.net.datagrams import (
    CONNECT_TIMEOUT,
    IDLE,
    Rig,
    datagrams_at,
    endpoint,
    nobody_at,
    port_of,
    readable,
    rig,
    waiting,
)


@contextmanager
def joined(
    *more: str,
    listen: str = "127.0.0.1:0",
    responses: int = 0,
    idle_timeout: float = IDLE,
) -> Iterator[tuple[Rig, socket.socket, socket.socket]]:
    """Make a listener with one endpoint, and give both with a client."""
    with datagrams_at() as client, datagrams_at() as server:
        targets = (f"127.0.0.1:{port_of(server)}", *more)
        with rig(*targets, listen=listen, responses=responses, idle_timeout=idle_timeout) as made:
            yield made, client, server


# -- what passes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1472, 9000, 65_507])
def test_datagrams_pass_both_ways(size: int) -> None:
    """Of any size, also of none, whole and unchanged; each is counted."""
    with joined() as (made, client, server):
        data = os.urandom(size)
        where = made.relayed(client, server, data)
        made.answered(client, server, data[::-1], where)
        flow = made.flow
        assert (flow.up, flow.down, flow.bytes_up, flow.bytes_down) == (1, 1, size, size)
        assert flow.stage is Stage.RELAY
        assert flow.drops is None


@pytest.mark.parametrize("listen", ["[::1]:0", "[::]:0"])
def test_the_families_may_differ(listen: str) -> None:
    """An IPv6 client reaches an IPv4 endpoint."""
    with datagrams_at("::1") as client, datagrams_at() as server:  # noqa: SIM117  one after the other
        with rig(f"127.0.0.1:{port_of(server)}", listen=listen) as made:
            made.answered(client, server, b"answer", made.relayed(client, server, b"question"))


def test_an_endpoint_sees_each_client_apart() -> None:
    """Two clients are two addresses to it, each the same for all it sends; so answers go back right."""
    with joined() as (made, client, server), datagrams_at() as other:
        one = made.relayed(client, server, b"1")
        two = made.relayed(other, server, b"2")
        assert one != two
        assert made.relayed(client, server, b"3") == one
        made.answered(other, server, b"to 2", two)
        made.answered(client, server, b"to 1", one)
        assert not readable(client)
        assert not readable(other)


def test_only_its_endpoint_is_heard() -> None:
    """What somebody else sends to a flow's socket reaches no client."""
    with joined() as (made, client, server), datagrams_at() as stranger:
        where = made.relayed(client, server, b"?")
        assert isinstance(where, tuple)
        stranger.sendto(b"evil", where)
        made.at.turn()
        made.answered(client, server, b"good", where)
        assert made.flow.down == 1


def test_much_is_read_at_once_and_nothing_is_lost() -> None:
    """Bursts of answers arrive in order, whether the flow reads one at a time or many."""
    with joined() as (made, client, server):
        where = made.relayed(client, server, b"?")
        assert isinstance(where, tuple)
        for burst in (1, 1, 1, 1, 1, 8, 64, 1, 32, 5):
            sent = [f"{burst} {number}".encode() for number in range(burst)]
            for each in sent:
                server.sendto(each, where)
            made.until(lambda: not readable_at(made))
            assert waiting(client) == sent


def readable_at(made: Rig) -> bool:
    """Say whether a flow has something to read."""
    connection = made.flow.connection
    assert connection is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 0, os.dup(connection.fileno())) as copy:
        return readable(copy)


# -- trains ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0"])
@pytest.mark.parametrize("has_trains", [False, True], ids=["singles", "trains"])
def test_trains_pass_both_ways(listen: str, has_trains: bool) -> None:
    """Whoever sends trains, and whether or not the other side takes them: each datagram is one."""
    with joined(listen=listen) as (made, client, server):
        where = made.relayed(client, server, b"?")
        for receiver in (client, server):
            receiver.setsockopt(socket.SOL_UDP, UDP_GRO, int(has_trains))
        for _ in range(6):
            train(made, client, made.where, server)
            assert isinstance(where, tuple)
            train(made, server, where, client)
        assert len(made.listener.flows) == 1
        assert (made.flow.up, made.flow.down) == (61, 60)
        assert made.flow.bytes_down == 6 * 9100


def train(made: Rig, sender: socket.socket, to: tuple[str, int], receiver: socket.socket) -> None:
    """Send ten datagrams with one call, the last one shorter; hold that they come as that."""
    sent = [os.urandom(1000) for _ in range(9)] + [os.urandom(100)]
    sender.sendmsg([b"".join(sent)], [segment_control(1000)], 0, to)
    came: list[bytes] = []
    while len(came) < len(sent):
        made.until(lambda: readable(receiver))
        came += received(receiver)
    assert came == sent


def received(receiver: socket.socket) -> list[bytes]:
    """Give the datagrams that wait, each by itself."""
    came: list[bytes] = []
    while True:
        try:
            data, controls, _, _ = receiver.recvmsg(1 << 16, 64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return came
        size = int.from_bytes(controls[0][2], "little") if controls else len(data)
        came += [data[at : at + size] for at in range(0, len(data), size)]


# -- what ends one ---------------------------------------------------------------------------------


def test_a_flow_ends_when_nothing_passes_for_its_idle_timeout() -> None:
    """Not a moment earlier, whichever way the last datagram went."""
    with joined() as (made, client, server):
        where = made.relayed(client, server, b"?")
        made.at.clock.now += 20
        made.answered(client, server, b"!", where)
        made.at.clock.now += IDLE - 0.01
        made.at.turn()
        assert not made.ends.told
        made.at.clock.now += 0.1
        made.at.turn()
        ended = made.only_end()
        assert (ended.cause, ended.up, ended.down, ended.drops) == (Cause.IDLE_TIMEOUT, 1, 1, {})


def test_a_long_idle_timeout_is_kept() -> None:
    """Also one that is longer than the pause between two looks at it."""
    with joined(idle_timeout=4 * LONGEST_WAIT) as (made, client, server):
        made.relayed(client, server, b"?")
        for _ in range(15):
            made.at.clock.now += LONGEST_WAIT / 4
            made.at.turn()
            assert not made.ends.told
        made.at.clock.now += LONGEST_WAIT / 4 + 0.1
        made.at.turn()
        assert made.only_end().cause is Cause.IDLE_TIMEOUT


@pytest.mark.parametrize("responses", [1, 3])
def test_a_flow_ends_with_its_last_answer(responses: int) -> None:
    """A question and its answers: the flow is over with them, long before its idle time-out."""
    with joined(responses=responses) as (made, client, server):
        where = made.relayed(client, server, b"?")
        for number in range(responses):
            assert not made.ends.told
            made.answered(client, server, b"%d" % number, where)
        ended = made.only_end()
        assert (ended.cause, ended.up, ended.down) == (Cause.ANSWERED, 1, responses)


def test_each_question_has_an_answer_before_the_flow_ends() -> None:
    """Of two questions asked at once (A and AAAA), the first answer does not cut off the second."""
    with joined(responses=1) as (made, client, server):
        client.sendto(b"A", made.where)
        client.sendto(b"AAAA", made.where)
        made.until(lambda: made.listener.flows and made.flow.up == 2)
        server.recv(100)
        _, where = server.recvfrom(100)
        made.answered(client, server, b"1", where)
        assert not made.ends.told
        made.answered(client, server, b"2", where)
        assert made.only_end().cause is Cause.ANSWERED


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_endpoint_where_nobody_is(host: str) -> None:
    """Its host says so (ICMP); the flow ends, and the next datagram begins another one."""
    with nobody_at(host) as target, datagrams_at() as client, rig(target) as made:
        for count in (1, 2):
            client.sendto(b"?", made.where)
            made.until(lambda count=count: len(made.ends.told) == count)  # type: ignore[misc]
        for ended in made.ends.told:
            assert (ended.stage, ended.cause) == (Stage.RELAY, Cause.ENDPOINT_REFUSED)
            assert (ended.up, ended.drops) == (1, {})


def test_the_error_of_one_datagram_does_not_cost_the_next() -> None:
    """Told of it while sending another one, which it does not send: that begins a new flow."""
    with nobody_at() as target, datagrams_at() as client, rig(target) as made:
        client.sendto(b"1", made.where)
        made.take()
        client.sendto(b"2", made.where)
        made.take()  # before the flow has read the error
        ended = made.only_end()
        assert (ended.cause, ended.up, ended.drops) == (Cause.ENDPOINT_REFUSED, 1, {})
        assert made.flow.up == 1


def test_nothing_passes_while_the_endpoint_is_away_and_all_is_counted() -> None:
    """A server that restarts gets what comes after it is back; each datagram was in one flow."""
    with datagrams_at() as client:
        server = datagrams_at()
        port = port_of(server)
        with rig(f"127.0.0.1:{port}") as made:
            made.relayed(client, server, b"before")
            server.close()
            for _ in range(5):
                client.sendto(b"meanwhile", made.where)
                made.at.turn()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
                back.bind(("127.0.0.1", port))
                made.at.turn()
                made.relayed(client, back, b"after")
                flows = [*made.ends.flows, made.flow]
                assert sum(flow.up for flow in flows) == 7
                assert all(flow.drops is None for flow in flows)


# -- another endpoint ------------------------------------------------------------------------------


def test_where_nobody_is_the_next_endpoint_gets_it() -> None:
    """The datagram that did not arrive is sent again, to the rule's next endpoint, and counted once."""
    with (
        datagrams_at() as client,
        datagrams_at() as server,
        nobody_at() as dead,
        rig(dead, f"127.0.0.1:{port_of(server)}") as made,
    ):
        where = made.relayed(client, server, b"?")
        made.answered(client, server, b"!", where)
        flow = made.flow
        assert (flow.up, flow.bytes_up, flow.down, flow.attempts) == (1, 1, 1, 2)
        assert flow.endpoint == endpoint(port_of(server))


@pytest.mark.parametrize("responses", [0, 1])
def test_every_flow_of_a_rule_gets_past_a_dead_endpoint(responses: int) -> None:
    """Whether or not it looks early for its answer, and however many datagrams come at once."""
    with (
        datagrams_at() as server,
        nobody_at() as dead,
        rig(dead, f"127.0.0.1:{port_of(server)}", responses=responses) as made,
    ):
        for number in range(200):
            with datagrams_at() as client:
                ask(made, client, server, 1 + number % 3, forget=number % 5 == 0)
        assert {end.cause for end in made.ends.told} <= {Cause.ANSWERED, Cause.IDLE_TIMEOUT}
        assert all(end.drops == {} for end in made.ends.told)


def ask(made: Rig, client: socket.socket, server: socket.socket, count: int, *, forget: bool) -> None:
    """Ask some questions at once, and have the last one answered."""
    if forget:
        made.at.clock.now += 11.0  # past the ejection of the dead one
    for number in range(count):
        client.sendto(b"%d" % number, made.where)
    made.until(lambda: is_drained(made.bound) and readable(server))
    asked = []
    while readable(server):
        asked.append(server.recvfrom(100))
    assert asked[-1][0] == b"%d" % (count - 1)
    for question, where in asked:
        made.answered(client, server, question, where)


def test_once_answered_a_flow_stays_with_its_endpoint() -> None:
    """Somebody was there: when he is gone the flow ends, and the next one goes elsewhere."""
    with datagrams_at() as client, datagrams_at() as second:
        first = datagrams_at()
        with rig(f"127.0.0.1:{port_of(first)}", f"127.0.0.1:{port_of(second)}") as made:
            made.answered(client, first, b"!", made.relayed(client, first, b"?"))
            first.close()
            client.sendto(b"lost", made.where)
            made.until(lambda: made.ends.told)
            assert made.only_end().cause is Cause.ENDPOINT_REFUSED
            for number in range(3):
                with datagrams_at() as other:
                    made.relayed(other, second, b"%d" % number)
                assert len(made.ends.told) == 1


def test_where_all_endpoints_are_gone_the_flow_ends() -> None:
    """Each was tried once."""
    with (
        nobody_at() as one,
        nobody_at() as two,
        nobody_at() as three,
        datagrams_at() as client,
        rig(one, two, three) as made,
    ):
        client.sendto(b"?", made.where)
        made.until(lambda: made.ends.told)
        assert made.only_end().cause is Cause.ENDPOINT_REFUSED
        assert made.ends.flows[0].attempts == 3


# -- names -----------------------------------------------------------------------------------------


@contextmanager
def named(*targets: str, connect_timeout: float = CONNECT_TIMEOUT) -> Iterator[tuple[Rig, socket.socket]]:
    with datagrams_at() as client, rig(*targets, connect_timeout=connect_timeout) as made:
        yield made, client


def test_datagrams_wait_for_a_name() -> None:
    """They are sent in order once it is known, and the idle time-out counts from then on."""
    with datagrams_at() as server, named("a.example:53") as (made, client):
        for number in range(3):
            client.sendto(b"%d" % number, made.where)
            made.at.turn()
        assert made.flow.stage is Stage.DIAL
        made.at.clock.now += 1.0
        made.at.turn()
        made.names.answer(endpoint(port_of(server)))
        assert waiting(server) == [b"0", b"1", b"2"]
        assert made.flow.up == 3


def test_no_more_than_so_many_wait() -> None:
    """What is too much is dropped and counted."""
    with datagrams_at() as server, named("a.example:53") as (made, client):
        for _ in range(MOST_HELD_DATAGRAMS + 7):
            client.sendto(b"?", made.where)
            made.at.turn()
        assert made.flow.drops == {Drop.DIALLING: 7}
        made.names.answer(endpoint(port_of(server)))
        assert made.flow.up == MOST_HELD_DATAGRAMS


def test_a_few_large_ones_are_as_much() -> None:
    """One of any size is held; bytes are bounded, too."""
    with datagrams_at() as server, named("a.example:53") as (made, client):
        for size in (65_507, 1000, 20):
            client.sendto(bytes(size), made.where)
            made.at.turn()
        assert made.flow.drops == {Drop.DIALLING: 1}
        made.names.answer(endpoint(port_of(server)))
        assert [len(each) for each in waiting(server)] == [65_507, 20]


def test_a_name_that_does_not_resolve_ends_the_flow() -> None:
    """What waited for it was not sent."""
    with named("a.example:53") as (made, client):
        for _ in range(2):
            client.sendto(b"?", made.where)
            made.at.turn()
        made.names.answer()
        ended = made.only_end()
        assert (ended.stage, ended.cause) == (Stage.DIAL, Cause.DIAL_RESOLVE)
        assert ended.drops == {Drop.UNSENT: 2}


@pytest.mark.parametrize("connect_timeout", [1.0, CONNECT_TIMEOUT, 2 * IDLE, 3 * LONGEST_WAIT])
def test_a_name_may_take_its_connect_timeout(connect_timeout: float) -> None:
    """No less and no more, whatever the idle time-out is; then the next one, as long."""
    with named("a.example:53", "b.example:53", connect_timeout=connect_timeout) as (made, client):
        client.sendto(b"?", made.where)
        made.at.turn()
        for name in ("a.example", "b.example"):
            for _ in range(4):
                assert [asked for asked, _ in made.names.asking] == [name]
                made.at.clock.now += connect_timeout / 4 - 0.01
                made.at.turn()
            assert [asked for asked, _ in made.names.asking] == [name]
            made.at.clock.now += 0.2
            made.at.turn()
        ended = made.only_end()
        assert (ended.stage, ended.cause, ended.drops) == (
            Stage.DIAL,
            Cause.DIAL_RESOLVE,
            {Drop.UNSENT: 1},
        )


def test_a_flow_that_is_cut_asks_no_more() -> None:
    """Its question is withdrawn, and what it held was not sent."""
    with named("a.example:53") as (made, client):
        client.sendto(b"?", made.where)
        made.at.turn()
        made.datagrams.cut(Cause.DRAIN)
        assert not made.names.asking
        ended = made.only_end()
        assert (ended.stage, ended.cause, ended.drops) == (Stage.DIAL, Cause.DRAIN, {Drop.UNSENT: 1})


# -- limits and errors -----------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, **calls: Callable[..., object]) -> None:
    """Have calls of a flow's socket do something else."""
    made = type("Failing", (socket.socket,), calls)
    monkeypatch.setattr(contact, "Socket", made)


def raiser(number: int) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "drop"),
    [
        (errno.EAGAIN, Drop.SEND_FULL),
        (errno.ENOBUFS, Drop.SEND_FULL),
        (errno.EMSGSIZE, Drop.TOO_LONG),
        (errno.EPERM, Drop.SEND_FAILED),
    ],
)
def test_what_is_not_sent_is_counted(monkeypatch: pytest.MonkeyPatch, number: int, drop: Drop) -> None:
    """By its cause; the flow goes on."""
    failing(monkeypatch, send=raiser(number))
    with joined() as (made, client, _):
        for _ in range(2):
            client.sendto(b"?", made.where)
            made.at.turn()
        assert (made.flow.up, made.flow.drops) == (0, {drop: 2})


def test_no_fd_for_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow ends at once, the datagram that began it is counted, and the client may try again."""
    monkeypatch.setattr(contact, "Socket", raiser(errno.EMFILE))
    with joined() as (made, client, _):
        client.sendto(b"?", made.where)
        made.at.turn()
        ended = made.only_end()
        assert (ended.stage, ended.cause) == (Stage.DIAL, Cause.FD_LIMIT)
        assert (ended.up, ended.drops) == (0, {Drop.UNSENT: 1})


def test_no_watch_for_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """fs.epoll.max_user_watches is reached: as above, and its socket is closed."""
    with joined() as (made, client, server):
        monkeypatch.setattr(type(made.at.reactor), "watch", raiser(errno.ENOSPC))
        client.sendto(b"?", made.where)
        made.at.turn()
        ended = made.only_end()
        assert (ended.cause, ended.up, ended.drops) == (Cause.FD_LIMIT, 0, {Drop.UNSENT: 1})
        assert not readable(server)


def test_answers_that_the_kernel_dropped_are_told() -> None:
    """A flow whose receive buffer was full says how many did not fit."""
    with joined() as (made, client, server):
        where = made.relayed(client, server, b"?")
        assert isinstance(where, tuple)
        made.answered(client, server, b"!", where)
        connection = made.flow.connection
        assert connection is not None
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(100):
            server.sendto(bytes(500), where)
        made.at.turn()
        while readable_at(made):
            made.at.turn()
        made.datagrams.cut(Cause.DRAIN)
        ended = made.only_end()
        assert ended.down > 1
        assert ended.down + ended.drops[Drop.RECEIVE_FULL] == 101


def test_the_least_recently_used_makes_room() -> None:
    """At the cap of its rule; what comes from its client afterwards begins a flow anew."""
    with datagrams_at() as server, rig(f"127.0.0.1:{port_of(server)}", most_per_rule=2) as made:
        clients = [datagrams_at() for _ in range(3)]
        first = [made.relayed(client, server, b"?") for client in clients[:2]]
        made.at.clock.now += 1.0
        made.at.turn()
        made.answered(clients[0], server, b"!", first[0])
        made.relayed(clients[2], server, b"?")
        assert made.only_end().cause is Cause.FLOW_LIMIT
        assert made.ends.flows[0].client == clients[1].getsockname()
        assert made.relayed(clients[1], server, b"again") != first[1]
        for client in clients:
            client.close()


def test_a_fault_ends_the_flow_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is reported once; its flow ends as `internal`."""

    def bug(*_: object) -> int:
        raise ZeroDivisionError

    with joined() as (made, client, server), datagrams_at() as other:
        failing(monkeypatch, recv_into=bug)
        where = made.relayed(client, server, b"?")
        monkeypatch.undo()
        second = made.relayed(other, server, b"?")
        assert isinstance(where, tuple)
        server.sendto(b"!", where)
        made.until(lambda: made.ends.told)
        assert made.only_end().cause is Cause.INTERNAL
        assert [type(fault) for fault in made.at.faults] == [ZeroDivisionError]
        made.at.faults.clear()
        made.answered(other, server, b"!", second)


def test_quiet_flows_are_cut_first() -> None:
    """While draining, those in which something passes go on."""
    with joined() as (made, client, server), datagrams_at() as quiet:
        made.relayed(quiet, server, b"?")
        made.at.clock.now += 3.0
        made.at.turn()
        where = made.relayed(client, server, b"?")
        made.datagrams.cut(Cause.DRAIN, quiet_since=made.at.clock.now - 2.0)
        assert made.only_end().cause is Cause.DRAIN
        made.answered(client, server, b"!", where)
