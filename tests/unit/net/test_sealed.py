"""Sessions with TLS on one side: pieces on the wire, and every end is told within them, once."""

import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from appliance.net.reactor import IN
from appliance.net.relay import COPY_BYTES
from appliance.net.sealed import END, FEW, LENGTH, PAUSE, PIECE, STRIDE, WITHOUT_A_PAUSE
from appliance.net.tls import RECORD, TlsSocket
from tests.tls import client_context
from tests.unit.net.loop import PATIENCE
from tests.unit.net.ways import Joined, join, opened, piece, say_goodbye

ABORT = struct.pack("ii", 1, 0)
RECORD_HEAD = b"\x17\x03\x03\x00\x40"
"""What the wire shows of a record before its bytes."""


@pytest.fixture
def joined() -> Iterator[Joined]:
    """Give a session's two directions."""
    with join() as made:
        yield made


def abort(wire: socket.socket | TlsSocket) -> None:
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    wire.close()


def is_reset(near: socket.socket | TlsSocket) -> bool:
    """Whether the other end's reset has come."""
    poll = select.poll()
    poll.register(near.fileno(), 0)
    return bool(poll.poll(0))


def write_raw(end: TlsSocket, data: bytes) -> None:
    """Write on the wire, as who has no keys."""
    with socket.socket(fileno=os.dup(end.fileno())) as wire:
        wire.sendall(data)


def end_of_wire(end: TlsSocket) -> None:
    """Send a FIN, as who cuts the wire can."""
    with socket.socket(fileno=os.dup(end.fileno())) as wire:
        wire.shutdown(socket.SHUT_WR)


CUTS: list[Callable[[TlsSocket], None]] = [end_of_wire, say_goodbye, abort]
"""Ways in which a TLS connection ends."""


def end_up(joined: Joined) -> None:
    """End the way up, as the second one of two or the first."""
    joined.client.shutdown(socket.SHUT_WR)
    joined.at.until(lambda: joined.up.ended)


def end_down(joined: Joined) -> None:
    """End the way down."""
    joined.endpoint.send(END)
    joined.at.until(lambda: joined.down.ended)


# -- sealing: what is written ---------------------------------------------------------------------------


def test_a_read_is_a_piece(joined: Joined) -> None:
    """Each read goes out with its length before it, and the end is a piece of no bytes."""
    joined.client.sendall(b"question")
    joined.hears(piece(b"question"))
    joined.client.sendall(b"?")
    joined.hears(piece(b"question") + piece(b"?"))
    end_up(joined)
    joined.hears(b"\0\0\0\x08question\0\0\0\1?\0\0\0\0")
    assert joined.up.moved == 9
    assert joined.told.first == [joined.up]


def test_a_full_read_is_full_records(joined: Joined) -> None:
    """The length and the bytes go out in one write: of four records, and when a MiB was taken of sixteen."""
    strides = WITHOUT_A_PAUSE // (STRIDE + LENGTH)
    data = os.urandom(strides * STRIDE + PIECE + 100)
    joined.accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * len(data))
    joined.at.reactor.unwatch(joined.up.fd)
    joined.client.sendall(data)
    joined.at.until(lambda: len(joined.accepted.recv(len(data), socket.MSG_PEEK)) == len(data))
    joined.at.reactor.watch(joined.up.fd, IN, joined.up)
    joined.at.until(lambda: len(joined.heard()) == len(data) + (strides + 2) * LENGTH)
    sizes = list(map(len, opened(joined.heard())[0]))
    assert b"".join(opened(joined.heard())[0]) == data
    assert sizes == [*[STRIDE] * strides, PIECE, 100]
    assert joined.connection.room.asked == [*[4 * RECORD] * strides, 16 * RECORD, 100 + LENGTH]
    assert joined.up.moved == len(data)


