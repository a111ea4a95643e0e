"""Where a gateway listens for datagrams: beside TCP, at a thousand ports, at a socket passed to it."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e import needs
from tests.e2e.datagram_peers import (
    Address,
    Answering,
    Peer,
    asks,
    counts,
    cut,
    flow,
    flows,
    free_ports,
    own_host,
    send_train,
    stopped,
)
from tests.e2e.gateway import Gateway, open_fds, rule, ruleset
from tests.e2e.peers import Echo, assert_idle, connect, echoes
from tests.e2e.test_listeners import assert_refused, run
from tests.e2e.test_service import high, inherit

SOON = "500ms"
FOREVER = "1h"


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0", ":0"])
@pytest.mark.parametrize("workers", [1, 2])
def test_both_protocols_at_one_port(listen: str, workers: int) -> None:
    """A rule of "tcp+udp" serves both at one port, also where the kernel picks it, in each family."""
    needs.ipv6()
    with Echo() as echo, Answering(("127.0.0.1", echo.port)) as endpoint, Peer() as client:
        text = rule("both", echo.port, listen=listen, protocol="tcp+udp", idle_timeout=SOON)
        with Gateway.start(ruleset(text, workers=workers)) as gateway:
            port = gateway.port("both")
            listening = {(event["protocol"], event["listener"]) for event in gateway.events("listening")}
            families = ["0.0.0.0", "[::]"] if listen == ":0" else [listen.partition(":")[0]]
            assert listening == {(proto, f"{host}:{port}") for proto in ("tcp", "udp") for host in families}
            with connect(("127.0.0.1", port)) as session:
                assert asks(client, ("127.0.0.1", port))
                assert echoes(session)
                assert asks(client, ("127.0.0.1", port))
            records = {record["protocol"]: record for record in gateway.sessions(2)}
        assert set(records) == {"tcp", "udp"}
        assert records["udp"]["client"] == client.to
        assert records["udp"]["endpoint"] == records["tcp"]["endpoint"] == endpoint.to
        assert (records["tcp"]["up"], records["udp"]["up"]) == (4, 8)
        assert "up_datagrams" not in records["tcp"]


def test_ready_says_how_many_of_each() -> None:
    """`ready` tells how many sessions and flows a worker takes, and leaves out what nobody carries."""
    with Answering() as endpoint:
        for protocol, told in (("tcp", (True, False)), ("udp", (False, True)), ("tcp+udp", (True, True))):
            with Gateway.start(ruleset(rule("way", endpoint.port, protocol=protocol))) as gateway:
                (ready,) = gateway.events("ready")
                assert (ready["sessions_max"] > 0, ready.get("flows_max", 0) > 0) == told
                assert ready.get("flows_max") != 0


def test_tcp_and_udp_rules_side_by_side() -> None:
    """A TCP rule and a UDP rule may have one port number, and do not get in each other's way."""
    host = own_host()
    port = free_ports(1, host)
    with Echo() as echo, Answering() as endpoint, Peer() as client:
        text = ruleset(
            rule("web", echo.port, listen=f"{host}:{port}"),
            rule("quic", endpoint.port, listen=f"{host}:{port}", protocol="udp", responses=1),
        )
        with Gateway.start(text) as gateway, connect((host, port)) as session:
            for _ in range(5):
                assert echoes(session)
                assert asks(client, (host, port))
            assert {record["rule"] for record in flows(gateway, 5)} == {"quic"}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("protocol", ["udp", "tcp+udp"])
def test_a_port_that_another_program_has(tmp_path: Path, protocol: str, workers: int) -> None:
    """A UDP port that is taken is refused with how to find who has it, and nothing else stays bound."""
    host = own_host()
    port = free_ports(2, host)
    with Peer((host, port)) as other:
        text = ruleset(
            rule("fine", 1, listen=f"{host}:{port + 1}", protocol="tcp+udp"),
            rule("unix", 1, listen=f"unix:{tmp_path}/fine"),
            rule("taken", 1, listen=f"{host}:{port}", protocol=protocol),
            workers=workers,
        )
        assert_refused(run(text, tmp_path), '"taken"', f"{host}:{port}/udp", "ss -lunp")
        assert not (tmp_path / "fine").exists()
        Peer((host, port + 1)).close()
        other.send(b"mine", (host, port))
        assert other.take() == b"mine"


