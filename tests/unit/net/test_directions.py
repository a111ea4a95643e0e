"""Directions one step at a time, over the kernel of the simulations with its dice taken out."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from appliance.net import relay
from appliance.net.pipes import PipePool
from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.relay import COPY_BYTES, SHORT_READS, SPLICE_FROM, SPLICE_LEAST, Direction, Relay
from tests.sim.kernel import Kernel, Wire

if TYPE_CHECKING:
    import select

    from appliance.net.sockets import Socket

ROOM = 1 << 22


class Orderly(random.Random):
    """Dice that show what was asked for: reads and writes are whole."""

    def random(self) -> float:
        return 0.0


@dataclass
class Told:
    """The session as its directions see it."""

    ended: list[Direction] = field(default_factory=list)
    reset: tuple[Direction, bool] | None = None
    lost: Direction | None = None
    first: int = 0

    def relay_ended(self, last: Direction) -> None:
        self.ended.append(last)

    def relay_reset(self, by: Direction, *, as_sink: bool) -> None:
        self.reset = by, as_sink

    def sink_lost(self, direction: Direction) -> None:
        self.lost = direction

    def first_bytes(self, direction: Direction) -> None:
        assert direction.moved == 0
        self.first += 1

    def on_fault(self) -> None:
        raise AssertionError


class Both:
    """Two wires and the directions between them."""

    def __init__(self, kernel: Kernel, pipes: int) -> None:
        self.kernel = kernel
        self.faults: list[BaseException] = []
        self.reactor = Reactor(self.faults.append, lambda: kernel.now)
        self.reactor._epoll.close()
        self.reactor._epoll = cast("select.epoll", kernel)
        self.pipes = PipePool(pipes)
        self.told = Told()
        self.client, self.connection = kernel.open(ROOM), kernel.open(ROOM)
        shared = Relay(self.reactor, self.pipes)
        client, connection = cast("Socket", self.client), cast("Socket", self.connection)
        self.up = Direction(shared, self.told, client, connection)
        self.down = Direction(shared, self.told, connection, client)
        self.up.back, self.down.back = self.down, self.up
        for way in (self.up, self.down):
            self.reactor.watch(way.fd, IN, way)

    def turn(self, times: int = 1) -> None:
        """Turn the loop; a direction's state is looked at anew afterwards."""
        for _ in range(times):
            self.reactor.turn(0.0)
        assert not self.faults, self.faults

    def watched(self, wire: Wire) -> int | None:
        return self.kernel.watched.get(wire.fd)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    kernel = Kernel(Orderly(), hesitation=0.0)
    monkeypatch.setattr(relay, "os", kernel)
    made = Both(kernel, pipes=4)
    yield made
    for way in (made.up, made.down):
        way.stop()
    made.pipes.trim()
    assert len(made.pipes) == 0


def test_a_large_read_begins_splicing(both: Both) -> None:
    """A read of SPLICE_FROM does, one byte less is copied on; O_NONBLOCK is set on both sockets by then."""
    both.client.say(bytes(SPLICE_FROM - 1))
    both.turn()
    assert [way.splicing for way in (both.up, both.down)] == [False, False]
    both.client.say(bytes(SPLICE_FROM))
    both.turn()
    assert [way.splicing for way in (both.up, both.down)] == [True, False]
    assert both.client.non_blocking
    assert both.connection.non_blocking


def test_short_reads_end_splicing(both: Both) -> None:
    """A few short reads in a row go back to copying; a long one in between begins the count anew."""
    both.client.say(bytes(COPY_BYTES))
    both.turn()
    for size in [SPLICE_LEAST - 1] * (SHORT_READS - 1) + [SPLICE_LEAST] + [SPLICE_LEAST - 1] * SHORT_READS:
        assert both.up.splicing
        both.client.say(bytes(size))
        both.turn()
    assert not both.up.splicing
    assert both.connection.got == both.client.told


def test_no_pipe_is_kept_while_nothing_is_held(both: Both) -> None:
    """An idle direction that splices holds no fds."""
    both.client.say(bytes(COPY_BYTES))
    both.turn()
    both.client.say(bytes(COPY_BYTES))
    both.turn()
    assert both.up.splicing
    assert both.up.pipe is None


def test_held_bytes_are_bounded_by_one_read(both: Both) -> None:
    """A sink that takes nothing leaves a buffer's worth held, the source unwatched, the rest unread."""
    both.connection.room = 0
    both.client.say(bytes(COPY_BYTES * 3))
    both.turn(5)
    assert both.up.held == COPY_BYTES
    assert len(both.client.inbox) == COPY_BYTES * 2
    assert both.watched(both.client) == 0
    assert both.watched(both.connection) == IN | OUT


def test_one_way_does_not_wait_for_the_other(both: Both) -> None:
    """While one direction is throttled the other one moves."""
    both.connection.room = 0
    both.client.say(bytes(COPY_BYTES))
    both.turn()
    both.connection.say(b"answer")
    both.turn()
    assert both.client.got == b"answer"
    assert both.up.throttled
    assert not both.down.throttled


def test_a_half_close_is_passed_on_and_the_answer_comes_back(both: Both) -> None:
    """EOF of the client is one FIN to the endpoint; what the endpoint says afterwards still arrives."""
    both.client.say(b"question")
    both.client.fin = True
    both.turn(3)
    assert both.connection.got == b"question"
    assert both.connection.shut
    assert both.told.ended == []
    both.connection.say(b"answer")
    both.turn()
    both.connection.fin = True
    both.turn()
    assert both.client.got == b"answer"
    assert both.told.ended == [both.down]
    assert not both.client.shut, "it is closed next: the FIN comes with that"