@pytest.mark.parametrize("most", [20_000, WITHOUT_A_PAUSE // 2])
@pytest.mark.parametrize("pause", [PAUSE, PAUSE / 10], ids=["slow", "quick"])
def test_a_slow_sink_is_offered_no_more(joined: Joined, most: int, pause: float) -> None:
    """What is held for one that pauses for long before it has taken a MiB is a stride at the most."""
    data = os.urandom(3 * WITHOUT_A_PAUSE)
    joined.client.setblocking(False)
    left, paused, held = memoryview(data), 0, 0

    def moved() -> bool:
        nonlocal left, paused, held
        with suppress(BlockingIOError):
            left = left[joined.client.send(left) :]
        if joined.up.moved - paused >= most:
            joined.connection.room.refusals, paused = 2, joined.up.moved
        if joined.up.held:
            joined.at.clock.now += pause
        held = max(held, joined.up.held)
        return len(joined.heard()) > len(data) and joined.up.moved == len(data)

    joined.at.until(moved)
    assert (0 < held <= STRIDE + LENGTH) is (pause == PAUSE)


def test_in_a_crowd_strides_are_short(joined: Joined) -> None:
    """A sink that takes everything is offered long ones, but where others wait for their turn."""
    joined.up._most = PIECE
    joined.at.reactor.crowd = FEW
    assert joined.up._stride() == PIECE
    joined.at.reactor.crowd += 1
    assert joined.up._stride() == STRIDE


def test_a_length_that_is_not_taken_is_no_byte_moved(joined: Joined) -> None:
    """While the sink takes nothing, nothing is counted; then the bytes are, without their length."""
    joined.connection.room.refusals = 3
    joined.client.sendall(b"last words")
    joined.at.until(lambda: joined.connection.room.asked)
    assert (joined.up.moved, joined.up.held) == (0, 10 + LENGTH)
    joined.at.until(joined.heard)
    joined.hears(piece(b"last words"))
    assert joined.connection.room.asked == [10 + LENGTH] * 4
    assert (joined.up.moved, joined.up.held) == (10, 0)
    joined.client.sendall(b"more")
    joined.at.until(lambda: joined.up.moved == 14)


def test_what_was_moved_at_a_cut_does_not_count_a_length_that_is_held(joined: Joined) -> None:
    """A session that is cut before the length went out has moved nothing."""
    joined.connection.room.refusals = 1 << 30
    joined.client.sendall(b"last words")
    joined.at.until(lambda: joined.connection.room.asked)
    joined.leave()
    assert joined.up.moved == 0


@pytest.mark.parametrize("refusals", [0, 2])
def test_a_piece_that_is_taken_by_and_by(joined: Joined, refusals: int) -> None:
    """Where the sink takes a record at a time, each byte is counted once, and the length never."""
    data = os.urandom(STRIDE)
    joined.connection.room.refusals = refusals
    joined.connection.room.most = RECORD
    counts = []
    joined.client.sendall(data)

    def count() -> bool:
        if joined.up.moved and joined.up.moved not in counts:
            counts.append(joined.up.moved)
        return joined.up.moved == len(data)

    joined.at.until(count)
    joined.at.until(lambda: b"".join(opened(joined.heard())[0]) == data)
    asked = joined.connection.room.asked
    assert counts[0] == min(RECORD, asked[0]) - LENGTH
    assert counts == sorted(counts)
    assert joined.up.held == 0
    assert asked[: 1 + refusals] == [asked[0]] * (1 + refusals), "what was refused is offered again"


def test_nothing_is_read_while_a_piece_is_held(joined: Joined) -> None:
    """A sink without room throttles the source: the rest stays with the client's kernel."""
    joined.connection.room.refusals = 4
    joined.client.sendall(b"one")
    joined.at.until(lambda: joined.up.held)
    joined.client.sendall(b"two")
    joined.at.until(lambda: len(joined.connection.room.asked) == 4)
    assert joined.up.held == 3 + LENGTH
    joined.at.until(lambda: joined.up.moved == 6)
    joined.hears(piece(b"one") + piece(b"two"))


# -- sealing: its end -----------------------------------------------------------------------------------


def test_an_end_without_room_is_told_later(joined: Joined) -> None:
    """The direction waits for room with its source unwatched, and tells it then, once."""
    joined.client.sendall(b"last words")
    joined.at.until(joined.heard)
    joined.connection.room.refusals = 3
    joined.client.shutdown(socket.SHUT_WR)
    joined.at.until(lambda: joined.up.ending)
    assert not joined.up.ended
    joined.at.until(lambda: joined.up.ended)
    assert not joined.up.ending
    joined.comes_to_rest()
    assert joined.connection.room.asked == [10 + LENGTH, *[LENGTH] * 4]
    joined.hears(piece(b"last words") + END)
    joined.endpoint.send(piece(b"answer"))
    joined.gets(b"answer")


def test_an_end_behind_bytes_without_room(joined: Joined) -> None:
    """What is held goes first, then the end: never before it."""
    joined.connection.room.refusals = 3
    joined.client.sendall(b"last words")
    joined.client.shutdown(socket.SHUT_WR)
    joined.at.until(lambda: joined.up.ended)
    joined.hears(piece(b"last words") + END)
    assert joined.up.moved == 10


def test_an_end_without_room_in_the_kernel(joined: Joined) -> None:
    """A connection that is really full is waited for without a turn, and gets all of it."""
    size = 0
    joined.client.setblocking(False)
    while not joined.up.held:
        with suppress(BlockingIOError):
            size += joined.client.send(bytes(COPY_BYTES))
        joined.at.turn()
    joined.client.shutdown(socket.SHUT_WR)
    joined.comes_to_rest()
    assert joined.up.held
    joined.at.until(lambda: (joined.heard(), joined.up.ended)[1])
    joined.at.until(lambda: joined.heard().endswith(END))
    pieces, rest = opened(joined.heard())
    assert (sum(map(len, pieces)), rest) == (size, b"")
    assert joined.up.moved == size


def test_the_last_end_without_room_is_told_before_the_session_ends(joined: Joined) -> None:
    """An end that ends the session is no less told: unsaid it would be a truncation."""
    end_down(joined)
    joined.connection.room.refusals = 2
    joined.client.shutdown(socket.SHUT_WR)
    joined.at.until(lambda: joined.up.ending)
    assert not joined.told.ended
    joined.at.until(lambda: joined.told.is_over)
    assert joined.told.ended == [joined.up]
    joined.hears(END)


def test_an_end_that_waits_for_room_meets_a_reset(joined: Joined) -> None:
    """A sink that is reset meanwhile ends the wait."""
    joined.connection.room.refusals = 1 << 30
    joined.client.shutdown(socket.SHUT_WR)
    joined.at.until(lambda: joined.up.ending)
    abort(joined.endpoint)
    joined.at.until(lambda: joined.told.is_over)
    assert not joined.told.ended


def test_an_end_after_a_loss_is_no_end(joined: Joined) -> None:
    """Where a write has met the client's reset, a read gives EOF: it is not passed on as one.

    The kernel tells of a reset once. An end would make an upload that was aborted a complete one.
    """
    joined.client.sendall(b"half of it")
    joined.at.until(lambda: joined.up.moved == 10)
    joined.at.reactor.unwatch(joined.up.fd)
    abort(joined.client)
    joined.at.until(lambda: is_reset(joined.accepted))
    joined.endpoint.send(piece(b"answer"))
    joined.at.until(lambda: joined.told.lost)
    joined.at.reactor.watch(joined.up.fd, IN, joined.up)
    joined.at.until(lambda: joined.told.is_over)
    assert joined.told.ended == [joined.up]
    joined.comes_to_rest()
    joined.hears(piece(b"half of it"))


def test_the_sealed_side_is_lost_while_it_is_written(joined: Joined) -> None:
    """What it had said before is delivered; without an end it is a stream that was cut."""
    joined.at.reactor.unwatch(joined.down.fd)
    joined.endpoint.send(piece(b"go away"))
    abort(joined.endpoint)
    joined.at.until(lambda: is_reset(joined.connection))
    joined.client.sendall(b"upload")
    joined.at.until(lambda: joined.told.lost)
    assert joined.told.lost == [joined.up]
    assert not joined.told.is_over
    joined.at.reactor.watch(joined.down.fd, IN, joined.down)
    joined.at.until(lambda: joined.told.is_over)
    assert joined.told.reset == [(joined.down, False)]
    assert joined.up.moved == 0


# -- opening: what is read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "records",
    [
        [piece(b"one") + piece(b"two") + piece(b"three") + END],
        [piece(b"one"), piece(b"two"), piece(b"three"), END],
        [b"\0\0\0", b"\x0bone", b"tw", b"othre", b"e", b"\0\0", b"\0\0"],
        [b"\0\0\0\3", b"one\0", b"\0\0\x08twothree\0", b"\0\0\0"],
        [bytes([each]) for each in piece(b"onetwothree") + END],
    ],
    ids=["one record", "a record each", "split", "ends of records", "bytes"],
)
@pytest.mark.parametrize("is_at_once", [False, True])
def test_pieces_come_out(joined: Joined, records: list[bytes], is_at_once: bool) -> None:
    """Pieces and records are cut as they please; the client has the bytes, and then the end."""
    for record in records:
        joined.endpoint.send(record)
        if not is_at_once:
            joined.comes_to_rest()
    joined.at.until(lambda: joined.down.ended)
    joined.gets(b"onetwothree")
    joined.at.until(joined.client_is_told_the_end)
    assert joined.down.moved == 11
    assert not joined.told.is_over
    joined.comes_to_rest()


@pytest.mark.parametrize("size", [1, RECORD - LENGTH, RECORD, STRIDE, STRIDE + 1, PIECE])
def test_any_length(joined: Joined, size: int) -> None:
    """The longest piece fits, too, wherever its records end."""
    data = os.urandom(size)
    rest = memoryview(piece(data) + END)

    def said() -> bool:
        nonlocal rest
        if rest:
            with suppress(BlockingIOError):
                rest = rest[joined.endpoint.send(rest) :]
        return joined.down.ended

    joined.at.until(said)
    joined.at.until(lambda: len(joined.got()) == size)
    joined.gets(data)
    assert joined.down.moved == size


def test_a_length_that_no_piece_has(joined: Joined) -> None:
    """Whoever writes it does not keep to the protocol: the session is aborted."""
    joined.endpoint.send((PIECE + 1).to_bytes(LENGTH, "big") + b"x")
    joined.at.until(lambda: joined.told.is_over)
    assert joined.told.reset == [(joined.down, False)]
    assert joined.down.moved == 0


def test_nothing_is_taken_for_a_length_that_is_not_there(joined: Joined) -> None:
    """Half a length, and a length without its bytes, wait quietly."""
    for part in (b"\0\0\0", b"\5"):
        joined.endpoint.send(part)
        joined.comes_to_rest()
        assert not joined.told.is_over
        assert joined.down.moved == 0
    joined.endpoint.send(b"hello")
    joined.gets(b"hello")


@pytest.mark.parametrize("most", [1, 4, 1 << 30])
def test_a_client_without_room(joined: Joined, most: int) -> None:
    """What it does not take is held, and the rest of the record stays where epoll does not see it."""
    joined.accepted.room.refusals = 2
    joined.accepted.room.most = most
    joined.endpoint.send(piece(b"one") + piece(b"twothree") + END)
    joined.at.until(lambda: joined.down.held)
    assert joined.down.moved == 0
    joined.at.until(lambda: joined.down.ended)
    joined.gets(b"onetwothree")
    joined.at.until(joined.client_is_told_the_end)
    assert joined.down.moved == 11


def test_one_turn_takes_a_bounded_amount(joined: Joined) -> None:
    """However pieces and records lie, a turn reads a piece, and then no record that the kernel still has.

    An endpoint that writes as fast as it is read would have a worker to itself otherwise.
    """
    joined.at.reactor.unwatch(joined.down.fd)
    stream = piece(bytes(1000)) * 300
    sent = 0
    with suppress(BlockingIOError):
        while sent < len(stream):
            sent += joined.endpoint.send(stream[sent : sent + 1500])
    joined.at.reactor.watch(joined.down.fd, IN, joined.down)
    most = moved = 0

    def turned() -> bool:
        nonlocal most, moved
        most, moved = max(most, joined.down.moved - moved), joined.down.moved
        joined.got()
        return moved >= sent // (1000 + LENGTH) * 1000

    joined.at.until(turned)
    assert most <= 1000 + 1500


# -- opening: its end -----------------------------------------------------------------------------------


def test_an_end_behind_full_records_is_heard(joined: Joined) -> None:
    """What the source took from the kernel with them is asked for, since epoll does not tell of it."""
    data = bytes(2 * RECORD - LENGTH)
    joined.endpoint.send(piece(data))
    joined.endpoint.send(END)
    joined.at.until(lambda: joined.down.ended)
    assert joined.down.moved == len(data)
    assert not joined.down.splicing


def test_the_end_ends_the_session(joined: Joined) -> None:
    """Where the other way has ended before, the client's close is left to the session."""
    end_up(joined)
    joined.endpoint.send(piece(b"answer") + END)
    joined.at.until(lambda: joined.told.is_over)
    assert joined.told.ended == [joined.down]
    joined.gets(b"answer")
    assert not joined.client_is_told_the_end()


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("said", "delivered"),
    [
        (b"", b""),
        (b"\0", b""),
        (b"\0\0\0\5", b""),
        (piece(b"half of it")[:-4], b"half o"),
        (piece(b"all of it"), b"all of it"),
        (piece(bytes(2 * RECORD))[: RECORD + LENGTH], bytes(RECORD)),
    ],
    ids=["at once", "in a length", "behind a length", "in a piece", "between pieces", "behind a full record"],
)
def test_a_truncation_is_passed_on_as_a_reset(
    joined: Joined, said: bytes, delivered: bytes, cut: Callable[[TlsSocket], None]
) -> None:
    """A connection that ends before the end was said was cut, however it ends; what came before is moved."""
    joined.at.reactor.unwatch(joined.down.fd)
    joined.endpoint.send(said)
    cut(joined.endpoint)
    joined.at.reactor.watch(joined.down.fd, IN, joined.down)
    joined.at.until(lambda: joined.told.is_over)
    assert joined.told.reset == [(joined.down, False)]
    assert joined.down.moved == len(delivered)
    joined.gets(delivered)
    assert not joined.client_is_told_the_end()