def test_a_taken_port_that_would_be_shared(tmp_path: Path) -> None:
    """A port of a program that would share it (SO_REUSEPORT, SO_REUSEADDR) is refused all the same."""
    for option in (socket.SO_REUSEPORT, socket.SO_REUSEADDR):
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, option, 1)
            other.bind(("127.0.0.1", 0))
            port = other.getsockname()[1]
            text = ruleset(rule("way", 1, listen=f"127.0.0.1:{port}", protocol="udp"), workers=2)
            assert_refused(run(text, tmp_path), f"127.0.0.1:{port}/udp")


def test_a_second_gateway_is_refused(tmp_path: Path) -> None:
    """A second gateway on a UDP port of the first one is refused, and takes none of its clients."""
    with Answering() as endpoint, ExitStack() as ends:
        text = ruleset(rule("way", endpoint.port, listen=":0", protocol="udp", responses=1), workers=2)
        with Gateway.start(text) as gateway:
            port = gateway.port("way")
            clients = [ends.enter_context(Peer()) for _ in range(30)]
            for host in ("127.0.0.1", "0.0.0.0", "[::1]", ""):
                second = rule("way", 1, listen=f"{host}:{port}", protocol="udp")
                assert_refused(run(ruleset(second, workers=2), tmp_path), f"{port}/udp")
                for client in clients:
                    assert asks(client, ("127.0.0.1", port))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_inherited_socket(host: str, workers: int) -> None:
    """A UDP socket that the service manager passed is used, and a client's datagrams stay together."""
    with Answering() as endpoint, ExitStack() as ends:
        passed = ends.enter_context(high(socket.socket(type=socket.SOCK_DGRAM)))
        passed.bind((host, 0))
        port = passed.getsockname()[1]
        wrap, fds = inherit(passed)
        text = rule("way", endpoint.port, listen=f"{host}:{port}", protocol="udp", idle_timeout=SOON)
        for turn in range(2):
            clients = [ends.enter_context(Peer()) for _ in range(20)]
            with Gateway.start(ruleset(text, workers=workers), wrap=wrap, pass_fds=fds) as gateway:
                assert [event["protocol"] for event in gateway.events("listening")] == ["udp"]
                for number in range(10):
                    for client in clients:
                        client.send(b"%d" % number, ("127.0.0.1", port))
                    for client in clients:
                        assert client.receive() == (b"%d" % number, ("127.0.0.1", port))
                for pid in gateway.workers:
                    assert_idle(pid)
                records = flows(gateway, len(clients))
            assert {counts(record)[::2] for record in records} == {(10, 10)}, turn


def test_ready_says_how_many_flows_with_an_inherited_socket() -> None:
    """Where one worker alone reads a passed UDP socket, `ready` tells how many flows that one takes."""
    with Answering() as endpoint, high(socket.socket(type=socket.SOCK_DGRAM)) as passed:
        passed.bind(("127.0.0.1", 0))
        wrap, fds = inherit(passed)
        text = rule("way", endpoint.port, listen=f"127.0.0.1:{passed.getsockname()[1]}", protocol="udp")
        with Gateway.start(ruleset(text, workers=2), wrap=wrap, pass_fds=fds) as gateway:
            (ready,) = gateway.events("ready")
            assert ready.get("flows_max", 0) > 0


