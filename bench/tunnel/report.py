"""From samples to the table of tunnels, the goals and JSON: encrypted by encrypted, plain by plain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.relays import DIRECT
from bench.report import Metric, Samples, Section, Value, aligned, cell, latencies, quiet_lines
from bench.tunnel.loads import ROUND_TRIP_MS
from bench.tunnel.pair import ENCRYPTED, PLAIN
from bench.tunnel.run import FORWARD, REFERENCES, TUNNELS

GROUPS = (ENCRYPTED, PLAIN)
# What Portway is held against: ssh is shown beside them, and is no peer.
PEERS = ("frp", "rathole")
FOOT = (
    "Medians of the repetitions; ± the farthest of them; the ratio is to the better of frp and rathole. "
    "CPU and memory are those of gateway and agent together."
)


def _bulk(streams: int) -> Section:
    return Section(
        "Bulk, 1 stream" if streams == 1 else f"Bulk, {streams} streams",
        tuple(
            metric
            for way, title in (("up", "up"), ("down", "down"))
            for metric in (
                Metric(f"bulk{streams}_{way}_gbps", title, "Gbit/s", 2, more_is_better=True),
                Metric(f"bulk{streams}_{way}_cpu", "CPU", "s/GB", 2),
            )
        ),
    )


def _load(title: str, key: str, each: str) -> Section:
    return Section(
        title,
        (
            Metric(f"{key}_rate", each, "1/s", 0, more_is_better=True),
            Metric(f"{key}_cpu", "CPU", "µs each", 0),
            *latencies(key),
        ),
    )


SECTIONS = (
    _bulk(1),
    _bulk(8),
    _load("Kept connections, 32", "requests", "requests"),
    _load("Kept connection, 1", "single", "requests"),
    _load("New sessions, 32 at a time", "connections", "sessions"),
    Section("First byte of a new session", latencies("first")),
    Section(
        f"First byte, {ROUND_TRIP_MS} ms away",
        (Metric("far_p50", "p50", "ms", 1), Metric("far_trips", "that is", "round trips", 2, ranked=False)),
    ),
    Section(
        "Memory of both ends",
        (
            Metric("memory_alone", "no session", "MB", 1),
            Metric("memory_full", "1,000 sessions", "MB", 1),
            Metric("memory_kernel", "and the kernel's for them", "MB", 1),
        ),
    ),
)
METRICS = {metric.key: metric for section in SECTIONS for metric in section.metrics}


@dataclass(frozen=True, slots=True)
class Goal:
    """What Portway's tunnel must reach: no worse than the best setting of these programs.

    With `plus` the limit is what the metric is without a tunnel, plus one round trip: `plus` on the bare
    connection, or where that is none, the amount `trip`.
    """

    metric: str
    title: str
    families: tuple[str, ...] = PEERS
    plus: str = ""
    trip: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal in one group: the limit and whose it is, what Portway reached; None where a side is missing."""

    goal: Goal
    group: str
    against: str
    limit: float | None
    reached: float | None

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None when that was not measured."""
        if self.limit is None or self.reached is None:
            return None
        if METRICS[self.goal.metric].more_is_better:
            return self.reached >= self.limit
        return self.reached <= self.limit


GOALS = (
    *(
        Goal(f"bulk{streams}_{way}_{part}", f"{title}, {streams} stream{'s' * (streams > 1)} {way}")
        for part, title in (("gbps", "throughput"), ("cpu", "CPU per byte"))
        for streams in (1, 8)
        for way in ("up", "down")
    ),
    Goal("first_p50", "first byte, p50", plus="single_p50"),
    Goal("far_p50", f"first byte, {ROUND_TRIP_MS} ms away", trip=ROUND_TRIP_MS),
    Goal("memory_full", "memory at 1,000 sessions", ("frp",)),
)


@dataclass(frozen=True, slots=True)
class Results:
    """Everything a run found."""

    tunnels: tuple[str, ...]
    samples: Samples
    absent: Mapping[str, str] = field(default_factory=dict)
    discarded: Sequence[str] = ()
    setting: Mapping[str, object] = field(default_factory=dict)
    quiet: Mapping[str, float] = field(default_factory=dict)


def members(group: str, families: Sequence[str]) -> list[str]:
    """List the tunnels of a group that are settings of these programs."""
    return [key for key, tunnel in TUNNELS.items() if tunnel.group == group and tunnel.family in families]


def best(
    metric: Metric, measured: Mapping[str, Sequence[float]], keys: Sequence[str]
) -> tuple[str, float] | None:
    """Find which of `keys` has the best median of a metric, and that median."""
    medians = {key: median(measured[key]) for key in keys if measured.get(key)}
    if not medians:
        return None
    found = (max if metric.more_is_better else min)(medians, key=lambda key: medians[key])
    return found, medians[found]


def values(metric: Metric, measured: Mapping[str, Sequence[float]], group: str) -> dict[str, Value]:
    """Sum up what a group's tunnels and the references reached; ratios are to the best peer's median."""
    peer = best(metric, measured, members(group, PEERS)) if metric.ranked else None
    return {
        key: Value(
            median(numbers),
            min(numbers),
            max(numbers),
            median(numbers) / peer[1] if peer and peer[1] > 0 and key in TUNNELS else None,
        )
        for key, numbers in measured.items()
        if numbers and (key not in TUNNELS or TUNNELS[key].group == group)
    }


def title(key: str) -> str:
    """Name a tunnel, or what it is held against."""
    return TUNNELS[key].title if key in TUNNELS else REFERENCES[key].title


def _median(samples: Samples, metric: str, key: str) -> float | None:
    numbers = samples.get(metric, {}).get(key)
    return median(numbers) if numbers else None


def verdict(goal: Goal, group: str, samples: Samples) -> Verdict:
    """Hold Portway's tunnel of a group against a goal, by the medians of this run."""
    (own,) = members(group, ("portway",))
    reached = _median(samples, goal.metric, own)
    if goal.plus or goal.trip:
        forward = _median(samples, goal.metric, FORWARD)
        trip = _median(samples, goal.plus, DIRECT) if goal.plus else goal.trip
        limit = None if forward is None or trip is None else forward + trip
        return Verdict(goal, group, "no tunnel + 1 round trip", limit, reached)
    peer = best(METRICS[goal.metric], samples.get(goal.metric, {}), members(group, goal.families))
    against, limit = (title(peer[0]), peer[1]) if peer else (" and ".join(goal.families), None)
    return Verdict(goal, group, against, limit, reached)