@pytest.mark.parametrize("cut", [end_of_wire, say_goodbye])
def test_a_truncation_behind_bytes_without_room(joined: Joined, cut: Callable[[TlsSocket], None]) -> None:
    """They are delivered first, and the reset is not forgotten meanwhile."""
    joined.accepted.room.refusals = 3
    joined.endpoint.send(piece(b"half of it")[:-4])
    cut(joined.endpoint)
    joined.at.until(lambda: joined.told.is_over)
    assert joined.told.reset == [(joined.down, False)]
    joined.gets(b"half o")
    assert joined.down.moved == 6


def test_a_record_that_was_tampered_with_is_a_reset(joined: Joined) -> None:
    """What cannot be opened is no end either."""
    joined.endpoint.send(piece(b"good"))
    write_raw(joined.endpoint, RECORD_HEAD + bytes(0x40))
    joined.at.until(lambda: joined.told.is_over)
    assert joined.told.reset == [(joined.down, False)]
    joined.gets(b"good")


def test_an_end_that_the_client_cannot_be_told(joined: Joined) -> None:
    """A client that was reset meanwhile is a loss; what it had sent before is delivered, and no end."""
    joined.at.reactor.unwatch(joined.up.fd)
    abort(joined.client)
    joined.at.until(lambda: is_reset(joined.accepted))
    joined.endpoint.send(END)
    joined.at.until(lambda: joined.down.ended)
    assert joined.told.lost == [joined.down]
    assert joined.down.is_sink_lost
    joined.comes_to_rest()
    joined.at.reactor.watch(joined.up.fd, IN, joined.up)
    joined.at.until(lambda: joined.told.is_over)
    joined.comes_to_rest()
    assert joined.heard() == b""


