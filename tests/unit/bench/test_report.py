"""Medians, ratios, verdicts and the table."""

import pytest

from bench.report import (
    SECTIONS,
    TARGETS,
    Metric,
    Results,
    Target,
    best_peer,
    cache_lines,
    document,
    table,
    values,
    verdict,
)

BUSY = Metric("flows_busy", "of its core", "%", 0, ranked=False)
FLOWS_TARGET = Target("flows_rate", "flows", 1.0, "nginx")
PORTS_TARGET = Target("ports_memory", "ports", 40, absolute=True)
COST = Metric("bulk_up_cpu", "relay CPU", "s/GB", 3)
RATE = Metric("requests_rate", "requests", "1/s", 0, more_is_better=True)
SPLICE_TARGET = Target("bulk_up_cpu", "bulk", 0.65, "haproxy-splice")


def test_the_best_peer_costs_least_or_does_most() -> None:
    """For a cost the smallest median wins, for a rate the largest."""
    samples = {"nginx": [5.0, 1.0, 6.0], "haproxy": [4.0, 4.0, 9.0]}
    assert best_peer(COST, samples) == ("haproxy", 4.0)
    assert best_peer(RATE, samples) == ("nginx", 5.0)


def test_neither_direct_nor_portway_is_a_peer() -> None:
    """The bare connection and Portway itself are never what Portway is compared with."""
    assert best_peer(COST, {"direct": [1.0], "portway": [2.0], "socat": [9.0]}) == ("socat", 9.0)
    assert best_peer(COST, {"direct": [1.0], "portway": [2.0], "nginx": []}) is None


def test_a_value_is_the_median_with_its_spread_and_ratio() -> None:
    """One wild repetition moves the spread and not the median; the ratio is of medians."""
    value = values(COST, {"portway": [2.0, 3.0, 30.0], "nginx": [4.0, 4.0, 4.0]})["portway"]
    assert (value.median, value.low, value.high, value.ratio, value.spread) == (3.0, 2.0, 30.0, 0.75, 9.0)


def test_direct_has_no_ratio() -> None:
    """The bare connection is shown beside the relays and not ranked with them."""
    assert values(RATE, {"direct": [9.0], "nginx": [3.0]})["direct"].ratio is None


def test_what_is_not_ranked_has_no_ratio() -> None:
    """How busy a relay is says how to read its rate; neither more nor less of it is better."""
    value = values(BUSY, {"portway": [99.0], "nginx": [95.0]})["portway"]
    assert (value.median, value.ratio) == (99.0, None)


@pytest.mark.parametrize(("portway", "met"), [([0.65], True), ([0.66], False)])
def test_a_target_is_met_up_to_its_limit(portway: list[float], met: bool) -> None:
    """At the limit it is met, beyond it is not, and a peer better than the one named does not matter."""
    found = verdict(
        SPLICE_TARGET, {"bulk_up_cpu": {"portway": portway, "haproxy-splice": [1.0], "nginx": [0.1]}}
    )
    assert (found.against, found.met) == ("haproxy-splice", met)
    assert found.reached == portway[0]


@pytest.mark.parametrize(
    "measured", [{}, {"portway": [1.0]}, {"haproxy-splice": [1.0]}, {"portway": [1.0], "nginx": [2.0]}]
)
def test_a_target_without_both_sides_is_open(measured: dict[str, list[float]]) -> None:
    """Portway or the peer it is compared with not measured: neither met nor missed."""
    found = verdict(SPLICE_TARGET, {"bulk_up_cpu": measured})
    assert (found.reached, found.met) == (None, None)


@pytest.mark.parametrize(("portway", "met"), [([50_000.0], True), ([49_999.0], False), ([90_000.0], True)])
def test_a_target_of_a_rate_is_met_from_its_limit_on(portway: list[float], met: bool) -> None:
    """Where more is better, as much as the peer is enough and less is a miss."""
    found = verdict(FLOWS_TARGET, {"flows_rate": {"portway": portway, "nginx": [50_000.0]}})
    assert (found.against, found.met) == ("nginx", met)


@pytest.mark.parametrize(("portway", "met"), [([40.0], True), ([40.1], False)])
def test_an_absolute_target_needs_no_peer(portway: list[float], met: bool) -> None:
    """Its limit is in the metric's unit: others, measured or not, do not matter."""
    alone = verdict(PORTS_TARGET, {"ports_memory": {"portway": portway}})
    beside = verdict(PORTS_TARGET, {"ports_memory": {"portway": portway, "nginx": [1.0]}})
    assert (alone.against, alone.reached, alone.met) == (None, portway[0], met)
    assert alone == beside


@pytest.mark.parametrize(
    ("portway", "nginx", "doubt"),
    [(94.0, 95.0, ""), (94.0, 46.0, "94 % and 46 %"), (70.0, 95.0, "70 % and 95 %")],
)
def test_a_rate_of_a_relay_that_waited_is_in_doubt(portway: float, nginx: float, doubt: str) -> None:
    """Where one of the two was not at its limit the verdict stands, and says that it may be chance."""
    target = Target("flows_rate", "flows", 1.0, "nginx", busy="flows_busy")
    samples = {
        "flows_rate": {"portway": [50_000.0], "nginx": [40_000.0]},
        "flows_busy": {"portway": [portway], "nginx": [nginx]},
    }
    found = verdict(target, samples)
    assert found.met
    assert found.doubt == (f"in doubt: cores {doubt} busy" if doubt else "")