def test_eof_waits_for_what_is_held(both: Both) -> None:
    """The FIN is passed on after the last byte, not before."""
    both.connection.room = 3
    both.client.say(b"question")
    both.client.fin = True
    both.turn(3)
    assert not both.connection.shut
    both.connection.room = 100
    both.turn(2)
    assert both.connection.got == b"question"
    assert both.connection.shut


def test_a_hang_up_does_not_spin(both: Both) -> None:
    """Both FINs of a throttled source have passed: its fd leaves the epoll set until it is read again."""
    both.connection.fin = True  # the client's socket is shut down by us
    both.turn()
    assert both.client.shut
    both.connection.room = 0
    both.client.say(b"held")
    both.turn()
    both.client.say(b" and unread")
    both.client.fin = True
    both.turn(2)
    assert both.up.detached
    assert both.watched(both.client) is None
    both.connection.room = 100
    both.turn(3)
    assert both.connection.got == b"held and unread"
    assert both.told.ended[:1] == [both.up]


def test_a_reset_of_the_source_is_told(both: Both) -> None:
    """What came before it is delivered first."""
    both.client.say(b"last words")
    both.client.reset()
    both.turn()
    assert both.told.reset is None
    both.turn()
    assert both.connection.got == b"last words"
    assert both.told.reset == (both.up, False)


def test_a_reset_of_a_throttled_source_is_told(both: Both) -> None:
    """ERR comes with IN off as well: the other side learns at once that the client is gone."""
    both.connection.room = 0
    both.client.say(b"held")
    both.turn()
    both.client.reset()
    both.turn()
    assert both.told.reset == (both.up, False)


def test_a_lost_sinks_answer_is_delivered(both: Both) -> None:
    """A server that says "413" and resets while the client is uploading is heard."""
    both.connection.room = 0
    both.client.say(b"upload")
    both.turn()
    both.connection.say(b"413")
    both.connection.reset()
    both.turn(3)
    assert both.client.got == b"413"
    assert both.told.lost is both.up
    assert both.told.reset is None


@pytest.mark.parametrize("first", ["client", "endpoint"])
def test_an_answer_before_a_reset_meets_a_half_close(both: Both, first: str) -> None:
    """The FIN that cannot be passed on any more drops nothing of what the endpoint had said."""
    both.connection.say(b"answer")
    both.client.fin = True
    both.connection.reset()
    if first == "client":
        both.up.on_event(IN)
        assert both.told.reset is None, "the session would end here"
    both.turn(4)
    assert both.client.got == b"answer"


def test_a_lost_sinks_last_words_wait_for_a_slow_reader(both: Both) -> None:
    """Also what is held for a client that does not read just now is delivered before the end."""
    both.client.room = 4
    both.connection.say(b"413 go away")
    both.turn()
    assert both.down.held == 7
    both.connection.room = 0
    both.client.say(b"upload")
    both.turn()
    assert both.up.held
    both.connection.reset()
    both.turn(3)
    assert both.told.lost is both.up
    assert both.told.reset is None, "the session would end here"
    both.client.room = 100
    both.turn(3)
    assert both.client.got == b"413 go away"


def test_an_urgent_mark_stops_nothing(both: Both) -> None:
    """splice(2) never passes one; recv does, and tells the end from it."""
    both.client.say(bytes(COPY_BYTES))
    both.turn()
    assert both.up.splicing
    both.client.mark = 0
    both.client.say(b"after the mark")
    both.client.fin = True
    both.turn(3)
    assert both.connection.got == both.client.told
    assert both.connection.shut


def test_a_filtered_splice_is_not_tried_again(both: Both) -> None:
    """EINVAL (or a seccomp filter's EPERM) makes the worker copy from then on, with nothing lost."""
    both.kernel.unspliceable = True
    for _ in range(3):
        both.client.say(bytes(COPY_BYTES))
        both.turn()
    assert both.connection.got == both.client.told
    assert not both.up.relay.can_splice
    assert not both.up.splicing


def test_activity_is_the_last_byte(both: Both) -> None:
    """Bytes that are read, or written after a wait, count as activity; waiting does not."""
    both.kernel.now += 10
    both.client.say(b"x")
    both.turn()
    assert both.up.active == both.kernel.now
    both.connection.room = 0
    both.client.say(b"held")
    both.turn()
    held_at = both.kernel.now
    both.kernel.now += 10
    both.turn()
    assert both.up.active == held_at
    both.connection.room = 100
    both.turn()
    assert both.up.active == both.kernel.now


def test_the_first_byte_is_told_before_it_is_counted(both: Both) -> None:
    """Once for each direction, when bytes move at once."""
    for _ in range(3):
        both.client.say(b"x")
        both.turn()
    assert both.told.first == 1


def test_no_byte_of_a_stopped_session_stays_in_a_pipe(both: Both) -> None:
    """A pipe that holds bytes when its session ends is closed, not lent on."""
    both.client.say(bytes(COPY_BYTES))
    both.turn()
    both.connection.room = 0
    both.client.say(b"secret")
    both.turn()
    assert both.up.pipe is not None
    assert len(both.pipes) == 1
    both.up._drop_held()
    assert len(both.pipes) == 0
