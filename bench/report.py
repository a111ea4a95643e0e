"""From samples to medians, ratios to the best peer, targets, a table and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.relays import DIRECT, KINDS, NGINX, PORTWAY, SPLICE

# Percent of its core that a relay uses when the rate is its own limit; alone on the machine it is 93 to 96.
LEAST_BUSY = 85.0

# Samples by metric, then relay.
Samples = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing measured, and how it reads: `digits` after the point, more or less being better.

    Without `ranked` neither is: it is shown, and compared with nobody's.
    """

    key: str
    title: str
    unit: str
    digits: int
    more_is_better: bool = False
    ranked: bool = True


@dataclass(frozen=True, slots=True)
class Section:
    """What the table shows together; `udp`: relays that forward none are named in it and have no numbers."""

    title: str
    metrics: tuple[Metric, ...]
    udp: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What Portway must reach: `limit` times the peer's median (the best peer's if None), or better.

    With `absolute` the limit is in the metric's own unit, and no peer is needed. `busy` names the metric that
    tells whether a rate was the relay's own limit.
    """

    metric: str
    title: str
    limit: float
    peer: str | None = None
    absolute: bool = False
    busy: str = ""


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
    """A target beside what was reached; `met` is None when a side of it was not measured.

    `doubt` says why `met` may be chance; empty, nothing is known against it.
    """

    target: Target
    metric: Metric
    against: str | None
    reached: float | None
    met: bool | None
    doubt: str = ""


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


def latencies(load: str) -> tuple[Metric, ...]:
    """Name the two latencies of a load, in microseconds."""
    return (
        Metric(f"{load}_p50", "p50", "µs", 0),
        Metric(f"{load}_p99", "p99", "µs", 0),
    )


def _bulk(metric: str) -> tuple[Metric, ...]:
    return (
        Metric(f"{metric}_gbps", "throughput", "Gbit/s", 1, more_is_better=True),
        Metric(f"{metric}_cpu", "relay CPU", "s/GB", 3),
    )


def _datagrams(metric: str, title: str) -> Section:
    return Section(
        title,
        (
            Metric(f"{metric}_rate", "there and back", "1/s", 0, more_is_better=True),
            Metric(f"{metric}_cpu", "relay CPU", "µs each way", 2),
            Metric(f"{metric}_busy", "of its core", "%", 0, ranked=False),
            *latencies(metric),
        ),
        udp=True,
    )


SECTIONS = (
    *(
        Section(f"Bulk, {streams}, {way}", _bulk(metric))
        for streams, metric_of in (("1 stream", "bulk"), ("4 streams", "bulk4"))
        for way, metric in (("to the endpoint", f"{metric_of}_up"), ("to the client", f"{metric_of}_down"))
    ),
    Section(
        "Keep-alive requests, 32 clients",
        (
            Metric("requests_rate", "requests", "1/s", 0, more_is_better=True),
            Metric("requests_cpu", "relay CPU", "µs each", 1),
            *latencies("requests"),
        ),
    ),
    Section(
        "Keep-alive requests, 1 client",
        (
            Metric("single_rate", "requests", "1/s", 0, more_is_better=True),
            Metric("single_cpu", "relay CPU", "µs each", 1),
            *latencies("single"),
        ),
    ),
    Section(
        "New connections, 32 at a time",
        (
            Metric("connections_rate", "connections", "1/s", 0, more_is_better=True),
            Metric("connections_cpu", "relay CPU", "µs each", 1),
            *latencies("connections"),
        ),
    ),
    Section(
        "Idle session",
        (
            Metric("idle_user", "user", "bytes", 0),
            Metric("idle_kernel", "kernel slab", "bytes", 0),
            Metric("idle_total", "both", "bytes", 0),
        ),
    ),
    _datagrams("small", "UDP, 100 bytes, 32 clients"),
    _datagrams("large", "UDP, 1,200 bytes, 32 clients"),
    _datagrams("deep", "UDP, 1,200 bytes, 8 clients, 8 each"),
    _datagrams("lone", "UDP, 100 bytes, 1 client"),
    _datagrams("trains", "UDP, trains of 32 x 1,200 bytes"),
    Section(
        "UDP, flows of one question",
        (
            Metric("flows_rate", "flows", "1/s", 0, more_is_better=True),
            Metric("flows_cpu", "relay CPU", "µs each", 1),
            Metric("flows_busy", "of its core", "%", 0, ranked=False),
            *latencies("flows"),
        ),
        udp=True,
    ),
    Section(
        "UDP, 1,000 ports in one rule",
        (
            Metric("ports_ready", "answers after", "ms", 0),
            Metric("ports_memory", "memory", "MB", 1),
            Metric("ports_flows", "with a flow each", "MB", 1),
            Metric("ports_fds", "open", "descriptors", 0),
        ),
        udp=True,
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
    Target("small_cpu", "CPU per datagram of 100 bytes", 1.15, NGINX),
    Target("large_cpu", "CPU per datagram of 1,200 bytes", 1.15, NGINX),
    Target("trains_cpu", "CPU per datagram in trains of 32", 0.25, NGINX),
    Target("flows_rate", "flows of one question per second", 1.0, NGINX, busy="flows_busy"),
    Target("ports_memory", "memory of 1,000 UDP ports in one rule", 40, absolute=True),
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
    best = best_peer(metric, samples) if metric.ranked else None
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
    metric = next(metric for section in SECTIONS for metric in section.metrics if metric.key == target.metric)
    measured = samples.get(target.metric, {})
    peers = {key: numbers for key, numbers in measured.items() if target.peer in (None, key)}
    against, by = (None, 1.0) if target.absolute else best_peer(metric, peers) or (None, 0.0)
    portway = measured.get(PORTWAY)
    if not portway or by <= 0:
        return Verdict(target, metric, against, None, None)
    reached = median(portway) / by
    met = reached >= target.limit if metric.more_is_better else reached <= target.limit
    return Verdict(target, metric, against, reached, met, _doubt(target, against, samples))


def _doubt(target: Target, against: str | None, samples: Samples) -> str:
    """Say that a rate was not the relays' own: neighbours, or the load, kept one of them waiting."""
    measured = samples.get(target.busy, {})
    shares = [median(measured[key]) for key in (PORTWAY, against) if key is not None and measured.get(key)]
    if not shares or min(shares) >= LEAST_BUSY:
        return ""
    return f"in doubt: cores {' and '.join(f'{share:.0f} %' for share in shares)} busy"


