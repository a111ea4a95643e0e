"""An answer leaves from the address that its client wrote to, whatever addresses this host has."""

import socket
from contextlib import ExitStack

import pytest

from tests.e2e import needs
from tests.e2e.datagram_peers import Answering, Peer, asks, counts, cut, flows, free_ports, inside
from tests.e2e.gateway import Gateway, rule, ruleset

SOON = "500ms"


@pytest.mark.parametrize("listen", [":0", "0.0.0.0:0"])
@pytest.mark.parametrize("workers", [1, 4])
def test_each_address_answers_for_itself(listen: str, workers: int) -> None:
    """A client that writes to several addresses of a wildcard listener has a flow with each of them."""
    hosts = ("127.0.0.1", "127.0.0.2", "127.9.9.9")
    with Answering() as endpoint, Peer() as client:
        text = rule("way", endpoint.port, listen=listen, protocol="udp", idle_timeout=SOON)
        with Gateway.start(ruleset(text, workers=workers)) as gateway:
            port = gateway.port("way")
            for turn in range(5):
                for host in hosts:
                    assert asks(client, (host, port), b"%d" % turn)
            for _ in range(5):  # several questions on the way at once
                for host in hosts:
                    client.send(host.encode(), (host, port))
                answers = [client.receive() for _ in hosts]
                assert {(data.decode(), answered_from[0]) for data, answered_from in answers} == {
                    (host, host) for host in hosts
                }
            records = flows(gateway, 3)
        assert {record["client"] for record in records} == {client.to}
        assert {record["listener"] for record in records} == {f"0.0.0.0:{port}"}
        assert {counts(record)[::2] for record in records} == {(10, 10)}
        assert sorted(endpoint.came.values()) == [10, 10, 10]


def test_more_addresses_than_one_remembers() -> None:
    """Dozens of addresses of one listener answer for themselves, to many clients, each."""
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", endpoint.port, listen=":0", protocol="udp", responses=1), workers=2)
        with Gateway.start(text) as gateway:
            port = gateway.port("way")
            clients = [ends.enter_context(Peer((f"127.0.0.{1 + number}", 0))) for number in range(4)]
            hosts = [f"127.7.{number}.1" for number in range(50)]
            for _ in range(2):
                for host in hosts:
                    for client in clients:
                        client.send(host.encode(), (host, port))
                    for client in clients:
                        assert client.receive() == (host.encode(), (host, port))
            records = flows(gateway, 2 * len(hosts) * len(clients))
        assert {record["cause"] for record in records} == {"answered"}


def test_many_answers_from_the_right_address() -> None:
    """Not only the first answer, and not only alone: each of a stream leaves from where it was asked."""
    with Peer() as endpoint, Peer(receive=1 << 20) as client:
        text = ruleset(rule("way", endpoint.port, listen=":0", protocol="udp", idle_timeout=SOON))
        with Gateway.start(text) as gateway:
            address = ("127.0.0.5", gateway.port("way"))
            client.send(b"stream", address)
            theirs = endpoint.receive()[1]
            for _ in range(30):
                for number in range(64):
                    endpoint.send(b"%d" % number, theirs)
                assert [client.receive() for _ in range(64)] == [(b"%d" % n, address) for n in range(64)]
            (record,) = flows(gateway, 1)
        assert counts(record)[::2] == (1, 30 * 64)


def test_a_rule_of_one_address_beside_one_of_all() -> None:
    """Beside a rule of every address, one of a single address on the same port serves that one."""
    with Answering(answers=lambda _: [b"all"]) as all_of_them, Answering(answers=lambda _: [b"one"]) as one:
        port = free_ports()
        text = ruleset(
            rule("all", all_of_them.port, listen=f"0.0.0.0:{port}", protocol="udp", idle_timeout=SOON),
            rule("one", one.port, listen=f"127.0.0.3:{port}", protocol="udp", idle_timeout=SOON),
            workers=2,
        )
        with Gateway.start(text) as gateway, Peer() as client:
            for _ in range(5):
                for host, answer in (("127.0.0.2", b"all"), ("127.0.0.3", b"one"), ("127.0.0.1", b"all")):
                    client.send(b"who?", (host, port))
                    assert client.receive() == (answer, (host, port))
            assert len(flows(gateway, 3)) == 3


def test_new_clients_catch_no_datagram_of_others() -> None:
    """While new clients come to an address, at other workers too, a client there keeps its one flow."""
    hosts = [f"127.8.{number}.1" for number in range(16)]
    with Peer(receive=1 << 22) as endpoint, ExitStack() as ends:
        text = rule("way", endpoint.port, listen="0.0.0.0:0", protocol="udp", idle_timeout="1h")
        with Gateway.start(ruleset(text, workers=4)) as gateway:
            port = gateway.port("way")
            for host in hosts:
                stream = ends.enter_context(Peer())
                others = [ends.enter_context(Peer()) for _ in range(12)]
                sides = set()
                for _ in range(20):
                    for number in range(60):
                        stream.send(b"stream", (host, port))
                        if number == 10 and others:  # new at its worker, while the stream pours in
                            others.pop().send(b"other", (host, port))
                    streamed = 0
                    while streamed < 60:
                        data, side = endpoint.receive()
                        if data == b"stream":
                            streamed += 1
                            sides.add(side)
                assert len(sides) == 1, f"{len(sides)} flows of one client at {host}"
            cut(gateway)