def verdicts(samples: Samples) -> list[Verdict]:
    """Hold Portway's tunnels against every goal, group by group."""
    return [verdict(goal, group, samples) for group in GROUPS for goal in GOALS]


def _section(section: Section, group: str, results: Results) -> list[str]:
    columns = [
        (metric, values(metric, results.samples.get(metric.key, {}), group)) for metric in section.metrics
    ]
    rows = [
        [title(key), *(text for metric, found in columns for text in cell(metric, found.get(key)))]
        for key in results.tunnels
        if any(key in found for _, found in columns)
    ]
    if not rows:
        return []
    head = [
        f"{section.title}, {group}",
        *(text for metric in section.metrics for text in (f"{metric.title} {metric.unit}", "±", "ratio")),
    ]
    return [*aligned([head, *rows]), ""]


def _verdict_row(item: Verdict) -> list[str]:
    metric = METRICS[item.goal.metric]

    def amount(number: float | None) -> str:
        return "-" if number is None else f"{number:.{metric.digits}f}"

    return [
        f"{item.goal.title}, {item.group}",
        item.against,
        f"{'at least' if metric.more_is_better else 'at most'} {amount(item.limit)}",
        amount(item.reached),
        metric.unit,
        {True: "met", False: "NOT MET", None: "not measured"}[item.met],
    ]


def table(results: Results) -> str:
    """Write the report as text: each load encrypted and plain, the goals, what is missing and why."""
    lines = [line for section in SECTIONS for group in GROUPS for line in _section(section, group, results)]
    head = ["Goal for Portway", "against", "limit", "reached", "", ""]
    lines += [*aligned([head, *map(_verdict_row, verdicts(results.samples))]), ""]
    lines += [FOOT]
    lines += quiet_lines(results.quiet)
    lines += [f"ABSENT     {name}: {reason}" for name, reason in results.absent.items()]
    lines += [f"DISCARDED  {text}" for text in results.discarded]
    return "\n".join(lines)


def document(results: Results) -> dict[str, object]:
    """Write the report as one JSON object."""
    return {
        "setting": results.setting,
        "quiet": results.quiet,
        "absent": results.absent,
        "discarded": results.discarded,
        "tunnels": {
            key: {"title": title(key), "group": TUNNELS[key].group if key in TUNNELS else None}
            for key in results.tunnels
        },
        "metrics": {
            key: {
                "unit": metric.unit,
                "more_is_better": metric.more_is_better,
                "samples": results.samples[key],
            }
            for key, metric in METRICS.items()
            if key in results.samples
        },
        "goals": [
            {
                "metric": item.goal.metric,
                "title": item.goal.title,
                "group": item.group,
                "against": item.against,
                "limit": item.limit,
                "reached": item.reached,
                "unit": METRICS[item.goal.metric].unit,
                "met": item.met,
            }
            for item in verdicts(results.samples)
        ],
    }