def cell(metric: Metric, value: Value | None) -> tuple[str, str, str]:
    """Write a value, its spread and its ratio, each as a cell of the table."""
    if value is None:
        return "-", "", ""
    ratio = "" if value.ratio is None else f"{value.ratio:.2f}x"
    return f"{value.median:.{metric.digits}f}", f"±{value.spread:.0%}", ratio


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
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


def _measured(section: Section, results: Results) -> bool:
    return any(results.samples.get(metric.key) for metric in section.metrics)


def _section(section: Section, results: Results) -> list[str]:
    if not _measured(section, results):
        return []
    columns = [(metric, values(metric, results.samples.get(metric.key, {}))) for metric in section.metrics]
    head = [
        section.title,
        *(text for metric in section.metrics for text in (f"{metric.title} {metric.unit}", "±", "ratio")),
    ]
    rows = [
        [
            KINDS[key].title,
            *(text for metric, measured in columns for text in cell(metric, measured.get(key))),
        ]
        for key in results.relays
    ]
    for key, row in zip(results.relays, rows, strict=True):
        if section.udp and KINDS[key].no_udp:
            row[1] = "no part"
    return [*aligned([head, *rows]), ""]


def _no_part(results: Results) -> dict[str, str]:
    """Relays that took no part in the loads of UDP, and why; nobody when none was run."""
    if not any(section.udp and _measured(section, results) for section in SECTIONS):
        return {}
    return {key: KINDS[key].no_udp for key in results.relays if KINDS[key].no_udp}


def _bound(metric: Metric) -> str:
    return "at least" if metric.more_is_better else "at most"


def _target_row(item: Verdict) -> list[str]:
    def amount(number: float) -> str:
        if item.target.absolute:
            return f"{number:.{item.metric.digits}f} {item.metric.unit}"
        return f"{number:.2f}x"

    return [
        item.target.title,
        KINDS[item.against].title if item.against else "-",
        f"{_bound(item.metric)} {amount(item.target.limit)}",
        "-" if item.reached is None else amount(item.reached),
        {True: "met", False: "NOT MET", None: "not measured"}[item.met],
        item.doubt,
    ]


def _target_lines(results: Results) -> list[str]:
    head = ["Target for Portway", "against", "limit", "reached", "", ""]
    return [*aligned([head, *(_target_row(verdict(target, results.samples)) for target in TARGETS)]), ""]


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
    return [*aligned([head, *rows]), ""]


def quiet_lines(quiet: Mapping[str, float]) -> list[str]:
    """Tell how quiet the machine was, where that is known."""
    if not quiet:
        return []
    share = f"{quiet['others_median']:.1%} of the machine (at most {quiet['others_most']:.1%})"
    return [
        f"Others used {share} meanwhile; {quiet['measured_again']:.0f} measurements were repeated for it."
    ]


def table(results: Results, *, detail: bool) -> str:
    """Write the report as text: a section per load, the targets, what is missing and why."""
    lines = [line for section in SECTIONS for line in _section(section, results)]
    lines += cache_lines(results) if detail and results.caches else []
    lines += _target_lines(results)
    lines += ["Medians of the repetitions; ± the farthest of them; the ratio is to the best peer's median."]
    lines += quiet_lines(results.quiet)
    lines += [f"NO PART    {KINDS[key].title}, UDP: {reason}" for key, reason in _no_part(results).items()]
    lines += [f"ABSENT     {name}: {reason}" for name, reason in results.absent.items()]
    lines += [f"DISCARDED  {text}" for text in results.discarded]
    return "\n".join(lines)


def document(results: Results) -> dict[str, object]:
    """Write the report as one JSON object."""
    return {
        "setting": results.setting,
        "quiet": results.quiet,
        "absent": results.absent,
        "no_part_in_udp": _no_part(results),
        "discarded": results.discarded,
        "metrics": {
            metric.key: {
                "title": f"{section.title}: {metric.title}",
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
            for section in SECTIONS
            for metric in section.metrics
            if metric.key in results.samples
        },
        "targets": [
            {
                "metric": item.target.metric,
                "title": item.target.title,
                _bound(item.metric).replace(" ", "_"): item.target.limit,
                "unit": item.metric.unit if item.target.absolute else "x",
                "against": item.against,
                "reached": item.reached,
                "met": item.met,
                "doubt": item.doubt,
            }
            for item in (verdict(target, results.samples) for target in TARGETS)
        ],
        "kernel_bytes_per_idle_session": results.caches,
    }
