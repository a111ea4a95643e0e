"""Sessions over the kernel of dice, and a shadow that knows what every one of them must look like."""

import array
import fcntl
import random
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from socket import AF_INET, AF_UNIX
from typing import TYPE_CHECKING, cast

from appliance.net.dial import Caller
from appliance.net.pipes import PipePool
from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.relay import Direction, Relay
from appliance.net.session import Route, Session, Sessions
from appliance.net.sockets import Endpoint, Socket
from appliance.outcome import LEGAL, Cause, Stage
from tests.sim.kernel import Kernel, Wire

if TYPE_CHECKING:
    import select

SMALL_COPY = 64
SMALL_FROM = 32
SMALL_LEAST = 16
"""COPY_BYTES, SPLICE_FROM and SPLICE_LEAST of a simulation: every mover is reached with a few bytes."""

IDLE = 60.0
PAGE = 4096
ORDERLY = frozenset({Cause.CLIENT_EOF, Cause.ENDPOINT_EOF})


@dataclass
class Dialled:
    """A dialling that succeeds at once."""

    caller: Caller
    reactor: Reactor
    wire: Wire
    watched: bool
    family: int
    attempts: int = 1
    endpoint: Endpoint | None = None
    started: float = 0.0
    deadline: float = 0.0

    def go(self) -> None:
        self.endpoint = Endpoint(self.family, "/endpoint", "unix:/endpoint")
        self.started = self.reactor.now
        if self.watched:
            self.reactor.watch(self.wire.fd, OUT, self)
        self.caller.dialled(cast("Socket", self.wire), self.endpoint, watched=self.watched)

    def on_event(self, events: int) -> None:
        raise AssertionError(f"{events:#x} for a connection that was not handed over")

    def on_fault(self) -> None:
        """Seen in World.faults."""

    def timed_out(self) -> None:
        raise AssertionError("a dialling that was over timed out")

    def abandon(self) -> None:
        raise AssertionError("a dialling that was over was abandoned")


@dataclass(eq=False)
class Pair:
    """Both wires of a session, and its end."""

    client: Wire
    connection: Wire
    moved_at: float
    session: Session | None = None
    total: int = 0
    ends: int = 0
    stage: Stage | None = None
    cause: Cause | None = None
    moved: tuple[int, int] = (0, 0)
    was_lost: bool = False
    was_idle: bool = False

    @property
    def wires(self) -> tuple[Wire, Wire]:
        return self.client, self.connection