def test_an_inherited_socket_of_both_families() -> None:
    """At a passed UDP socket of both families a client has one flow, whatever it sends, in trains too."""
    needs.ipv6()
    with Peer(receive=1 << 20) as endpoint, Peer() as four, Peer(("::1", 0)) as six, ExitStack() as ends:
        both = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        both.bind(("::", 0))
        passed = ends.enter_context(high(both))
        port = passed.getsockname()[1]
        wrap, fds = inherit(passed)
        text = rule("way", endpoint.port, listen=f":{port}", protocol="udp", idle_timeout=FOREVER)
        with Gateway.start(ruleset(text, workers=2), wrap=wrap, pass_fds=fds) as gateway:
            assert len(gateway.events("listening")) == 1
            worker = gateway.workers[0]
            for client, address in ((four, ("127.0.0.1", port)), (six, ("::1", port))):
                sides: set[Address] = set()
                for turn in range(20):
                    train = [b"%02d" % number for number in range(12)]
                    with stopped(worker):
                        for _ in range(4):
                            send_train(client, train, address)
                    for _ in range(4):
                        for data in train:
                            came, theirs = endpoint.receive()
                            assert came == data
                            sides.add(theirs)
                    (theirs,) = sides
                    endpoint.send(b"answer %d" % turn, theirs)
                    assert client.receive() == (b"answer %d" % turn, address)
            records = cut(gateway)
        assert sorted(record["client"] for record in records) == sorted([four.to, six.to])
        assert {counts(record)[::2] for record in records} == {(20 * 48, 20)}


def pss(pid: int) -> int:
    """Give a process's share of the memory it has, in bytes."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024


@pytest.mark.parametrize("workers", [1, 2])
def test_a_thousand_ports(workers: int) -> None:
    """A rule of 1,000 ports is served at each, in little memory, with one descriptor a port and worker."""
    ports = 1000
    host = own_host()
    host_to = host.replace("127.200", "127.201")
    first, first_to = free_ports(ports, host), free_ports(ports, host_to)
    text = rule(
        "range",
        f"{host_to}:{first_to}-{first_to + ports - 1}",
        listen=f"{host}:{first}-{first + ports - 1}",
        protocol="udp",
        idle_timeout=FOREVER,
    )
    sample = [0, 1, 7, 250, 499, 500, 751, 998, 999]
    with ExitStack() as ends, Peer() as client:
        for offset in sample:
            ends.enter_context(Answering((host_to, first_to + offset), lambda data: [data.upper()]))
        with Gateway.start(ruleset(text, workers=workers)) as gateway:
            assert len(gateway.events("listening")) == ports
            processes = [gateway.process.pid, *gateway.workers]
            memory = sum(map(pss, processes))
            # With one worker 31 MB, with two 38, of which the interpreters have nearly all.
            assert memory < 40_000_000, f"{memory:,} bytes"
            before = sum(map(open_fds, gateway.workers))
            assert ports * workers <= before <= (ports + 30) * workers
            for _ in range(2):
                for offset in sample:
                    client.send(b"offset %d" % offset, (host, first + offset))
                    assert client.receive() == (b"OFFSET %d" % offset, (host, first + offset))
            assert sum(map(open_fds, gateway.workers)) == before + len(sample)
            for pid in processes:
                assert_idle(pid)
            for record in cut(gateway):
                offset = int(record["listener"].rpartition(":")[2]) - first
                assert record["endpoint"] == f"{host_to}:{first_to + offset}"
                assert counts(record)[::2] == (2, 2)


def test_a_client_of_port_0() -> None:
    """A datagram with source port 0, which cannot be answered, is forwarded, and its answer does no harm."""
    needs.root()
    with Answering() as endpoint, Peer() as client:
        text = ruleset(rule("way", endpoint.port, protocol="udp", idle_timeout=SOON))
        with Gateway.start(text) as gateway:
            address = gateway.address("way")
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
                # Source port, destination port, length, no checksum.
                header = b"".join(word.to_bytes(2, "big") for word in (0, address[1], 8 + 4, 0))
                raw.sendto(header + b"odd!", ("127.0.0.1", 0))
            record = flow(gateway)
            assert record["client"] == "127.0.0.1:0"
            assert counts(record) == (1, 4, 0, 0)
            assert record["drops"] == {"send_failed": 1}
            assert asks(client, address)
            assert os.path.exists(f"/proc/{gateway.workers[0]}")  # noqa: PTH110  one look, no path kept
