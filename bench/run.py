"""The order of a run: repetitions, loads and relays, each relay started anew for each load."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.account import Disturbance
from bench.datagrams import measure_datagrams, measure_flows, measure_trains
from bench.endpoints import UDP_LOADS, Bench
from bench.idle import measure_idle
from bench.loads import Numbers, measure_bulk, measure_connections, measure_requests
from bench.ports import measure_ports
from bench.process import FailedError
from bench.relays import DATAGRAMS, DIRECT, FLOWS, IDLE, PORTS, TRAINS, Kind, Running, StartError, running

MEASURES: dict[str, Callable[[Bench, Running], Numbers]] = {
    "bulk": measure_bulk,
    "requests": measure_requests,
    "connections": measure_connections,
    DATAGRAMS: measure_datagrams,
    TRAINS: measure_trains,
    FLOWS: measure_flows,
    PORTS: measure_ports,
}
LOADS = (IDLE, *MEASURES)
# What a relay holds, and when it is ready: the bare connection has neither.
HOLDINGS = (IDLE, PORTS)
# Others using more than this part of the machine show in p99: one time slice of 4 ms is ten requests' time.
DISTURBED = 0.02
ATTEMPTS = 3
# Two connected sockets are 2 x (TCP 2,368 + sock_inode_cache 832 + filp 192 + dentry 192) on Linux 6.18;
# a kernel that needs less by a third would be news.
LEAST_KERNEL_BYTES = 5_000


def takes_part(kind: Kind, load: str) -> bool:
    """Tell whether a relay is measured under a load."""
    return not (load in UDP_LOADS and kind.no_udp) and not (load in HOLDINGS and kind.key == DIRECT)


def rotated(kinds: Sequence[Kind], repetition: int) -> list[Kind]:
    """Put the relays into this repetition's order: each comes first, and last, as often as the others."""
    start = repetition % len(kinds) if kinds else 0
    return [*kinds[start:], *kinds[:start]]


@dataclass(slots=True)
class Run:
    """One run of the benchmark: what to measure, and what was measured so far."""

    bench: Bench
    kinds: list[Kind]
    loads: tuple[str, ...]
    directory: Path
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    caches: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    discarded: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    others: list[float] = field(default_factory=list)
    repeated: int = 0
    spare: int = 0
    _turn: int = 0

    def repeat(self, repetitions: int) -> None:
        """Run every relay under every load, `repetitions` times.

        Idle sessions come before all else: the other loads leave time-wait sockets, and the kernel memory of
        their ports, behind for a minute.
        """
        parts = {load: [kind for kind in self.kinds if takes_part(kind, load)] for load in self.loads}
        self.spare = sum(map(len, parts.values())) * repetitions // 8
        for loads in (
            [load for load in self.loads if load == IDLE],
            [load for load in self.loads if load != IDLE],
        ):
            for repetition in range(repetitions):
                for load in loads:
                    say(f"repetition {repetition + 1} of {repetitions}: {load}")
                    self.load(load, rotated(parts[load], repetition))

    def load(self, load: str, kinds: Sequence[Kind]) -> None:
        """Measure some relays under a load, in this order; what does not run clean is discarded and named."""
        for kind in kinds:
            if kind.key in self.failed:
                continue
            try:
                numbers = self._undisturbed(kind, load)
            except StartError as error:
                self.failed[kind.key] = str(error)
                say(f"  {kind.title}: LEFT OUT from here on: {error}")
            except (FailedError, TimeoutError) as error:
                self.discarded.append(f"{kind.title}, {load}: {error}")
                say(f"  {kind.title}: DISCARDED: {error}")
            else:
                for metric, number in numbers.items():
                    self.samples.setdefault(metric, {}).setdefault(kind.key, []).append(number)

    def _undisturbed(self, kind: Kind, load: str) -> Numbers:
        """Measure, again while others used the machine; of the attempts the least disturbed one counts."""
        attempts = [self.measured(kind, load)]
        while self.spare and attempts[-1][1] > DISTURBED and len(attempts) < ATTEMPTS:
            self.spare -= 1
            self.repeated += 1
            attempts.append(self.measured(kind, load))
        numbers, share = min(attempts, key=lambda attempt: attempt[1])
        self.others.append(share)
        return numbers

    def next_turn(self) -> int:
        """Count the starts: each takes other addresses."""
        self._turn += 1
        return self._turn

    def measured(self, kind: Kind, load: str) -> tuple[Numbers, float]:
        """Start a relay anew and measure it: its numbers, and others' part of the machine meanwhile."""
        turn = self.next_turn()
        directory = self.directory / f"{turn:04d}-{kind.key}-{load}"
        with running(kind, self.bench.ways(turn, load), directory, self.bench.cores) as relay:
            disturbance = Disturbance()
            numbers = self._idle(relay) if load == IDLE else MEASURES[load](self.bench, relay)
            return numbers, disturbance.share()

    def _idle(self, relay: Running) -> Numbers:
        user, by_cache = measure_idle(relay, self.bench.idle, self.bench.scale.sessions)
        numbers, kernel = {"idle_user": user}, sum(by_cache.values())
        if by_cache and kernel < LEAST_KERNEL_BYTES:
            raise FailedError(f"{kernel:.0f} bytes of kernel memory a session: others freed theirs meanwhile")
        for cache, size in by_cache.items():
            self.caches.setdefault(relay.kind.key, {}).setdefault(cache, []).append(size)
        return numbers | {"idle_kernel": kernel, "idle_total": user + kernel} if by_cache else numbers

    def quiet(self) -> dict[str, float]:
        """Tell how quiet the machine was: others' part of it, and how often that made us measure again."""
        return {
            "others_median": median(self.others) if self.others else 0.0,
            "others_most": max(self.others, default=0.0),
            "measured_again": self.repeated,
        }

    def median_caches(self) -> dict[str, dict[str, float]]:
        """Kernel bytes per idle session by relay and slab cache: medians over the repetitions."""
        return {
            relay: {cache: median(sizes) for cache, sizes in caches.items()}
            for relay, caches in self.caches.items()
        }


def say(text: str) -> None:
    """Tell whoever waits how far the run is; the report itself goes to stdout."""
    print(text, file=sys.stderr, flush=True)