# -- opening: after its end -----------------------------------------------------------------------------


@pytest.mark.parametrize("after", [b"x", END, piece(b"more")])
@pytest.mark.parametrize("is_same_record", [False, True])
def test_bytes_after_the_end_are_a_reset(joined: Joined, after: bytes, is_same_record: bool) -> None:
    """While the other way lives nothing may follow: who sends it does not keep to the protocol."""
    if is_same_record:
        joined.endpoint.send(piece(b"answer") + END + after)
    else:
        joined.endpoint.send(piece(b"answer") + END)
        joined.at.until(lambda: joined.down.ended)
        joined.endpoint.send(after)
    joined.at.until(lambda: joined.told.is_over)
    assert joined.told.reset == [(joined.down, False)]
    joined.gets(b"answer")
    assert joined.down.moved == 6


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("is_held", [False, True])
def test_a_peer_that_is_gone_after_the_end_is_a_reset(
    joined: Joined, cut: Callable[[TlsSocket], None], is_held: bool
) -> None:
    """The other way cannot reach it any more, and must not wait until it has something to say."""
    end_down(joined)
    if is_held:
        joined.connection.room.refusals = 1 << 30
        joined.client.sendall(b"question")
        joined.at.until(lambda: joined.up.held)
    cut(joined.endpoint)
    joined.at.until(lambda: joined.told.is_over)
    assert not joined.told.ended