def test_an_absolute_target_that_was_not_measured_is_open() -> None:
    """With nginx alone measured, nothing is said of Portway."""
    found = verdict(PORTS_TARGET, {"ports_memory": {"nginx": [1.0]}})
    assert (found.reached, found.met) == (None, None)


def test_every_target_is_of_something_measured() -> None:
    """Each target's metric stands in a section of the table, and is one that can be better or worse."""
    ranked = {metric.key for section in SECTIONS for metric in section.metrics if metric.ranked}
    assert {target.metric for target in TARGETS} <= ranked


def test_no_metric_stands_in_two_sections() -> None:
    """A number is found under one key only, in the table and in the JSON."""
    keys = [metric.key for section in SECTIONS for metric in section.metrics]
    assert len(keys) == len(set(keys))


def results() -> Results:
    """A small run: one load, a target missed, a relay absent, a measurement discarded."""
    return Results(
        relays=("direct", "portway", "nginx"),
        samples={
            "requests_rate": {"direct": [200.0], "portway": [90.0, 110.0], "nginx": [100.0]},
            "requests_cpu": {"portway": [12.0, 12.0], "nginx": [8.0]},
        },
        caches={"portway": {"TCP": 4736.0, "pid": 3.0}},
        absent={"socat": "not installed (Debian: socat)"},
        discarded=("nginx stream, bulk: iperf3: no bytes received",),
    )


def test_the_table_says_what_is_missed_absent_and_discarded() -> None:
    """Nobody has to look for it: a missed target, an absent relay and a discarded run are in the text."""
    lines = table(results(), detail=False).splitlines()
    target = next(line for line in lines if line.startswith("CPU per keep-alive request"))
    assert target.split()[-4:] == ["1.05x", "1.50x", "NOT", "MET"]
    assert "ABSENT     socat: not installed (Debian: socat)" in lines
    assert "DISCARDED  nginx stream, bulk: iperf3: no bytes received" in lines


def udp_results() -> Results:
    """A run of flows and ports beside a relay that forwards no UDP."""
    return Results(
        relays=("portway", "nginx", "haproxy"),
        samples={
            "flows_rate": {"portway": [45_000.0], "nginx": [50_000.0]},
            "ports_memory": {"portway": [31.6], "nginx": [10.5]},
        },
    )


def test_the_table_says_who_takes_no_part_in_udp() -> None:
    """A relay without UDP has a row that says so, and a line that says why, instead of a hole."""
    lines = table(udp_results(), detail=False).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("UDP, flows"))
    assert lines[start + 3].split()[:3] == ["HAProxy", "no", "part"]
    assert "NO PART    HAProxy, UDP: forwards no UDP" in lines
    assert document(udp_results())["no_part_in_udp"] == {"haproxy": "forwards no UDP"}


def test_without_udp_nobody_is_said_to_take_no_part() -> None:
    """Where no load of datagrams ran, its absence needs no reason."""
    assert "NO PART" not in table(results(), detail=False)


def test_a_target_is_shown_with_its_kind_of_limit() -> None:
    """A rate reads "at least", an absolute limit is in its unit; the JSON names both the same way."""
    lines = table(udp_results(), detail=False).splitlines()
    flows = next(line for line in lines if line.startswith("flows of one question"))
    ports = next(line for line in lines if line.startswith("memory of 1,000 UDP ports"))
    assert flows.split()[-6:] == ["at", "least", "1.00x", "0.90x", "NOT", "MET"]
    assert ports.split()[-7:] == ["at", "most", "40.0", "MB", "31.6", "MB", "met"]
    targets = document(udp_results())["targets"]
    assert isinstance(targets, list)
    by_metric = {target["metric"]: target for target in targets}
    assert (by_metric["flows_rate"]["at_least"], by_metric["flows_rate"]["unit"]) == (1.0, "x")
    assert (by_metric["ports_memory"]["at_most"], by_metric["ports_memory"]["unit"]) == (40, "MB")


def test_a_load_that_did_not_run_has_no_section() -> None:
    """With one load measured the table has that load's section alone."""
    text = table(results(), detail=False)
    assert "Keep-alive requests, 32 clients" in text
    assert "Bulk, " not in text


def test_the_columns_stand_in_line() -> None:
    """Every row of a section is cut from the same widths: the numbers end where their heading ends."""
    head, direct, portway, _ = table(results(), detail=False).splitlines()[:4]
    end = head.index("requests 1/s") + len("requests 1/s")
    assert direct[:end].endswith("200")
    assert portway[:end].endswith("100")


def test_small_caches_are_left_out_of_the_breakdown() -> None:
    """The breakdown shows where the bytes are; a cache of three bytes per session is noise."""
    text = "\n".join(cache_lines(results()))
    assert "TCP" in text
    assert "pid" not in text


def test_json_keeps_every_sample() -> None:
    """The JSON holds what the medians were made of, so that another run can be compared with it."""
    metrics = document(results())["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["requests_rate"]["relays"]["portway"] == {
        "median": 100.0,
        "min": 90.0,
        "max": 110.0,
        "ratio_to_best_peer": 1.0,
        "samples": [90.0, 110.0],
    }
