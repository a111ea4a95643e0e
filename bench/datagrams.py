"""The loads of UDP: datagrams, trains of them, and flows of one question and one answer."""

import sys

import msgspec

from bench.endpoints import Bench
from bench.loads import Numbers, await_records, relay_cpu, run_load
from bench.process import FailedError
from bench.relays import DATAGRAMS, DIRECT, FLOWS, TRAINS, Running
from bench.sender import Plan, Tally

# UDP may lose; a relay that loses more than this share is not doing the work.
MOST_LOST = 0.001
# (metric, clients, datagrams each keeps on the way, their size)
DATAGRAM_RUNS = (
    ("small", 32, 1, 100),
    ("large", 32, 1, 1_200),
    ("deep", 8, 8, 1_200),
    ("lone", 1, 1, 100),
)
TRAIN = 32
# As many sockets as there are clients who asked before one asks again: by then its flow is long over.
STUBS = 2_000
QUESTION_BYTES = 60


def parse_tally(output: str) -> Tally:
    """Read what bench.sender printed; FailedError if nothing, or if more was lost or wrong than may be."""
    try:
        tally = msgspec.json.decode(output, type=Tally)
    except msgspec.DecodeError as error:
        raise FailedError(f"the sender printed no report: {output.strip()[-200:]}") from error
    if tally.strays:
        raise FailedError(f"{tally.strays} datagrams came too late, twice, cut, joined or to another")
    if not tally.answered or tally.lost > MOST_LOST * tally.asked:
        raise FailedError(f"{tally.lost} of {tally.asked} datagrams lost")
    return tally


def _send(bench: Bench, relay: Running, load: str, plan: Plan) -> tuple[Tally, float]:
    """Send through the relay: what came of it, and the CPU seconds the relay used."""
    host, port = relay.entry(load)
    argv = [sys.executable, "-m", "bench.sender", host, str(port), msgspec.json.encode(plan).decode()]
    before = relay_cpu(relay)
    tally = parse_tally(run_load(argv, bench.cores.load))
    return tally, relay_cpu(relay) - before


def _numbers(metric: str, relay: Running, tally: Tally, cpu_s: float, ways: int) -> Numbers:
    """Rate and latency of what was answered; CPU of each, and of each of two ways where `ways` is 2."""
    seconds = tally.duration_ns / 1e9
    numbers = {
        f"{metric}_rate": tally.answered / seconds,
        f"{metric}_p50": tally.p50_ns / 1e3,
        f"{metric}_p99": tally.p99_ns / 1e3,
    }
    if relay.kind.key == DIRECT:
        return numbers
    return numbers | {
        f"{metric}_cpu": cpu_s / tally.answered / ways * 1e6,
        f"{metric}_busy": cpu_s / seconds * 100,
    }


def measure_datagrams(bench: Bench, relay: Running) -> Numbers:
    """Send datagrams there and back one by one: rate, CPU µs of each datagram each way, p50 and p99 in µs."""
    numbers: Numbers = {}
    for metric, clients, window, size in DATAGRAM_RUNS:
        plan = Plan(clients, clients, window, size, bench.scale.datagrams_s)
        numbers |= _numbers(metric, relay, *_send(bench, relay, DATAGRAMS, plan), ways=2)
    return numbers


def measure_trains(bench: Bench, relay: Running) -> Numbers:
    """Send trains of datagrams there and back, cut by the kernel: rate, CPU µs of each datagram each way."""
    plan = Plan(clients=4, asking=4, window=2, size=1_200, seconds=bench.scale.datagrams_s, train=TRAIN)
    return _numbers("trains", relay, *_send(bench, relay, TRAINS, plan), ways=2)


def measure_flows(bench: Bench, relay: Running) -> Numbers:
    """Ask one question from each of many sockets in turn, 32 at a time: rate, CPU µs each, p50 and p99."""
    plan = Plan(clients=STUBS, asking=32, window=1, size=QUESTION_BYTES, seconds=bench.scale.flows_s)
    relay_cpu(relay)  # at rest, it has written the record of the datagram that found it ready
    before = relay.records("udp")
    tally, cpu_s = _send(bench, relay, FLOWS, plan)
    await_records(relay, "udp", before + tally.answered)
    return _numbers("flows", relay, tally, cpu_s, ways=1)