def test_a_first_burst_comes_whole_and_in_order() -> None:
    """What the first clients of an address send in one go arrives whole, each client's in its order."""
    for _ in range(6):  # what a worker does once for each of its first addresses can be seen only there
        with Peer(receive=1 << 22) as endpoint, ExitStack() as ends:
            text = rule("way", endpoint.port, listen="0.0.0.0:0", protocol="udp", idle_timeout="1h")
            with Gateway.start(ruleset(text)) as gateway:
                port = gateway.port("way")
                for host in [f"127.8.{number}.1" for number in range(16)]:
                    one, two = (ends.enter_context(Peer()) for _ in range(2))
                    for number in range(40):
                        one.send(b"1:%d" % number, (host, port))
                        two.send(b"2:%d" % number, (host, port))
                    came = [endpoint.take() for _ in range(80)]
                    for client in (b"1", b"2"):
                        numbers = [int(data[2:]) for data in came if data[:1] == client]
                        assert numbers == list(range(40))
                cut(gateway)


def namespace(*commands: str) -> tuple[str, ...]:
    """Give the words to start a gateway with in a network of its own, set up by `ip` commands."""
    needs.root()
    needs.program("unshare")
    needs.program("ip")
    script = " && ".join(["ip link set lo up", *commands])
    return ("unshare", "--net", "sh", "-c", f'{script} && exec "$0" "$@"')


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("listen", ["[::]:5300", ":5300"])
def test_each_ipv6_address_answers_for_itself(listen: str, workers: int) -> None:
    """As over IPv4: of two IPv6 addresses of one listener, each answers what was sent to it."""
    needs.ipv6()
    wrap = namespace(*[f"ip -6 address add 2001:db8::{number}/128 dev lo nodad" for number in (1, 2)])
    text = rule("way", "[::1]:7000", listen=listen, protocol="udp", idle_timeout=SOON)
    with Gateway.start(ruleset(text, workers=workers), wrap=wrap) as gateway, ExitStack() as ends:
        pid = gateway.process.pid
        endpoint = ends.enter_context(inside(pid, lambda: Answering(("::1", 7000))))
        client = ends.enter_context(inside(pid, lambda: Peer(("::1", 0))))
        hosts = ("2001:db8::1", "2001:db8::2", "::1")
        for turn in range(5):
            for host in hosts:
                assert asks(client, (host, 5300), b"%d" % turn)
        for host in hosts:
            client.send(host.encode(), (host, 5300))
        answers = [client.receive() for _ in hosts]
        assert all(data.decode() == answered_from[0] for data, answered_from in answers)
        records = flows(gateway, 3)
        assert {counts(record)[::2] for record in records} == {(6, 6)}
        assert sorted(endpoint.came.values()) == [6, 6, 6]


def test_a_link_local_client() -> None:
    """A client of a link-local address gets its answers, on its own interface."""
    needs.ipv6()
    wrap = namespace(
        "ip link add here type veth peer name there",
        "ip link set here up",
        "ip link set there up",
        "ip -6 address add fe80::7/64 dev here nodad",
    )
    text = rule("way", "[::1]:7000", listen="[::]:5300", protocol="udp", idle_timeout=SOON)
    with Gateway.start(ruleset(text), wrap=wrap) as gateway, ExitStack() as ends:
        pid = gateway.process.pid
        ends.enter_context(inside(pid, lambda: Answering(("::1", 7000))))
        interface = inside(pid, lambda: socket.if_nametoindex("here"))
        client = ends.enter_context(inside(pid, lambda: Peer(("fe80::7", 0, 0, interface))))
        for turn in range(3):
            client.send(b"%d" % turn, ("fe80::7", 5300, 0, interface))
            data, (host, port) = client.receive()
            assert (data, host.partition("%")[0], port) == (b"%d" % turn, "fe80::7", 5300)
        (record,) = flows(gateway, 1)
        assert counts(record)[::2] == (3, 3)
        assert record["client"].startswith("[fe80::7")


@pytest.mark.parametrize("workers", [1, 4])
def test_a_broadcast_is_forwarded_once(workers: int) -> None:
    """The kernel gives a broadcast to every worker's socket; one of them takes it, and answers as itself."""
    with Answering() as endpoint, Peer() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        text = rule("way", endpoint.port, listen="0.0.0.0:0", protocol="udp", idle_timeout=SOON)
        with Gateway.start(ruleset(text, workers=workers)) as gateway:
            port = gateway.port("way")
            client.send(b"is anybody there?", ("127.255.255.255", port))
            assert client.receive() == (b"is anybody there?", ("127.0.0.1", port))
            assert asks(client, ("127.0.0.1", port))  # a second copy would have come before its answer
            records = cut(gateway)
        assert sum(record["up_datagrams"] for record in records) == 2, records
        assert not client.waiting()
