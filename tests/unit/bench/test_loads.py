"""Reading what the load generators report, and refusing what is not clean."""

import pytest

from bench.idle import WARM, fitting
from bench.loads import LEAST_RECEIVED, parse_iperf, parse_wrk
from bench.process import FailedError, on_core


def wrk(errors: int, requests: int = 100) -> str:
    """What wrk prints with our script: its own report, then ours."""
    return (
        "Running 1s test @ http://127.0.0.1/\n  1 threads and 32 connections\n"
        f'bench:{{"requests":{requests},"duration_us":2000000,"p50_us":210,"p99_us":900,"errors":{errors}}}\n'
    )


def iperf(received: int, error: str = "") -> str:
    """What iperf3 -J prints, as far as it is read."""
    end = (
        f'"end":{{"sum_received":{{"bytes":{received},"bits_per_second":1.5e10,"seconds":2.0}},"streams":[]}}'
    )
    return f'{{"start":{{}},{end}{f""","error":"{error}" """ if error else ""}}}'


def test_a_clean_wrk_report_is_read() -> None:
    """Requests, duration and percentiles come out as the script printed them."""
    report = parse_wrk(wrk(errors=0))
    assert (report.requests, report.duration_us, report.p50_us, report.p99_us) == (100, 2_000_000, 210, 900)


@pytest.mark.parametrize("output", [wrk(errors=1), wrk(errors=0, requests=0), "unable to connect\n", ""])
def test_a_wrk_run_with_errors_is_refused(output: str) -> None:
    """One socket error, no request at all or no report: the numbers are never used."""
    with pytest.raises(FailedError, match="wrk"):
        parse_wrk(output)


def test_bulk_bytes_are_what_arrived() -> None:
    """The bytes the receiver counted, not those asked for, are what CPU is divided by."""
    assert parse_iperf(iperf(2_990_000_000), 3_000_000_000).bytes == 2_990_000_000


@pytest.mark.parametrize(
    "output",
    [
        iperf(int(1_000_000_000 * LEAST_RECEIVED) - 1),
        iperf(1_000_000_000, error="control socket has closed unexpectedly"),
        '{"start":{},"end":{},"error":"unable to connect"}',
        "iperf3: interrupt",
    ],
)
def test_a_bulk_run_that_broke_is_refused(output: str) -> None:
    """Too few bytes, an error beside them, or no report at all: the numbers are never used."""
    with pytest.raises(FailedError, match="iperf3"):
        parse_iperf(output, 1_000_000_000)


def test_idle_sessions_fit_the_descriptors() -> None:
    """Both ends of each session, the warm ones included, fit into the descriptors this process may open."""
    assert fitting(3_000, 20_000) == 3_000
    assert 2 * (fitting(3_000, 2_000) + WARM) < 2_000


def test_a_pinned_program_runs_on_its_core() -> None:
    """With a core the command goes through taskset; without one it is left as it is."""
    assert on_core(["wrk", "-t1"], 1) == ["taskset", "-c", "1", "wrk", "-t1"]
    assert on_core(["wrk", "-t1"], None) == ["wrk", "-t1"]
