"""The order of a run: repetitions, loads and tunnels, each started anew for each load, while time is."""

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.account import Disturbance
from bench.loads import Numbers
from bench.process import Address, Cores, Program, await_ready, free_port
from bench.relays import DIRECT, KINDS, PORTWAY, Kind, Running, running
from bench.run import Run, rotated, say
from bench.tunnel import frp, portway, rathole, ssh
from bench.tunnel.held import bare_growth, measure_memory
from bench.tunnel.loads import ROUND_TRIP_MS, measure_bulk, measure_far, measure_sessions
from bench.tunnel.pair import Tunnel, listens, running_pair

MEMORY, FAR, SESSIONS, BULK = "memory", "far", "sessions", "bulk"
LOADS = (MEMORY, FAR, SESSIONS, BULK)
# They are the same each time, so one repetition tells.
ONCE = (FAR,)
FORWARD = "forward"
# What a tunnel's first byte is held against: no relay at all, and Portway where no tunnel is needed.
REFERENCES = {
    DIRECT: KINDS[DIRECT],
    FORWARD: replace(KINDS[PORTWAY], key=FORWARD, title="Portway, no tunnel"),
}
TUNNELS: dict[str, Tunnel] = {
    tunnel.key: tunnel for tunnel in (*portway.TUNNELS, *frp.TUNNELS, *rathole.TUNNELS, *ssh.TUNNELS)
}
FIRST_BYTES = 150


def takes_part(kind: Kind, load: str) -> bool:
    """Tell whether a tunnel, or what it is held against, is measured under a load."""
    return kind.key in TUNNELS or load == SESSIONS or (load == FAR and kind.key != DIRECT)


def _as_it_is(address: Address) -> Address:
    return address


def _lengthened(stack: ExitStack, directory: Path, cores: Cores, to: Address) -> Address:
    """Put a long line before an address, until the stack ends: where it begins."""
    at = to[0], free_port(to[0])
    words = [to[0], str(at[1]), to[0], str(to[1]), str(ROUND_TRIP_MS / 2)]
    directory.mkdir(parents=True, exist_ok=True)
    line = Program(
        [sys.executable, "-m", "bench.tunnel.distance", *words], directory / "line.log", cores.load
    )
    stack.callback(line.end)
    await_ready([line], lambda: listens(at), "the long line")
    return at


def fits(spent_s: float, longest_s: float, limit_s: float) -> bool:
    """Tell whether another repetition, as long as the longest so far, ends in time."""
    return spent_s + longest_s <= limit_s


@dataclass(slots=True)
class TunnelRun(Run):
    """One run of the benchmark of tunnels; `limit_s` is how long it may take."""

    limit_s: float = 480.0
    _bare: int | None = None

    def repeat(self, repetitions: int) -> None:
        """Run every load with every tunnel, `repetitions` times or as often as the time allows."""
        parts = {load: [kind for kind in self.kinds if takes_part(kind, load)] for load in self.loads}
        self.spare = sum(map(len, parts.values())) * repetitions // 8
        self._bare = bare_growth(self.bench.idle, self.bench.scale.sessions)
        began, longest = time.monotonic(), 0.0
        # The other loads leave time-wait sockets, which are freed meanwhile: memory comes before all else.
        for loads in (
            [load for load in self.loads if load == MEMORY],
            [load for load in self.loads if load != MEMORY],
        ):
            for repetition in range(repetitions):
                started = time.monotonic()
                if not fits(started - began, longest, self.limit_s):
                    say(f"no time for more than {repetition} repetitions")
                    return
                for load in loads if not repetition else [each for each in loads if each not in ONCE]:
                    say(f"repetition {repetition + 1} of {repetitions}: {load}")
                    self.load(load, rotated(parts[load], repetition))
                longest = max(longest, time.monotonic() - started)

    def measured(self, kind: Kind, load: str) -> tuple[Numbers, float]:
        """Start a tunnel anew and measure it: its numbers, and others' part of the machine meanwhile."""
        turn = self.next_turn()
        directory = self.directory / f"{turn:04d}-{kind.key}-{load}"
        ways, cores = self.bench.ways(turn, load), self.bench.cores
        with ExitStack() as stack:
            far = load == FAR
            lengthened = partial(_lengthened, stack, directory, cores) if far else _as_it_is
            if kind.key in TUNNELS:
                started = running_pair(TUNNELS[kind.key], ways, directory, cores, lengthened)
            else:
                # Where no tunnel is, it is the endpoint that is far away.
                ways = [replace(way, to=lengthened(way.to)) for way in ways[:1]] if far else ways
                started = running(kind, ways, directory, cores)
            relay = stack.enter_context(started)
            disturbance = Disturbance()
            return self._numbers(relay, load), disturbance.share()

    def _numbers(self, relay: Running, load: str) -> Numbers:
        match load:
            case "memory":
                return measure_memory(relay, self.bench.idle, self.bench.scale.sessions, self._bare)
            case "far":
                return measure_far(self.bench, relay)
            case "sessions":
                return measure_sessions(self.bench, relay, FIRST_BYTES)
            case _:
                return measure_bulk(self.bench, relay)
