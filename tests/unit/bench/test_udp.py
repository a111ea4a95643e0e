"""The clients and the endpoint of the UDP loads, over loopback, and what of their reports is refused."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from bench import sender
from bench.datagrams import MOST_LOST, parse_tally
from bench.echo import LARGEST, answers, bound, roomy, send_back
from bench.endpoints import HOSTS, RANGE, UDP_LOADS, Bench, Scale
from bench.idle import listening
from bench.ports import ask_each
from bench.process import Address, Cores, FailedError, free_port
from bench.relays import BULK, FLOWS, HTTP, IDLE, PORTS, TRAINS
from bench.sender import NUMBER, Clients, Plan, Tally

HOST = "127.0.0.1"
Sender = tuple[str, int]


@contextmanager
def served(sock: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[Address]:
    """Have a thread call `serve` for as long as the block lasts; hand out the socket's address."""
    over = threading.Event()
    sock.settimeout(0.05)

    def work() -> None:
        while not over.is_set():
            try:
                serve(sock)
            except TimeoutError:
                continue

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield HOST, sock.getsockname()[1]
    finally:
        over.set()
        thread.join()
        sock.close()


@contextmanager
def echo() -> Iterator[Address]:
    """Run the benchmark's own endpoint."""
    buffer = memoryview(bytearray(LARGEST))
    with served(bound((HOST, 0)), lambda sock: send_back(sock, buffer)) as address:
        yield address


@contextmanager
def answering(answer: Callable[[int, bytes], list[bytes]]) -> Iterator[Address]:
    """Run an endpoint that answers the datagram of a number with what `answer` makes of it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    roomy(sock)
    sock.bind((HOST, 0))

    def serve(sock: socket.socket) -> None:
        data, client = sock.recvfrom(LARGEST)
        for piece in answer(NUMBER.unpack_from(data)[0], data):
            sock.sendto(piece, client)

    with served(sock, serve) as address:
        yield address


def asked(address: Address, *, clients: int = 4, train: int = 1, size: int = 100) -> Tally:
    """Ask for a tenth of a second."""
    with closing(Clients(address, Plan(clients, clients, 1, size, 0.1, train))) as asking:
        return asking.run()


def test_what_comes_back_is_counted_once() -> None:
    """Through an endpoint that answers all, every datagram sent is answered, and none is lost or stray."""
    with echo() as address:
        tally = asked(address)
    assert tally.asked == tally.answered > 100
    assert (tally.lost, tally.strays) == (0, 0)
    assert 0 < tally.p50_ns <= tally.p99_ns
    assert 90_000_000 < tally.duration_ns < 1_000_000_000


def test_a_train_goes_there_and_back_as_one() -> None:
    """The endpoint is told of a train by the kernel and sends one: all its datagrams are counted."""
    trains: list[int] = []
    buffer = memoryview(bytearray(LARGEST))

    def serve(sock: socket.socket) -> None:
        trains.append(sock.recv_into(bytearray(LARGEST), 0, socket.MSG_PEEK))
        send_back(sock, buffer)

    with served(bound((HOST, 0)), serve) as address:
        tally = asked(address, train=32, size=1_200)
    assert set(trains) == {32 * 1_200}
    assert tally.asked == tally.answered == 32 * len(trains)
    assert (tally.lost, tally.strays) == (0, 0)


def test_a_train_may_come_back_in_pieces() -> None:
    """A relay without trains sends each datagram by itself: the same number is counted."""
    with answering(lambda _number, data: [data]) as address:
        tally = asked(address, train=32, size=1_200)
    assert tally.asked == tally.answered > 0
    assert tally.asked % 32 == 0
    assert (tally.lost, tally.strays) == (0, 0)


def test_datagrams_of_a_train_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that makes one long datagram of a train is found out: none of the train is answered."""
    monkeypatch.setattr(sender, "LOST_AFTER_NS", 20_000_000)
    monkeypatch.setattr(sender, "LOOK_EVERY_S", 0.005)

    def serve(sock: socket.socket) -> None:
        train, client = sock.recvfrom(LARGEST)
        sock.sendto(train, client)

    with served(bound((HOST, 0)), serve) as address:
        tally = asked(address, train=32, size=1_200)
    assert tally.answered == 0
    assert tally.lost == tally.asked == 32 * tally.strays > 0


def test_clients_take_turns() -> None:
    """With fewer asking than there are, nobody asks a second time before all have asked once."""
    seen: list[Sender] = []
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))

    def serve(sock: socket.socket) -> None:
        data, client = sock.recvfrom(LARGEST)
        seen.append(client)
        sock.sendto(data, client)

    with served(sock, serve) as address:
        plan = Plan(clients=50, asking=4, window=1, size=60, seconds=0.1)
        with closing(Clients(address, plan)) as clients:
            clients.run()
    assert len(seen) > 100
    assert len(set(seen[:50])) == 50
    assert seen[:46] == seen[50:96]


