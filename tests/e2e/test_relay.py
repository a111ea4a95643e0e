"""What is sent arrives, all of it, each way by itself, over every pair of socket kinds."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.gateway import Gateway, Record, rule, ruleset, wait_for
from tests.e2e.peers import (
    Address,
    Endpoint,
    Sending,
    assert_idle,
    clog,
    connect,
    digest,
    finish,
    payload,
    read_exactly,
    read_to_end,
    reset,
)
from tests.e2e.tunnel import tunnel

KINDS = ("tcp-tcp", "tcp-unix", "unix-tcp", "unix-unix")
TUNNELS = ("tls", "none")
"""How a tunnel's data channels are protected: what holds of a relay holds through an agent, too."""
SIZES = (0, 1, 16_383, 65_535, 65_536, 65_537, 131_072, 1_048_577, 5_000_000)
"""Around a copied read (64 KiB), where splicing starts (16 KiB), and beyond a pipe and the socket buffers."""
FITS = 65_537
"""So many bytes are taken before anybody reads, by every kind of socket: then the close comes first."""


class Way:
    """One way through a gateway: where a client connects, and the endpoint behind it."""

    def __init__(self, gateway: Gateway, listen: Address, endpoint: Endpoint) -> None:
        self.gateway = gateway
        self.listen = listen
        self.endpoint = endpoint
        self.opened: list[socket.socket] = []
        """This test's ends, closed when it is over, however it ends."""
        self.begun = 0
        """Sessions so far, of all tests: each one leaves one record, so the records keep count with it."""

    def connect(self) -> socket.socket:
        """Begin a session; return the client's end."""
        self.begun += 1
        self.opened.append(client := connect(self.listen))
        return client

    def accept(self) -> socket.socket:
        """Return the endpoint's end of the session that came first."""
        self.opened.append(server := self.endpoint.accept())
        return server

    def open(self) -> tuple[socket.socket, socket.socket]:
        """Begin a session; return both ends."""
        return self.connect(), self.accept()

    def record(self) -> Record:
        """Wait for the record of the session that was begun last, the others having ended."""
        return self.records(1)[0]

    def records(self, count: int) -> list[Record]:
        """Wait for the records of the last `count` sessions."""
        return self.gateway.sessions(self.begun)[-count:]

    def settle(self) -> None:
        """End the test's sessions and wait for their records, so that the next test counts its own."""
        for connection in self.opened:
            connection.close()
        self.opened.clear()
        assert len(self.gateway.sessions(self.begun)) == self.begun

    @property
    def worker(self) -> int:
        """The only worker."""
        return self.gateway.workers[0]

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have everything that happens in the block reach the worker in one batch of events."""
        os.kill(self.worker, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.worker, signal.SIGCONT)


@pytest.fixture(scope="module", params=(*KINDS, *(f"tunnel-{kind}" for kind in TUNNELS)))
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """Give a running gateway with one rule, of one pair of socket kinds, or through an agent."""
    front, back = str(request.param).split("-")
    if front == "tunnel":
        with Endpoint() as endpoint, tunnel(rule("way", endpoint.to, via="office"), encryption=back) as world:
            yield Way(world.gateway, world.gateway.address("way"), endpoint)
        return
    folder = tmp_path_factory.mktemp("way")
    listen: Address = str(folder / "front") if front == "unix" else ""
    behind: Address = str(folder / "back") if back == "unix" else ("127.0.0.1", 0)
    with Endpoint(behind) as endpoint:
        text = ruleset(rule("way", endpoint.to, listen=f"unix:{listen}" if listen else "127.0.0.1:0"))
        with Gateway.start(text) as gateway:
            yield Way(gateway, listen or gateway.address("way"), endpoint)


@pytest.fixture
def way(running: Way) -> Iterator[Way]:
    """Give the way, and close what the test opened on it."""
    yield running
    running.settle()


@pytest.mark.parametrize("size", SIZES)
def test_upload_before_close(way: Way, size: int) -> None:
    """Everything a client sent before it closed reaches the endpoint, then EOF, and the record counts it."""
    data = payload(size, size)
    client, server = way.open()
    sending = Sending(client, data, then=socket.socket.close)
    if size <= FITS:
        sending.done()
    got = read_to_end(server)
    server.close()
    assert digest(got) == digest(data)
    record = way.record()
    assert (record["cause"], record["up"], record["down"]) == ("client_eof", size, 0)


@pytest.mark.parametrize("size", SIZES)
def test_download_before_close(way: Way, size: int) -> None:
    """Everything an endpoint sent before it closed reaches the client, then EOF, and the record counts it."""
    data = payload(size, size + 1)
    client, server = way.open()
    sending = Sending(server, data, then=socket.socket.close)
    if size <= FITS:
        sending.done()
    got = read_to_end(client)
    client.close()
    assert digest(got) == digest(data)
    record = way.record()
    assert (record["cause"], record["up"], record["down"]) == ("endpoint_eof", 0, size)


@pytest.mark.parametrize("first", ["client", "endpoint"])
def test_half_close_with_unsent_bytes_both_ways(way: Way, first: str) -> None:
    """A FIN behind bytes that nobody reads yet cuts neither way: both ends read everything, then EOF."""
    up, down = payload(6_000_000, 1), payload(5_000_000, 2)
    client, server = way.open()
    with client, server:
        sendings = [Sending(client, up, then=finish), Sending(server, down, then=finish)]
        if first == "client":
            got_down, got_up = read_to_end(client), read_to_end(server)
        else:
            got_up, got_down = read_to_end(server), read_to_end(client)
        for sending in sendings:
            sending.done()
    assert (digest(got_up), digest(got_down)) == (digest(up), digest(down))
    record = way.record()
    assert (record["up"], record["down"]) == (len(up), len(down))
    assert record["cause"] in {"client_eof", "endpoint_eof"}


def test_answer_after_half_close(way: Way) -> None:
    """A client that has said all it will say still gets the answer (nc -N, HTTP/1.0, scp)."""
    client, server = way.open()
    with client, server:
        client.sendall(b"question")
        finish(client)
        assert read_to_end(server) == b"question"
        answer = payload(3_000_000)
        sending = Sending(server, answer, then=finish)
        assert digest(read_to_end(client)) == digest(answer)
        sending.done()
    assert way.record()["cause"] == "client_eof"


def test_up_flows_while_down_is_clogged(way: Way) -> None:
    """Bytes pending for a client that does not read hold up nothing that it sends, and none is lost."""
    client, server = way.open()
    with client, server:
        piece = payload(65536, 3)
        stuck = clog(server, piece)
        up = payload(5_000_000, 4)
        sending = Sending(client, up, then=finish)
        assert digest(read_to_end(server)) == digest(up)
        sending.done()
        finish(server)
        got = read_to_end(client)
    assert len(got) == stuck


def test_down_flows_while_up_is_clogged(way: Way) -> None:
    """Bytes pending for an endpoint that does not read hold up nothing that it sends, and none is lost."""
    client, server = way.open()
    with client, server:
        stuck = clog(client, payload(65536, 5))
        down = payload(5_000_000, 6)
        sending = Sending(server, down, then=finish)
        assert digest(read_to_end(client)) == digest(down)
        sending.done()
        finish(client)
        got = read_to_end(server)
    assert len(got) == stuck


def test_pauses_on_both_sides(way: Way) -> None:
    """Two peers that stop reading by turns, in mid-transfer both ways, get every byte in order."""
    up, down = payload(12_000_000, 7), payload(11_000_000, 8)
    client, server = way.open()
    with client, server:
        sendings = [Sending(client, up, then=finish), Sending(server, down, then=finish)]
        got_up, got_down = bytearray(), bytearray()
        for turn in range(8):  # while one reads its share, the other one reads nothing
            got_up += read_exactly(server, 1_000_000 + turn)
            got_down += read_exactly(client, 1_000_000 + turn)
        got_up += read_to_end(server)
        got_down += read_to_end(client)
        for sending in sendings:
            sending.done()
    assert (digest(bytes(got_up)), digest(bytes(got_down))) == (digest(up), digest(down))


@pytest.mark.parametrize("size", [10, 32_000])
def test_answer_and_close_during_an_upload(way: Way, size: int) -> None:
    """A server that answers and closes while the client is still uploading is heard: "413, go away"."""
    answer = payload(size, 9)
    client, server = way.open()
    with client:
        sending = Sending(client, bytes(64_000_000))
        read_exactly(server, 100_000)
        server.sendall(answer)
        server.close()  # with bytes unread: an RST right behind the answer
        got = bytearray()
        while len(got) < size:
            got += client.recv(65536) or pytest.fail(f"EOF after {len(got)} of {size} bytes")
        assert got == answer
        sending.join()
    record = way.record()
    assert (record["cause"], record["down"]) == ("endpoint_reset", size)


def test_answer_before_a_reset_meets_a_half_close(way: Way) -> None:
    """An answer that stands before the endpoint's reset is delivered, when the client's FIN comes with it."""
    client, server = way.open()
    with client:
        client.sendall(b"question")
        wait_for("the question", lambda: server.recv(100, socket.MSG_PEEK) == b"question")
        with way.stopped():
            finish(client)
            server.sendall(b"answer")
            server.close()  # the question is unread: an RST right behind the answer
        assert read_exactly(client, 6) == b"answer"
    assert way.record()["down"] == 6


def test_last_words_before_a_close_are_read(way: Way) -> None:
    """Bytes and FIN of both sides that arrive in one batch of events are all delivered before the end."""
    pairs = [way.open() for _ in range(40)]
    with way.stopped():
        for number, (client, server) in enumerate(pairs):
            client.sendall(b"up %d" % number)
            server.sendall(b"down %d" % number)
            finish(client)
            finish(server)
    for number, (client, server) in enumerate(pairs):
        with client, server:
            assert read_to_end(server) == b"up %d" % number
            assert read_to_end(client) == b"down %d" % number
    records = way.records(40)
    assert {record["cause"] for record in records} <= {"client_eof", "endpoint_eof"}


def test_fds_reused_within_one_batch(way: Way) -> None:
    """Sessions that end and begin in the same batch of events, and so swap fd numbers, never swap bytes."""
    rounds, width = 5, 60
    old = [way.open() for _ in range(width)]
    for turn in range(rounds):
        with way.stopped():
            for number, (client, server) in enumerate(old):
                client.sendall(b"late")
                (reset if number % 3 == 0 else socket.socket.close)(client)
                (reset if number % 3 == 1 else socket.socket.close)(server)
            fresh = [way.connect() for _ in range(width)]
            for number, client in enumerate(fresh):
                client.sendall(b"%08d" % (turn * width + number))
        servers = {read_exactly(server, 8): server for server in (way.accept() for _ in fresh)}
        old = []
        for number, client in enumerate(fresh):
            server = servers[b"%08d" % (turn * width + number)]
            server.sendall(b"to %08d" % (turn * width + number))
            assert read_exactly(client, 11) == b"to %08d" % (turn * width + number)
            old.append((client, server))
    for client, server in old:
        client.close()
        server.close()


def test_urgent_byte_stops_nothing(way: Way) -> None:
    """A byte sent urgently (telnet, rlogin, FTP ABOR) in a bulk stream neither spins nor ends it."""
    client, server = way.open()
    with client, server:
        before, after = payload(8_000_000, 10), payload(1000, 11)
        sending = Sending(client, before)
        assert digest(read_exactly(server, len(before))) == digest(before)
        sending.done()
        client.send(b"!", socket.MSG_OOB)
        client.sendall(after)
        finish(client)
        assert_idle(way.worker)
        assert read_to_end(server).removeprefix(b"!") == after


def test_a_unix_client_is_named_so(tmp_path: Path) -> None:
    """The record of a session over unix sockets names its listener and endpoint by their paths."""
    with Endpoint(str(tmp_path / "back")) as endpoint:
        text = ruleset(rule("way", endpoint.to, listen=f"unix:{tmp_path}/front"))
        with Gateway.start(text) as gateway:
            client = connect(str(tmp_path / "front"))
            with endpoint.accept() as server, client:
                server.sendall(b"x")
                assert client.recv(1) == b"x"
            record = gateway.session()
            assert record["client"] == "unix"
            assert record["listener"] == f"unix:{tmp_path}/front"
            assert record["endpoint"] == f"unix:{tmp_path}/back"
