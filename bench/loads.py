"""The loads: bulk with iperf3, requests and connections with wrk, and the endpoints behind the relays."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.account import settled_cpu_seconds
from bench.idle import endpoint_address, listening
from bench.process import (
    POLL_S,
    Address,
    Cores,
    FailedError,
    Program,
    answers_http,
    await_ready,
    free_port,
    on_core,
)
from bench.relays import BULK, DIRECT, HTTP, IDLE, Running, nginx_argv

# A relay takes other endpoint addresses each time it is started, so that the time-wait sockets of one
# measurement (60 s) stand in no later one's way: 28,000 client ports are per pair of addresses and ports.
HOSTS = tuple(f"127.0.0.{number}" for number in range(1, 65))
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


class Scale(msgspec.Struct, frozen=True):
    """How much of each load one measurement is: bytes, seconds, idle sessions."""

    bulk_bytes: int
    requests_s: int
    single_s: int
    connections_s: int
    sessions: int


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


def _run(argv: list[str], core: int | None) -> str:
    try:
        done = subprocess.run(
            on_core(argv, core), capture_output=True, text=True, timeout=RUN_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"{argv[0]} did not end within {RUN_DEADLINE_S:g} s") from error
    return done.stdout or done.stderr


@dataclass(frozen=True, slots=True)
class Bench:
    """The endpoints and what the loads need: where HTTP answers (on every HOST), iperf3 and we listen."""

    http_port: int
    iperf: Address
    idle: socket.socket
    script: Path
    cores: Cores
    scale: Scale

    def ways(self, turn: int) -> list[tuple[str, Address]]:
        """Name the endpoints' addresses for the relay started in this turn, the HTTP one first."""
        http = (HOSTS[turn % len(HOSTS)], self.http_port)
        return [(HTTP, http), (BULK, self.iperf), (IDLE, endpoint_address(self.idle))]


def absent_tools() -> list[str]:
    """Name the load generators that are not installed, with the package that brings each."""
    return [
        f"{name} (Debian: {name})"
        for name in ("wrk", "iperf3", "nginx", "taskset")
        if shutil.which(name) is None
    ]


def _http_config(port: int) -> str:
    listens = "".join(f"    listen {host}:{port} backlog=4096;\n" for host in HOSTS)
    return (
        "worker_rlimit_nofile 20000;\nevents { worker_connections 8000; }\n"
        "http {\n  access_log off;\n  keepalive_requests 1000000000;\n  default_type text/plain;\n"
        + "".join(
            f"  {kind}_temp_path temp;\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"  server {{\n{listens}    location / {{ return 200 ok; }}\n  }}\n}}\n"
    )


def _answers_iperf(address: Address) -> bool:
    argv = ["iperf3", "-c", address[0], "-p", str(address[1]), "-n", "1K", "-J"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=RUN_DEADLINE_S)
    return done.returncode == 0


@contextmanager
def endpoints(directory: Path, cores: Cores, scale: Scale) -> Iterator[Bench]:
    """Start the HTTP and the iperf3 endpoint, hand them out once they answer, end them."""
    directory.mkdir(parents=True, exist_ok=True)
    script = directory / "done.lua"
    script.write_text(WRK_SCRIPT)
    http_port, iperf = free_port(HOSTS[0]), (HOSTS[0], free_port(HOSTS[0]))
    argv = nginx_argv(directory, _http_config(http_port))
    with ExitStack() as stack:
        http = Program(argv, directory / "http.log", cores.load)
        stack.callback(http.end)
        await_ready([http], lambda: answers_http((HOSTS[0], http_port)), "the HTTP endpoint")
        server = Program(
            ["iperf3", "-s", "-B", iperf[0], "-p", str(iperf[1])], directory / "iperf3.log", cores.load
        )
        stack.callback(server.end)
        await_ready([server], lambda: _answers_iperf(iperf), "the iperf3 endpoint")
        idle = stack.enter_context(listening(HOSTS[0]))
        yield Bench(http_port, iperf, idle, script, cores, scale)


def _cpu(relay: Running) -> float:
    return settled_cpu_seconds(relay.roots, reap=relay.kind.forks)


def measure_bulk(bench: Bench, relay: Running) -> Numbers:
    """Gbit/s and relay CPU seconds per 10^9 bytes, to the endpoint (up) and back (down), 1 and 4 streams."""
    host, port = relay.entry(BULK)
    numbers: Numbers = {}
    for metric, options in BULK_RUNS.items():
        argv = ["iperf3", "-c", host, "-p", str(port), "-n", str(bench.scale.bulk_bytes), "-J", *options]
        before = _cpu(relay)
        bulk = parse_iperf(_run(argv, bench.cores.load), bench.scale.bulk_bytes)
        numbers[f"{metric}_gbps"] = bulk.bits_per_second / 1e9
        if relay.kind.key != DIRECT:
            numbers[f"{metric}_cpu"] = (_cpu(relay) - before) / (bulk.bytes / 1e9)
    return numbers


def _wrk(bench: Bench, relay: Running, clients: int, seconds: int, *options: str) -> tuple[WrkReport, float]:
    """Run wrk through the relay: its report, and the CPU seconds the relay used."""
    host, port = relay.entry(HTTP)
    argv = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", str(bench.script), *options]
    before = _cpu(relay)
    report = parse_wrk(_run([*argv, f"http://{host}:{port}/"], bench.cores.load))
    return report, _cpu(relay) - before


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


def _await_records(relay: Running, count: int) -> None:
    """Wait until the log, written in batches, holds `count` records; FailedError when they do not come."""
    deadline = time.monotonic() + RECORDS_DEADLINE_S
    while relay.kind.record and (written := relay.records()) < count:
        if time.monotonic() > deadline:
            raise FailedError(f"{written} records where {count} are due: a log with gaps does not compare")
        time.sleep(POLL_S)


def measure_connections(bench: Bench, relay: Running) -> Numbers:
    """Open a connection for each request, 32 at a time: rate, relay CPU µs each, p50 and p99 in µs."""
    before = relay.records()
    report, cpu_s = _wrk(bench, relay, 32, bench.scale.connections_s, "-H", "Connection: close")
    _await_records(relay, before + report.requests)
    return _numbers("connections", relay, report, cpu_s)
