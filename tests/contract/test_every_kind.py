"""The contract of a session: the same promises over TCP and unix sockets, copied and spliced, each way."""

import socket
from collections.abc import Iterator
from itertools import product

import pytest

from tests.contract.links import (
    KINDS,
    MOVERS,
    Family,
    Link,
    Links,
    Mover,
    abort,
    random_bytes,
    read,
    read_to_end,
    same,
)
from tests.e2e.gateway import PATIENCE, resident_bytes

SMALL = 1000
LARGE = 3 << 20
TOO_MUCH = 96 << 20
"""More than all buffers between two ends can hold: TCP's are 4 MiB to send and 32 MiB to receive, at most."""
HELD_AT_MOST = 16 << 20
SIZES = {"copied": SMALL, "spliced": LARGE}

UP, DOWN = "up", "down"


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Links]:
    """Give one gateway to all tests of this file."""
    with Links.start(tmp_path_factory.mktemp("links")) as started:
        yield started


@pytest.fixture(params=list(product(KINDS, MOVERS)), ids=lambda param: f"{'-'.join(param[0])}-{param[1]}")
def kind(request: pytest.FixtureRequest) -> tuple[tuple[Family, Family], Mover]:
    """Give each kind of connection in turn."""
    chosen: tuple[tuple[Family, Family], Mover] = request.param
    return chosen


@pytest.fixture
def mover(kind: tuple[tuple[Family, Family], Mover]) -> Mover:
    """Say how the link's bytes move."""
    return kind[1]


@pytest.fixture
def link(links: Links, kind: tuple[tuple[Family, Family], Mover]) -> Iterator[Link]:
    """Give an open session of the kind."""
    with links.open(*kind) as opened:
        yield opened


@pytest.fixture
def payload(mover: Mover) -> bytes:
    """Give as many bytes as the mover wants."""
    return random_bytes(SIZES[mover], 7)


def ends(link: Link, way: str) -> tuple[socket.socket, socket.socket]:
    """Give the source and the sink of a way."""
    return (link.client, link.endpoint) if way == UP else (link.endpoint, link.client)


def counts(way: str, forth: int, back: int = 0) -> dict[str, int]:
    """Give what a record says when so many bytes went `way`, and so many back."""
    return {"up": forth, "down": back} if way == UP else {"up": back, "down": forth}


def eof_by(way: str) -> str:
    """Give the cause when the source of this way was the first to end."""
    return "client_eof" if way == UP else "endpoint_eof"


def reset_by(way: str) -> str:
    """Give the cause when the source of this way aborted."""
    return "client_reset" if way == UP else "endpoint_reset"


both_ways = pytest.mark.parametrize("way", [UP, DOWN])


def test_nothing_said_is_a_session_too(link: Link) -> None:
    """Two ends that close without a word leave a record of no bytes."""
    link.client.close()
    assert not read_to_end(link.endpoint)
    link.endpoint.close()
    link.expect("client_eof", up=0, down=0)


@both_ways
def test_one_way(link: Link, way: str, payload: bytes) -> None:
    """What one end sends before it closes is what the other gets, and then EOF."""
    source, sink = ends(link, way)
    sending = link.threads.submit(source.sendall, payload)
    got = read(sink, len(payload))
    sending.result(PATIENCE)
    source.close()
    assert not read_to_end(sink)
    assert same(got, payload)
    sink.close()
    link.expect(eof_by(way), **counts(way, len(payload)))


@both_ways
def test_last_bytes_of_one_that_closes_at_once(link: Link, way: str, payload: bytes) -> None:
    """An end that sends and closes before the other has read a byte loses none of them."""
    source, sink = ends(link, way)

    def send_and_close() -> None:
        source.sendall(payload)
        source.close()

    sending = link.threads.submit(send_and_close)
    assert same(read_to_end(sink), payload)
    sending.result(PATIENCE)
    sink.close()
    link.expect(eof_by(way), **counts(way, len(payload)))


def test_both_ways_at_once(link: Link, mover: Mover) -> None:
    """Both ends send at the same time, neither waits for the other, and both payloads are exact."""
    up, down = random_bytes(4 * SIZES[mover], 2), random_bytes(3 * SIZES[mover], 3)
    sending = [
        link.threads.submit(end.sendall, data) for end, data in ((link.client, up), (link.endpoint, down))
    ]
    reading = link.threads.submit(read, link.client, len(down))
    assert same(read(link.endpoint, len(up)), up)
    assert same(reading.result(PATIENCE), down)
    for each in sending:
        each.result(PATIENCE)
    link.client.close()
    assert not read_to_end(link.endpoint)
    link.endpoint.close()
    link.expect("client_eof", up=len(up), down=len(down))


def test_questions_and_answers(link: Link) -> None:
    """A hundred small requests and their answers, one after the other."""
    for number in range(100):
        question, answer = f"question {number}".encode(), f"and the answer {number}".encode()
        link.client.sendall(question)
        assert read(link.endpoint, len(question)) == question
        link.endpoint.sendall(answer)
        assert read(link.client, len(answer)) == answer
    link.client.close()
    assert not read_to_end(link.endpoint)


