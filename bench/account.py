"""What the kernel charges a relay's processes with: CPU time, user memory, descriptors."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SETTLE_INTERVAL_S = 0.05
SETTLE_DEADLINE_S = 5.0
# A relay that burns less than this share of a core has nothing left to do but its timers.
SETTLED_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Stat:
    """One /proc/PID/stat line: parent, whether it has work, own and waited-for children's CPU in seconds."""

    pid: int
    parent: int
    runnable: bool
    own_s: float
    children_s: float


def parse_stat(line: str) -> Stat:
    """Parse a /proc/PID/stat line (proc_pid_stat(5)); the name in brackets may hold any character."""
    pid, _, rest = line.partition(" ")
    fields = rest[rest.rindex(")") + 2 :].split()
    # state is field 3 of proc_pid_stat(5) and index 0 here: ppid 4, utime 14, stime 15, cutime 16, cstime 17.
    utime, stime, cutime, cstime = (int(field) for field in fields[11:15])
    return Stat(
        pid=int(pid),
        parent=int(fields[1]),
        runnable=fields[0] == "R",
        own_s=(utime + stime) / TICKS_PER_SECOND,
        children_s=(cutime + cstime) / TICKS_PER_SECOND,
    )


def parse_schedstat(text: str) -> float:
    """Seconds a task has run, from /proc/PID/task/TID/schedstat (nanoseconds in its first field)."""
    return int(text.split(maxsplit=1)[0]) / 1e9


def parse_pss(text: str) -> int:
    """Bytes of proportional set size, from /proc/PID/smaps_rollup."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no Pss line")


def descendants(roots: Iterable[int], parents: Mapping[int, int]) -> list[int]:
    """List the roots and every process below them; `parents` maps a pid to its parent's."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    tree: list[int] = []
    waiting = [pid for pid in roots if pid in parents]
    while waiting:
        pid = waiting.pop()
        tree.append(pid)
        waiting += children.get(pid, [])
    return tree


def read_stats() -> dict[int, Stat]:
    """Every process of the machine, by pid; one that ends while it is read is left out."""
    stats: dict[int, Stat] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = parse_stat((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
            stats[stat.pid] = stat
    return stats


def tree(roots: Iterable[int]) -> list[Stat]:
    """List the living processes of a relay: its roots and all below them."""
    stats = read_stats()
    parents = {pid: stat.parent for pid, stat in stats.items()}
    return [stats[pid] for pid in descendants(roots, parents)]


def task_seconds(pid: int) -> float:
    """Run time of a process's living threads, in seconds, to the nanosecond."""
    total = 0.0
    for task in (PROC / str(pid) / "task").iterdir():
        try:
            total += parse_schedstat((task / "schedstat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def cpu_seconds(roots: Iterable[int]) -> float:
    """CPU seconds the relay's processes have used since they started, ended children included.

    schedstat is exact but forgets threads that ended; stat keeps them, rounded down to ticks: the larger
    of the two is right. Ended children are in their parent's cutime and cstime once it has waited for them.
    """
    return _charged(tree(roots))


def _charged(stats: Iterable[Stat]) -> float:
    total = 0.0
    for stat in stats:
        try:
            total += max(task_seconds(stat.pid), stat.own_s) + stat.children_s
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def parse_steal(text: str) -> float:
    """Seconds the hypervisor ran something else while a core of ours had work, from /proc/stat."""
    return int(text.split(maxsplit=9)[8]) / TICKS_PER_SECOND


def outside(root: int, stats: Mapping[int, Stat]) -> list[Stat]:
    """List the processes that are neither `root` nor below it."""
    inside = set(descendants([root], {pid: stat.parent for pid, stat in stats.items()}))
    return [stat for pid, stat in stats.items() if pid not in inside]


def others_seconds() -> float:
    """CPU seconds used by all but this process and those below it; kernel threads and stolen time count."""
    return _charged(outside(os.getpid(), read_stats())) + parse_steal((PROC / "stat").read_text())


class Disturbance:
    """How much of the machine others use, from its making until it is asked."""

    def __init__(self) -> None:
        self._cores = os.cpu_count() or 1
        self._others, self._start = others_seconds(), time.monotonic()

    def share(self) -> float:
        """Others' part of all the cores' time so far."""
        elapsed = time.monotonic() - self._start
        share = (others_seconds() - self._others) / (elapsed * self._cores)
        # A process waited for while we read is in neither its own account nor yet in its parent's: all it
        # ever used seems to appear, or vanish, with the next reading.
        return min(1.0, max(0.0, share))


def settled_cpu_seconds(roots: tuple[int, ...], *, reap: bool) -> float:
    """CPU seconds once the relay has come to rest; `reap` waits for its forked children to end as well.

    schedstat of a running task lags by up to a tick, that of a sleeping one is exact: so ask a resting relay.
    """

    def at_rest(before: float, after: float) -> bool:
        if after - before > SETTLED_SHARE * SETTLE_INTERVAL_S:
            return False
        # One that burns nothing because others hold its core is not at rest.
        stats = tree(roots)
        return not any(stat.runnable for stat in stats) and not (reap and len(stats) > len(roots))

    return _settle(lambda: cpu_seconds(roots), at_rest)


def _settle(read: Callable[[], float], at_rest: Callable[[float, float], bool]) -> float:
    deadline = time.monotonic() + SETTLE_DEADLINE_S
    before = read()
    while time.monotonic() < deadline:
        time.sleep(SETTLE_INTERVAL_S)
        after = read()
        if at_rest(before, after):
            return after
        before = after
    raise TimeoutError(f"the relay did not come to rest within {SETTLE_DEADLINE_S:g} s")


def user_bytes(roots: Iterable[int]) -> int:
    """Proportional set size of the relay's processes: a page they share counts once, not once for each."""
    return sum(parse_pss((PROC / str(stat.pid) / "smaps_rollup").read_text()) for stat in tree(roots))


def descriptors(roots: Iterable[int]) -> int:
    """Open descriptors of the relay's processes; what two hold counts in each, as in their limits."""
    return sum(len(list((PROC / str(stat.pid) / "fd").iterdir())) for stat in tree(roots))
