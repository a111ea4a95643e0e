"""The loads of TCP: bulk with iperf3, requests and connections with wrk."""

import subprocess
import time
from dataclasses import dataclass

import msgspec

from bench.account import settled_cpu_seconds
from bench.endpoints import Bench
from bench.process import POLL_S, FailedError, on_core
from bench.relays import BULK, DIRECT, HTTP, Running

RUN_DEADLINE_S = 60.0
RECORDS_DEADLINE_S = 5.0
# iperf3 stops when the sender is done: what then fills the socket buffers before and behind the relay
# (tcp_rmem may allow 32 MiB each) is carried but not counted, up to 8 % with four streams. Less than this
# is a broken run.
LEAST_RECEIVED = 0.8
# One stream's bytes stay in the cores' caches, where copying is cheap; those of four do not.
BULK_RUNS: dict[str, tuple[str, ...]] = {
    "bulk_up": (),
    "bulk_down": ("-R",),
    "bulk4_up": ("-P", "4"),
    "bulk4_down": ("-P", "4", "-R"),
}

WRK_MARK = "bench:"
WRK_SCRIPT = f"""
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{WRK_MARK}{{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"errors":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""

Numbers = dict[str, float]


class WrkReport(msgspec.Struct, frozen=True):
    """What one wrk run reached; latencies run from a request's first byte to its answer's last."""

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    errors: int


class _IperfSum(msgspec.Struct, frozen=True):
    bytes: int
    bits_per_second: float


class _IperfEnd(msgspec.Struct, frozen=True):
    sum_received: _IperfSum | None = None


class _IperfReport(msgspec.Struct, frozen=True):
    end: _IperfEnd
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Bulk:
    """What one iperf3 run carried: bytes and bits per second as the receiver saw them."""

    bytes: int
    bits_per_second: float


def parse_wrk(output: str) -> WrkReport:
    """Read the report our script had wrk print; FailedError if there is none or it counts an error."""
    for line in output.splitlines():
        if line.startswith(WRK_MARK):
            report = msgspec.json.decode(line[len(WRK_MARK) :], type=WrkReport)
            if report.errors or not report.requests:
                raise FailedError(f"wrk: {report.errors} errors in {report.requests} requests")
            return report
    raise FailedError(f"wrk printed no report: {output.strip()[-200:]}")


def parse_iperf(output: str, expected: int) -> Bulk:
    """Read what iperf3 -J reports as received; FailedError if an error, or fewer bytes than `expected`."""
    try:
        report = msgspec.json.decode(output, type=_IperfReport)
    except msgspec.DecodeError as error:
        raise FailedError(f"iperf3: {error}") from error
    received = report.end.sum_received
    if report.error or received is None:
        raise FailedError(f"iperf3: {report.error or 'no bytes received'}")
    if received.bytes < LEAST_RECEIVED * expected:
        raise FailedError(f"iperf3 received {received.bytes} of {expected} bytes")
    return Bulk(received.bytes, received.bits_per_second)


def run_load(argv: list[str], core: int | None) -> str:
    """Run a load generator to its end: what it printed."""
    try:
        done = subprocess.run(
            on_core(argv, core), capture_output=True, text=True, timeout=RUN_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"{argv[0]} did not end within {RUN_DEADLINE_S:g} s") from error
    return done.stdout or done.stderr


def relay_cpu(relay: Running) -> float:
    """CPU seconds the relay has used, once it has come to rest."""
    return settled_cpu_seconds(relay.roots, reap=relay.kind.forks)


def measure_bulk(bench: Bench, relay: Running) -> Numbers:
    """Gbit/s and relay CPU seconds per 10^9 bytes, to the endpoint (up) and back (down), 1 and 4 streams."""
    host, port = relay.entry(BULK)
    numbers: Numbers = {}
    for metric, options in BULK_RUNS.items():
        argv = ["iperf3", "-c", host, "-p", str(port), "-n", str(bench.scale.bulk_bytes), "-J", *options]
        before = relay_cpu(relay)
        bulk = parse_iperf(run_load(argv, bench.cores.load), bench.scale.bulk_bytes)
        numbers[f"{metric}_gbps"] = bulk.bits_per_second / 1e9
        if relay.kind.key != DIRECT:
            numbers[f"{metric}_cpu"] = (relay_cpu(relay) - before) / (bulk.bytes / 1e9)
    return numbers


def _wrk(bench: Bench, relay: Running, clients: int, seconds: int, *options: str) -> tuple[WrkReport, float]:
    """Run wrk through the relay: its report, and the CPU seconds the relay used."""
    host, port = relay.entry(HTTP)
    script = bench.directory / "done.lua"
    script.write_text(WRK_SCRIPT)
    argv = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", str(script), *options]
    before = relay_cpu(relay)
    report = parse_wrk(run_load([*argv, f"http://{host}:{port}/"], bench.cores.load))
    return report, relay_cpu(relay) - before


def _numbers(load: str, relay: Running, report: WrkReport, cpu_s: float) -> Numbers:
    numbers = {
        f"{load}_rate": report.requests / (report.duration_us / 1e6),
        f"{load}_p50": float(report.p50_us),
        f"{load}_p99": float(report.p99_us),
    }
    return numbers if relay.kind.key == DIRECT else numbers | {f"{load}_cpu": cpu_s / report.requests * 1e6}


def measure_requests(bench: Bench, relay: Running) -> Numbers:
    """Send requests over kept connections, of 32 clients and of one: rate, CPU µs each, p50 and p99 in µs."""
    many = _numbers("requests", relay, *_wrk(bench, relay, 32, bench.scale.requests_s))
    return many | _numbers("single", relay, *_wrk(bench, relay, 1, bench.scale.single_s))


def await_records(relay: Running, protocol: str, count: int) -> None:
    """Wait until the log, written in batches, holds `count` records; FailedError when they do not come."""
    deadline = time.monotonic() + RECORDS_DEADLINE_S
    while relay.kind.record and (written := relay.records(protocol)) < count:
        if time.monotonic() > deadline:
            raise FailedError(f"{written} records where {count} are due: a log with gaps does not compare")
        time.sleep(POLL_S)


def measure_connections(bench: Bench, relay: Running) -> Numbers:
    """Open a connection for each request, 32 at a time: rate, relay CPU µs each, p50 and p99 in µs."""
    before = relay.records("tcp")
    report, cpu_s = _wrk(bench, relay, 32, bench.scale.connections_s, "-H", "Connection: close")
    await_records(relay, "tcp", before + report.requests)
    return _numbers("connections", relay, report, cpu_s)
