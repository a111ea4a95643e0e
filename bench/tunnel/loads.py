"""The loads of the tunnels. Those of requests and sessions are the relays' own (`bench.loads`)."""

import sys

import msgspec

from bench.endpoints import Bench
from bench.loads import (
    Numbers,
    measure_connections,
    measure_requests,
    parse_iperf,
    relay_cpu,
    run_load,
)
from bench.process import FailedError
from bench.relays import BULK, DIRECT, HTTP, Running
from bench.tunnel.first_byte import FirstBytes

BULK_S = 1
# One stream has one buffer in flight; with eight of them a multiplexer has to share.
BULK_RUNS: dict[str, tuple[str, ...]] = {
    f"bulk{streams}_{way}": ("-P", str(streams), *options)
    for streams in (1, 8)
    for way, options in (("up", ()), ("down", ("-R",)))
}
# Time for a pool to be filled again, and for both ends to fall asleep.
PAUSE_MS = 3
# A line of that length, and pauses in which a pool is filled again over it.
ROUND_TRIP_MS = 20
FAR_SESSIONS, FAR_PAUSE_MS = 20, 80


def measure_bulk(bench: Bench, relay: Running) -> Numbers:
    """Gbit/s, and CPU seconds of both ends per 10^9 bytes, each way, with one stream and with eight.

    By time and not by bytes: what is compared differs sevenfold, and the whole run is bounded.
    """
    host, port = relay.entry(BULK)
    numbers: Numbers = {}
    for metric, options in BULK_RUNS.items():
        argv = ["iperf3", "-c", host, "-p", str(port), "-t", str(BULK_S), "-J", *options]
        before = relay_cpu(relay)
        bulk = parse_iperf(run_load(argv, bench.cores.load), 1)
        numbers[f"{metric}_gbps"] = bulk.bits_per_second / 1e9
        numbers[f"{metric}_cpu"] = (relay_cpu(relay) - before) / (bulk.bytes / 1e9)
    return numbers


def parse_first_bytes(output: str, count: int) -> FirstBytes:
    """Read what the program printed; FailedError if that is no report of `count` sessions."""
    try:
        found = msgspec.json.decode(output, type=FirstBytes)
    except msgspec.DecodeError as error:
        raise FailedError(f"first byte: {output.strip()[-200:]}") from error
    if found.sessions != count:
        raise FailedError(f"first byte: {found.sessions} of {count} sessions")
    return found


def _first_bytes(bench: Bench, relay: Running, count: int, pause_ms: int) -> FirstBytes:
    host, port = relay.entry(HTTP)
    argv = [sys.executable, "-m", "bench.tunnel.first_byte", host, str(port), str(count), str(pause_ms)]
    return parse_first_bytes(run_load(argv, bench.cores.load), count)


def measure_first_byte(bench: Bench, relay: Running, count: int) -> Numbers:
    """Microseconds from a client's connect to its answer's first byte, one session at a time: p50, p99."""
    found = _first_bytes(bench, relay, count, PAUSE_MS)
    return {"first_p50": found.p50_ns / 1e3, "first_p99": found.p99_ns / 1e3}


def measure_far(bench: Bench, relay: Running) -> Numbers:
    """First byte where gateway and agent are ROUND_TRIP_MS apart: p50 in milliseconds and in round trips."""
    found = _first_bytes(bench, relay, FAR_SESSIONS, FAR_PAUSE_MS)
    ms = found.p50_ns / 1e6
    return {"far_p50": ms, "far_trips": ms / ROUND_TRIP_MS}


def measure_sessions(bench: Bench, relay: Running, count: int) -> Numbers:
    """Measure first bytes, requests over kept connections, and new sessions, one load after the other."""
    numbers = measure_first_byte(bench, relay, count) | measure_requests(bench, relay)
    # The bare connection and the plain forward are here for the first byte and one client's requests.
    return numbers if relay.kind.key == DIRECT else numbers | measure_connections(bench, relay)