def test_part_of_a_record_after_the_end_is_nothing_yet(joined: Joined) -> None:
    """Only what a whole record says counts; the wait for it does not spin, and the other way goes on."""
    end_down(joined)
    write_raw(joined.endpoint, RECORD_HEAD)
    joined.comes_to_rest()
    assert not joined.told.is_over
    joined.client.sendall(b"question")
    joined.hears(piece(b"question"))


def test_what_tls_says_of_itself_after_the_end_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that carry no bytes, as tickets and a new request for a certificate, are not the session's."""
    monkeypatch.setattr(client_context(), "post_handshake_auth", True)
    with join() as joined:
        end_down(joined)
        records = joined.endpoint._records
        records.verify_client_post_handshake()  # type: ignore[attr-defined]
        records.do_handshake()  # asks
        wait_unread(joined.connection)
        joined.at.until(lambda: unread(joined.endpoint))  # the answer
        assert joined.heard() == b"", "two tickets go back"
        wait_unread(joined.connection)
        joined.comes_to_rest()
        assert not unread(joined.connection)
        assert not joined.told.is_over
        joined.client.sendall(b"question")
        end_up(joined)
        assert joined.told.ended == [joined.up]
        joined.hears(piece(b"question") + END)


def wait_unread(end: TlsSocket) -> None:
    """Wait until something has reached this end, without a turn of the loop."""
    assert select.select([end], [], [], PATIENCE)[0]