@both_ways
def test_half_close(link: Link, way: str, payload: bytes) -> None:
    """After one end's FIN the other has seen EOF and can still send all it has."""
    source, sink = ends(link, way)
    sending = link.threads.submit(source.sendall, payload)
    assert same(read(sink, len(payload)), payload)
    sending.result(PATIENCE)
    source.shutdown(socket.SHUT_WR)
    assert not read_to_end(sink)
    answer = random_bytes(2 * len(payload), 4)
    sending = link.threads.submit(sink.sendall, answer)
    assert same(read(source, len(answer)), answer)
    sending.result(PATIENCE)
    sink.close()
    assert not read_to_end(source)
    source.close()
    link.expect(eof_by(way), **counts(way, len(payload), len(answer)))


@both_ways
def test_half_close_with_bytes_unsent_both_ways(link: Link, way: str) -> None:
    """A FIN behind bytes still on their way overtakes none of them, and stops none that come back."""
    source, sink = ends(link, way)
    forth, back = random_bytes(2 * LARGE, 5), random_bytes(LARGE, 6)

    def send_and_end(end: socket.socket, data: bytes) -> None:
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)

    sending = [link.threads.submit(send_and_end, *each) for each in ((source, forth), (sink, back))]
    reading = link.threads.submit(read_to_end, sink)
    assert same(read_to_end(source), back)
    assert same(reading.result(PATIENCE), forth)
    for each in sending:
        each.result(PATIENCE)
    record = link.record()
    assert (record["up"], record["down"]) == tuple(
        link.warmed + count for count in counts(way, len(forth), len(back)).values()
    )
    assert record["cause"] in {"client_eof", "endpoint_eof"}


@both_ways
def test_clogged_peer(link: Link, way: str, mover: Mover) -> None:
    """An end that does not read holds up who sends to it, and nothing else: not the other way, not memory."""
    (worker,) = link.gateway.workers
    before = resident_bytes(worker)
    source, sink = ends(link, way)
    data = random_bytes(TOO_MUCH, 8)
    sending = link.threads.submit(source.sendall, data)
    other = random_bytes(4 * SIZES[mover], 9)
    for _ in range(3):
        sending_back = link.threads.submit(sink.sendall, other)
        assert same(read(source, len(other)), other)
        sending_back.result(PATIENCE)
    assert not sending.done(), "the gateway took more than its buffers can hold"
    assert resident_bytes(worker) < before + HELD_AT_MOST
    assert same(read(sink, len(data)), data)
    sending.result(PATIENCE)
    source.close()
    assert not read_to_end(sink)
    sink.close()
    link.expect(eof_by(way), **counts(way, len(data), 3 * len(other)))


@both_ways
def test_abort(link: Link, way: str) -> None:
    """An end that aborts ends the session: the other is reset, and the record says who it was."""
    source, sink = ends(link, way)
    source.sendall(b"last words")
    assert read(sink, 10) == b"last words"
    sink.sendall(b"unread")
    source.recv(1, socket.MSG_PEEK)
    abort(source)
    ended = "eof"
    try:
        assert not read_to_end(sink)
    except ConnectionResetError:
        ended = "reset"
    # Nothing like RST reaches a unix socket that has left nothing unread in the gateway.
    assert ended == "reset" or sink.family == socket.AF_UNIX
    link.expect(reset_by(way), **counts(way, 10, 6))


@both_ways
def test_abort_of_a_clogged_peer(link: Link, way: str) -> None:
    """An end that aborts with bytes held for it ends the session: its sender is not left waiting."""
    source, sink = ends(link, way)
    data = random_bytes(TOO_MUCH, 10)
    sending = link.threads.submit(source.sendall, data)
    read(sink, SMALL)
    abort(sink)
    with pytest.raises(ConnectionError):
        sending.result(PATIENCE)
    record = link.record()
    assert record["cause"] == reset_by(DOWN if way == UP else UP)
    assert link.warmed + SMALL <= record[way] < len(data)


@both_ways
def test_abort_in_mid_send(link: Link, way: str) -> None:
    """What an end had sent before its abort is a prefix of what the other gets, and the record counts it."""
    source, sink = ends(link, way)
    sink.sendall(b"unread")
    data = random_bytes(LARGE, 11)
    sending = link.threads.submit(source.sendall, data)
    got = bytearray(read(sink, SMALL))
    reading = link.threads.submit(read_until_over, sink, got)
    sending.result(PATIENCE)
    abort(source)
    reading.result(PATIENCE)
    assert same(bytes(got), data[: len(got)])
    record = link.record()
    assert record["cause"] == reset_by(way)
    assert link.warmed + len(got) <= record[way] <= link.warmed + len(data)


def read_until_over(source: socket.socket, got: bytearray) -> None:
    """Collect what comes until the end, whichever it is."""
    try:
        while data := source.recv(1 << 18):
            got += data
    except ConnectionResetError:
        return
