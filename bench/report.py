"""From samples to medians, ratios to the best peer, targets, a table and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.relays import DIRECT, KINDS, PORTWAY, SPLICE

# Samples by metric, then relay.
Samples = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing measured, and how it reads: `digits` after the point, more or less being better."""

    key: str
    title: str
    unit: str
    digits: int
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What Portway must reach: at most `limit` times the peer's median (the best peer's if None)."""

    metric: str
    title: str
    limit: float
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A relay's samples of one metric in short, and its ratio to the best peer (None for direct)."""

    median: float
    low: float
    high: float
    ratio: float | None

    @property
    def spread(self) -> float:
        """How far the sample farthest from the median lies from it, as a share of it."""
        return max(self.high - self.median, self.median - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target beside what was reached; `met` is None when either side was not measured."""

    target: Target
    against: str | None
    reached: float | None
    met: bool | None


@dataclass(frozen=True, slots=True)
class Results:
    """Everything a run found; `caches` is kernel bytes per idle session by relay and slab cache."""

    relays: tuple[str, ...]
    samples: Samples
    caches: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    discarded: Sequence[str] = ()
    setting: Mapping[str, object] = field(default_factory=dict)
    quiet: Mapping[str, float] = field(default_factory=dict)


def _latencies(load: str) -> tuple[Metric, ...]:
    return (
        Metric(f"{load}_p50", "p50", "µs", 0),
        Metric(f"{load}_p99", "p99", "µs", 0),
    )


def _bulk(metric: str) -> tuple[Metric, ...]:
    return (
        Metric(f"{metric}_gbps", "throughput", "Gbit/s", 1, more_is_better=True),
        Metric(f"{metric}_cpu", "relay CPU", "s/GB", 3),
    )


SECTIONS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    *(
        (f"Bulk, {streams}, {way}", _bulk(metric))
        for streams, metric_of in (("1 stream", "bulk"), ("4 streams", "bulk4"))
        for way, metric in (("to the endpoint", f"{metric_of}_up"), ("to the client", f"{metric_of}_down"))
    ),
    (
        "Keep-alive requests, 32 clients",
        (
            Metric("requests_rate", "requests", "1/s", 0, more_is_better=True),
            Metric("requests_cpu", "relay CPU", "µs each", 1),
            *_latencies("requests"),
        ),
    ),
    (
        "Keep-alive requests, 1 client",
        (
            Metric("single_rate", "requests", "1/s", 0, more_is_better=True),
            Metric("single_cpu", "relay CPU", "µs each", 1),
            *_latencies("single"),
        ),
    ),
    (
        "New connections, 32 at a time",
        (
            Metric("connections_rate", "connections", "1/s", 0, more_is_better=True),
            Metric("connections_cpu", "relay CPU", "µs each", 1),
            *_latencies("connections"),
        ),
    ),
    (
        "Idle session",
        (
            Metric("idle_user", "user", "bytes", 0),
            Metric("idle_kernel", "kernel slab", "bytes", 0),
            Metric("idle_total", "both", "bytes", 0),
        ),
    ),
)

TARGETS = (
    Target("bulk_up_cpu", "bulk CPU per byte, 1 stream, to the endpoint", 0.65, SPLICE),
    Target("bulk_down_cpu", "bulk CPU per byte, 1 stream, to the client", 0.65, SPLICE),
    Target("bulk4_up_cpu", "bulk CPU per byte, 4 streams, to the endpoint", 0.65, SPLICE),
    Target("bulk4_down_cpu", "bulk CPU per byte, 4 streams, to the client", 0.65, SPLICE),
    Target("requests_cpu", "CPU per keep-alive request, 32 clients", 1.05),
    Target("connections_cpu", "CPU per connection", 1.10),
    Target("idle_total", "memory per idle session, user and kernel", 0.6),
    Target("idle_user", "memory per idle session, user alone", 0.6),
    Target("requests_p99", "p99 of keep-alive requests, 32 clients", 1.2),
)


def best_peer(metric: Metric, samples: Mapping[str, Sequence[float]]) -> tuple[str, float] | None:
    """Find the peer with the best median of a metric, and that median; direct and Portway are none."""
    medians = {
        key: median(values) for key, values in samples.items() if key not in (DIRECT, PORTWAY) and values
    }
    if not medians:
        return None
    best = (max if metric.more_is_better else min)(medians, key=lambda key: medians[key])
    return best, medians[best]


def values(metric: Metric, samples: Mapping[str, Sequence[float]]) -> dict[str, Value]:
    """Each relay's median, spread and ratio to the best peer's median."""
    best = best_peer(metric, samples)
    return {
        key: Value(
            median=median(numbers),
            low=min(numbers),
            high=max(numbers),
            ratio=None if best is None or key == DIRECT or best[1] <= 0 else median(numbers) / best[1],
        )
        for key, numbers in samples.items()
        if numbers
    }


def verdict(target: Target, samples: Samples) -> Verdict:
    """Whether Portway reached a target, by the medians of this run."""
    metric = next(metric for _, metrics in SECTIONS for metric in metrics if metric.key == target.metric)
    measured = samples.get(target.metric, {})
    peers = {key: numbers for key, numbers in measured.items() if target.peer in (None, key)}
    best = best_peer(metric, peers)
    portway = measured.get(PORTWAY)
    if best is None or not portway or best[1] <= 0:
        return Verdict(target, None if best is None else best[0], None, None)
    reached = median(portway) / best[1]
    return Verdict(target, best[0], reached, reached <= target.limit)


def _cell(metric: Metric, value: Value | None) -> tuple[str, str, str]:
    if value is None:
        return "-", "", ""
    ratio = "" if value.ratio is None else f"{value.ratio:.2f}x"
    return f"{value.median:.{metric.digits}f}", f"±{value.spread:.0%}", ratio


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]


def _section(title: str, metrics: Sequence[Metric], results: Results) -> list[str]:
    columns = [(metric, values(metric, results.samples.get(metric.key, {}))) for metric in metrics]
    if not any(measured for _, measured in columns):
        return []
    head = [
        title,
        *(text for metric in metrics for text in (f"{metric.title} {metric.unit}", "±", "ratio")),
    ]
    rows = [
        [
            KINDS[key].title,
            *(text for metric, measured in columns for text in _cell(metric, measured.get(key))),
        ]
        for key in results.relays
    ]
    return [*_aligned([head, *rows]), ""]


def _target_row(item: Verdict) -> list[str]:
    return [
        item.target.title,
        KINDS[item.against].title if item.against else "-",
        f"{item.target.limit:.2f}x",
        "-" if item.reached is None else f"{item.reached:.2f}x",
        {True: "met", False: "NOT MET", None: "not measured"}[item.met],
    ]


def _target_lines(results: Results) -> list[str]:
    head = ["Target for Portway", "against", "at most", "reached", ""]
    return [*_aligned([head, *(_target_row(verdict(target, results.samples)) for target in TARGETS)]), ""]


def cache_lines(results: Results, least: float = 16.0) -> list[str]:
    """Break kernel bytes per idle session down by slab cache; below `least` in every relay is left out."""
    caches = [(KINDS[key].title, results.caches[key]) for key in results.relays if key in results.caches]
    most = {
        name: max(abs(sizes.get(name, 0.0)) for _, sizes in caches)
        for name in {n for _, c in caches for n in c}
    }
    shown = sorted((name for name, size in most.items() if size >= least), key=lambda name: -most[name])
    head = ["Kernel bytes per idle session", *(title for title, _ in caches)]
    rows = [[name, *(f"{sizes.get(name, 0.0):.0f}" for _, sizes in caches)] for name in shown]
    return [*_aligned([head, *rows]), ""]


def _quiet_lines(quiet: Mapping[str, float]) -> list[str]:
    if not quiet:
        return []
    share = f"{quiet['others_median']:.1%} of the machine (at most {quiet['others_most']:.1%})"
    return [
        f"Others used {share} meanwhile; {quiet['measured_again']:.0f} measurements were repeated for it."
    ]


def table(results: Results, *, detail: bool) -> str:
    """Write the report as text: a section per load, the targets, what is missing and why."""
    lines = [line for title, metrics in SECTIONS for line in _section(title, metrics, results)]
    lines += cache_lines(results) if detail and results.caches else []
    lines += _target_lines(results)
    lines += ["Medians of the repetitions; ± the farthest of them; the ratio is to the best peer's median."]
    lines += _quiet_lines(results.quiet)
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
        "metrics": {
            metric.key: {
                "title": f"{title}: {metric.title}",
                "unit": metric.unit,
                "relays": {
                    key: {
                        "median": value.median,
                        "min": value.low,
                        "max": value.high,
                        "ratio_to_best_peer": value.ratio,
                        "samples": list(results.samples[metric.key][key]),
                    }
                    for key, value in values(metric, results.samples.get(metric.key, {})).items()
                },
            }
            for title, metrics in SECTIONS
            for metric in metrics
            if metric.key in results.samples
        },
        "targets": [
            {
                "metric": item.target.metric,
                "title": item.target.title,
                "at_most": item.target.limit,
                "against": item.against,
                "reached": item.reached,
                "met": item.met,
            }
            for item in (verdict(target, results.samples) for target in TARGETS)
        ],
        "kernel_bytes_per_idle_session": results.caches,
    }