class World:
    """Some sessions on one loop."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.kernel = Kernel(self.dice)
        self.kernel.hesitation = self.dice.choice((0.0, 0.1, 0.4))
        self.kernel.unspliceable = self.dice.random() < 0.1
        self.faults: list[BaseException] = []
        self.reactor = Reactor(self.faults.append, lambda: self.kernel.now)
        self.reactor._epoll.close()
        self.reactor._epoll = cast("select.epoll", self.kernel)
        self.relay = Relay(self.reactor, PipePool(self.dice.choice((0, 1, 8)), PAGE))
        self.sessions = Sessions(10, self._ended)
        self.route = Route("rule", "listener", self, IDLE, self.relay, self.sessions)
        self.pairs: list[Pair] = []

    # -- sessions -------------------------------------------------------------------------------------

    def open(self) -> None:
        """Accept a client, and dial its endpoint."""
        rooms = self.dice.choices((10, 200, 5000), k=2)
        pair = Pair(self.kernel.open(rooms[0]), self.kernel.open(rooms[1]), self.reactor.now)
        self.pairs.append(pair)
        pair.session = Session(self.route, cast("Socket", pair.client), "client")
        pair.session.start()

    def dial(self, caller: Caller) -> Dialled:
        """Be the dialer."""
        watched, family = self.dice.random() < 0.5, self.dice.choice((AF_UNIX, AF_INET))
        return Dialled(caller, self.reactor, self.pairs[-1].connection, watched, int(family))

    def _ended(self, session: Session) -> None:
        pair = next(pair for pair in self.pairs if pair.session is session)
        pair.ends += 1
        pair.stage, pair.cause = session.stage, session.cause
        pair.moved = session.bytes_up, session.bytes_down
        pair.was_lost = session.lost is not None
        pair.was_idle = self.kernel.now - pair.moved_at >= IDLE

    def live(self) -> list[Pair]:
        return [pair for pair in self.pairs if not pair.ends]

    # -- steps ----------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let something happen, anything."""
        pairs = self.live()
        if not pairs or (len(pairs) < 3 and self.dice.random() < 0.03):
            self.open()
        elif self.dice.random() < 0.5:
            self.turn()
        else:
            self._peer_acts(self.dice.choice(self.dice.choice(pairs).wires))

    def _peer_acts(self, wire: Wire) -> None:
        act = self.dice.random()
        if act < 0.5 and wire.speaks:
            wire.say(self.dice.randbytes(self.dice.choice((1, 15, SMALL_COPY, 300, 3000))))
        elif act < 0.9:
            wire.room += self.dice.choice((1, 50, 1000, 8000))
        elif act < 0.95 and wire.speaks:
            wire.fin = True
        elif act < 0.965 and not wire.was_reset:
            wire.reset()
        elif act < 0.98 and wire.speaks and wire.mark is None:
            wire.mark = len(wire.inbox)
            wire.say(b"!")
        elif act < 0.99:
            self.kernel.now += self.dice.uniform(0, IDLE)

    def turn(self) -> None:
        """Turn the loop once, and look at everything."""
        self.reactor.turn(0.0)
        self.check()

    def settle(self) -> None:
        """Turn until the loop would sleep: with peers that do nothing it must come to that."""
        self.kernel.hesitation = 0.0
        for _ in range(2000):
            if not any(self.kernel._ready(*watch) for watch in self.kernel.watched.items()):
                return
            self.turn()
        raise AssertionError(f"the loop spins on {self.kernel.watched}")

    def finish(self) -> None:
        """Let the peers read everything and say goodbye; each session has to end by itself."""
        self.settle()
        for pair in self.live():
            for wire in pair.wires:
                wire.room += 1 << 20
                wire.fin = True
        self.settle()
        assert not self.live()

    # -- the shadow -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Hold what is held after every turn."""
        assert not self.faults, self.faults
        for pair in self.pairs:
            if pair.ends:
                continue
            total = sum(len(wire.got) + len(wire.told) - len(wire.inbox) for wire in pair.wires)
            if total != pair.total:
                pair.total, pair.moved_at = total, self.kernel.now
            assert pair.session is not None
            assert pair.session in self.sessions.live
            for way, source, sink in self._ways(pair):
                self._check_way(way, source, sink)
        for pipe in self.relay.pipes._free:
            assert bytes_in(pipe.read_fd) == 0

    def _ways(self, pair: Pair) -> Iterator[tuple[Direction, Wire, Wire]]:
        assert pair.session is not None
        assert pair.session.up is not None
        assert pair.session.down is not None
        yield pair.session.up, pair.client, pair.connection
        yield pair.session.down, pair.connection, pair.client

    def _check_way(self, way: Direction, source: Wire, sink: Wire) -> None:
        assert way.held == self._bytes_held(way)
        if not way.ended:
            assert len(sink.got) + way.held + len(source.inbox) == len(source.told)
        source_is, sink_is = self.kernel.watched.get(source.fd, 0), self.kernel.watched.get(sink.fd, 0)
        if way.held:
            assert not source_is & IN, "no back-pressure"
            assert sink_is & OUT, "held for ever"
        else:
            assert not sink_is & OUT, "nothing to write"
            assert bool(source_is & IN) is not way.ended

    def _bytes_held(self, way: Direction) -> int:
        """Count what is held where it is held, and see that it is bounded."""
        if way.pipe is None:
            assert len(way.rest) <= SMALL_COPY
            return len(way.rest)
        assert way.pipe not in self.relay.pipes._free
        assert not way.rest
        held = bytes_in(way.pipe.read_fd)
        assert held <= way.pipe.capacity == PAGE
        return held

    def check_end(self, pair: Pair) -> None:
        """Hold what is held of a session that has ended."""
        client, connection = pair.wires
        assert pair.ends == 1
        assert pair.stage is Stage.RELAY
        assert pair.cause is not None
        assert pair.cause in LEGAL[pair.stage]
        assert pair.moved == (len(connection.got), len(client.got))
        assert all(wire.closed and wire.aborts is (pair.cause not in ORDERLY) for wire in pair.wires)
        assert client.told.startswith(connection.got)
        assert connection.told.startswith(client.got)
        match pair.cause:
            case Cause.CLIENT_EOF | Cause.ENDPOINT_EOF:
                assert (client.told, connection.told) == (connection.got, client.got)
                assert connection.shut is (pair.cause is Cause.CLIENT_EOF)
                assert client.shut is (pair.cause is Cause.ENDPOINT_EOF)
            case Cause.CLIENT_RESET:
                self._check_reset(pair, client, connection)
            case Cause.ENDPOINT_RESET:
                self._check_reset(pair, connection, client)
            case _:
                assert pair.cause is Cause.IDLE_TIMEOUT
                assert pair.was_idle

    def _check_reset(self, pair: Pair, lost: Wire, other: Wire) -> None:
        assert lost.was_reset
        if pair.was_lost and not other.was_reset and not pair.was_idle:
            assert other.got == lost.told, "what it had sent before is delivered first"

    def check_nothing_left(self) -> None:
        """Hold that the sessions are gone without a trace."""
        assert not self.sessions.live
        assert not self.kernel.wires
        assert not self.kernel.watched
        assert not len(self.reactor)
        assert not len(self.reactor.timers)
        pipes = self.relay.pipes
        assert len(pipes) == len(pipes._free)
        pipes.trim()
        assert not len(pipes)


def bytes_in(fd: int) -> int:
    """Count the bytes in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]