def test_what_does_not_come_back_is_lost_and_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram that nobody answers is counted, and stops neither its client nor the run."""
    monkeypatch.setattr(sender, "LOST_AFTER_NS", 1_000_000)
    monkeypatch.setattr(sender, "LOOK_EVERY_S", 0.005)
    with answering(lambda number, data: [] if number in (0, 3) else [data]) as address:
        tally = asked(address, clients=1)
    assert tally.lost >= 2
    assert tally.answered + tally.lost == tally.asked > 10


@pytest.mark.parametrize(
    "answer",
    [
        lambda number, data: [data, data] if number == 5 else [data],
        lambda number, data: [data, NUMBER.pack(number + 1_000_000) + data[8:]] if number == 5 else [data],
        lambda number, data: [data, data[:50]] if number == 5 else [data],
        lambda number, data: [data, b""] if number == 5 else [data],
        lambda number, data: [data, data + data] if number == 5 else [data],
    ],
    ids=["twice", "nobody's", "cut short", "empty", "too long"],
)
def test_what_nobody_waits_for_is_a_stray(answer: Callable[[int, bytes], list[bytes]]) -> None:
    """A datagram that comes twice, was never sent or is not whole is told apart from an answer."""
    with answering(answer) as address:
        tally = asked(address)
    assert tally.strays == 1
    assert tally.answered == tally.asked


def test_an_answer_to_another_client_is_a_stray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that mixes up two clients is found out: neither has its answer."""
    monkeypatch.setattr(sender, "LOST_AFTER_NS", 20_000_000)
    monkeypatch.setattr(sender, "LOOK_EVERY_S", 0.005)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HOST, 0))
    first: list[tuple[bytes, Sender]] = []

    def serve(sock: socket.socket) -> None:
        data, client = sock.recvfrom(LARGEST)
        if len(first) < 2:
            first.append((data, client))
            if len(first) == 2:
                sock.sendto(first[0][0], first[1][1])
                sock.sendto(first[1][0], first[0][1])
        else:
            sock.sendto(data, client)

    with served(sock, serve) as address:
        tally = asked(address, clients=2)
    assert (tally.strays, tally.lost) == (2, 2)


def tally(*, asked: int = 10_000, answered: int = 10_000, lost: int = 0, strays: int = 0) -> str:
    """What the sender prints."""
    return msgspec.json.encode(Tally(asked, answered, lost, strays, 1_000_000_000, 200_000, 300_000)).decode()


def test_a_clean_tally_is_read() -> None:
    """What the sender counted comes out as it printed it, and a tiny loss is UDP's own."""
    allowed = int(10_000 * MOST_LOST)
    found = parse_tally(tally(answered=10_000 - allowed, lost=allowed))
    assert (found.asked, found.answered, found.lost) == (10_000, 10_000 - allowed, allowed)


@pytest.mark.parametrize(
    "output",
    [
        tally(lost=int(10_000 * MOST_LOST) + 1),
        tally(answered=0),
        tally(strays=1),
        "ConnectionRefusedError: [Errno 111] Connection refused\n",
        "",
    ],
)
def test_a_run_that_lost_or_mixed_up_is_refused(output: str) -> None:
    """More loss than the share allowed, nothing answered, one stray or no report: never used."""
    with pytest.raises(FailedError):
        parse_tally(output)


def test_every_port_of_a_range_is_asked() -> None:
    """All ports answer, each itself: it passes; the first that does not is named."""
    buffer = memoryview(bytearray(LARGEST))
    first = free_port(HOST, socket.SOCK_DGRAM, 3)
    with (
        served(bound((HOST, first)), lambda sock: send_back(sock, buffer)),
        served(bound((HOST, first + 1)), lambda sock: send_back(sock, buffer)),
    ):
        ask_each(HOST, range(first, first + 2))
        with pytest.raises(FailedError, match=f"port {first + 2} does not answer"):
            ask_each(HOST, range(first, first + 3))


def test_an_endpoint_is_there_once_it_answers() -> None:
    """A port that sends back is ready; one that nobody has is not, and says so at once."""
    with echo() as address:
        assert answers(address)
    assert not answers((HOST, free_port(HOST, socket.SOCK_DGRAM)))


def test_free_ports_are_free_in_a_row() -> None:
    """All of a range can be bound at once, for the protocol it was asked for."""
    first = free_port(HOST, socket.SOCK_DGRAM, 20)
    sockets = [bound((HOST, port)) for port in range(first, first + 20)]
    for sock in sockets:
        sock.close()


def test_each_load_has_the_endpoints_it_needs(tmp_path: Path) -> None:
    """HTTP comes first under every load; a load of datagrams adds its own way, the others those of TCP."""
    scale = Scale(1, 1, 1, 1, 1, 1.0, 1.0)
    with listening(HOST) as idle:
        bench = Bench(80, (HOST, 81), idle, (HOST, 82), (HOST, 83), tmp_path, Cores(None, None), scale)
        ways = {load: bench.ways(1, load) for load in (IDLE, BULK, *UDP_LOADS)}
    assert {found[0].name for found in ways.values()} == {HTTP}
    assert {found[0].to for found in ways.values()} == {(HOSTS[1], 80)}
    assert [way.name for way in ways[BULK][1:]] == [BULK, IDLE]
    assert [(way.name, way.udp, way.responses, way.ports) for way in ways[FLOWS][1:]] == [(FLOWS, True, 1, 1)]
    assert [(way.name, way.udp, way.responses, way.ports) for way in ways[TRAINS][1:]] == [
        (TRAINS, True, 0, 1)
    ]
    assert [(way.name, way.udp, way.responses, way.ports) for way in ways[PORTS][1:]] == [
        (PORTS, True, 0, RANGE)
    ]