def unread(end: TlsSocket) -> bool:
    """Whether something reaches this end's kernel, and waits there."""
    with socket.socket(fileno=os.dup(end.fileno())) as wire:
        wire.settimeout(0.0)
        try:
            return bool(wire.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False


@pytest.mark.parametrize("is_same_record", [False, True])
def test_what_follows_the_last_end_is_left(joined: Joined, is_same_record: bool) -> None:
    """Once both ways have ended, the connection's next words are for who has it then."""
    end_up(joined)
    joined.at.reactor.unwatch(joined.down.fd)
    if is_same_record:
        joined.endpoint.send(piece(b"answer") + END + b"next")
    else:
        joined.endpoint.send(piece(b"answer") + END)
        joined.endpoint.send(b"next")
    joined.at.reactor.watch(joined.down.fd, IN, joined.down)
    joined.at.until(lambda: joined.told.is_over)
    assert joined.told.ended == [joined.down]
    assert joined.connection.pending() is is_same_record
    joined.at.until(lambda: joined.connection.pending() or unread(joined.connection))
    assert joined.connection.recv(100) == b"next"
    joined.gets(b"answer")


@pytest.mark.parametrize("is_down_first", [False, True])
def test_a_connection_serves_one_session_after_the_other(is_down_first: bool) -> None:
    """When both ways have ended nothing of them is left in it."""
    with join() as first:
        for turn in range(3):
            joined = Joined(first.at, first.connection, first.endpoint) if turn else first
            joined.client.sendall(b"question")
            joined.endpoint.send(piece(b"answer"))
            for end in (end_down, end_up) if is_down_first else (end_up, end_down):
                end(joined)
            joined.hears(piece(b"question") + END)
            joined.gets(b"answer")
            assert joined.told.ended == [joined.up if is_down_first else joined.down]
            assert not joined.connection.pending()
            joined.client.close()
            joined.accepted.close()


# -- at rest --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_ended", ["nothing", "up", "down"])
def test_a_session_that_is_silent_does_not_spin(joined: Joined, has_ended: str) -> None:
    """Whichever way has ended, an end is reported once."""
    if has_ended != "nothing":
        {"up": end_up, "down": end_down}[has_ended](joined)
    joined.comes_to_rest()
    assert not joined.told.is_over


def test_a_client_that_is_gone_behind_its_end_does_not_spin(joined: Joined) -> None:
    """Both FINs of the plain side have passed, which epoll would tell in every turn."""
    end_up(joined)
    end_down(joined)
    assert joined.told.ended == [joined.down]
    joined.client.close()
    joined.comes_to_rest()
