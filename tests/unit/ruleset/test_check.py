"""Checks across rules, against the slow and obvious way."""

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.ruleset.check import check
from appliance.ruleset.decode import Seen
from appliance.ruleset.finding import Finding
from appliance.values import ListenAddress, TargetAddress


def seen(*rules: tuple[list[str], list[str]]) -> list[Seen]:
    """Make rules of listen and target addresses."""
    return [
        Seen(
            ("rule", index),
            f"rule-{index}",
            tuple(
                (("rule", index, "listen", at), ListenAddress.parse(text)) for at, text in enumerate(listen)
            ),
            tuple((("rule", index, "to", at), TargetAddress.parse(text)) for at, text in enumerate(to)),
        )
        for index, (listen, to) in enumerate(rules)
    ]


def sockets(address: ListenAddress) -> set[tuple[str, int]]:
    """Give every host and port that a listener binds, one by one."""
    hosts = [address.host] if address.host else ["0.0.0.0", "::"]
    ports = range(address.first_port, address.last_port + 1)
    return {(host, port) for host in hosts for port in ports if port}


ranges = st.tuples(st.integers(1, 12), st.integers(0, 4)).map(lambda pair: f"{pair[0]}-{pair[0] + pair[1]}")
listeners = st.builds(
    "{}:{}".format, st.sampled_from(["", "0.0.0.0", "[::]", "127.0.0.1", "[::1]"]), st.just("0") | ranges
)


@settings(deadline=None)
@given(st.lists(st.lists(listeners, max_size=3), max_size=5))
def test_every_double_bind_is_found_and_no_other(listens: list[list[str]]) -> None:
    """Problems name exactly the listeners that bind what another one binds, the later of two first."""
    rules = seen(*((listen, []) for listen in listens))
    binds = [(path, address) for rule in rules for path, address in rule.listen]
    clashing = {
        path
        for path, address in binds
        for other_path, other in binds
        if path != other_path and sockets(address) & sockets(other)
    }
    findings = check(rules)
    told = {finding.path for finding in findings} | {path for finding in findings for path in finding.others}
    assert told == clashing
    order = {path: at for at, (path, _) in enumerate(binds)}
    for finding in findings:
        (other,) = finding.others
        assert order[other] < order[finding.path]


def told(*rules: tuple[list[str], list[str]]) -> list[Finding]:
    """Give what is found in rules of listen and target addresses."""
    return check(seen(*rules))


def test_ten_thousand_binds_of_one_port_are_each_told_once() -> None:
    """Every bind but the first is told, against one other: not every pair of them."""
    findings = told(*(([":80"], []) for _ in range(10_000)))
    assert len(findings) == 9_999
    assert {finding.others for finding in findings} == {(("rule", 0, "listen", 0),)}


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5))
def test_a_range_fits_if_it_is_as_long(listen: int, to: int) -> None:
    """One target port serves any range; a range of targets is refused unless it is as long as listen's."""
    findings = told(([f":100-{99 + listen}"], [f"10.0.0.5:200-{199 + to}"]))
    assert bool(findings) == (to not in {1, listen})


def test_a_loop_is_told_once_for_each_target() -> None:
    """A target that leads back through several listeners is one mistake."""
    findings = told(([":80", ":8080-8090"], ["127.0.0.1:80", "127.0.0.1:8085", "localhost:8080-8090"]))
    assert [finding.path[-1] for finding in findings if "leads back" in finding.what] == [0, 1, 2]


def rings(*rules: tuple[list[str], list[str]]) -> list[str]:
    """Give what is said of loops over several rules."""
    return [finding.what for finding in told(*rules) if "closes a loop" in finding.what]


def test_a_loop_over_two_rules_is_told_with_both() -> None:
    """The target that closes it is named with the rules in their order and the place of the other one."""
    (finding,) = told((["127.0.0.1:1"], ["127.0.0.1:2"]), (["127.0.0.1:2"], ["127.0.0.1:1"]))
    assert finding.what == '127.0.0.1:1 closes a loop: rule "rule-1" to rule "rule-0" to rule "rule-1"'
    assert (finding.path, finding.others) == (("rule", 1, "to", 0), (("rule", 0, "to", 0),))
    assert finding.hint is not None


def test_one_target_of_a_list_is_enough() -> None:
    """Sessions take turns, so one in three enters the loop. Any way to reach a listener counts."""
    assert rings((["[::1]:1"], ["10.0.0.5:80", "localhost:2"]), ([":2"], ["a:1", "b:1", "[::1]:1"]))
    assert rings((["unix:/a"], ["unix:/b"]), (["unix:/b"], ["unix:/a"]))
    assert rings((["0.0.0.0:1-9"], ["127.0.0.1:20"]), ([":80", "0.0.0.0:11-20"], ["127.9.9.9:4"]))


def test_two_loops_through_one_rule_are_two_problems() -> None:
    """Mending one leaves the other: both are told at once."""
    said = rings(
        (["127.0.0.1:1"], ["127.0.0.1:2", "127.0.0.1:3"]),
        (["127.0.0.1:2"], ["127.0.0.1:1"]),
        (["127.0.0.1:3"], ["127.0.0.1:1"]),
    )
    assert [what.rpartition(" to ")[2] for what in said] == ['rule "rule-1"', 'rule "rule-2"']


def test_a_range_that_closes_several_loops_is_one_problem() -> None:
    """The target has to be mended once."""
    back = ["127.0.0.1:1"]
    assert len(rings(([":1-9"], ["127.0.0.1:11-19"]), ([":11"], back), ([":12"], back), ([":19"], back))) == 3
    assert (
        len(rings(*(([f":1{at}"], ["127.0.0.1:1"]) for at in range(9)), ([":1"], ["127.0.0.1:10-18"]))) == 9
    )
    assert len(rings(([":1"], ["127.0.0.1:2"]), ([":2"], ["127.0.0.1:3"]), ([":3"], ["127.0.0.1:1-2"]))) == 1


def test_a_long_loop_names_its_first_rules() -> None:
    """A ring of 20,000 rules is one problem that can be read, and found without looking at each pair."""
    ports = [f"127.0.{at >> 8}.{at & 255}:80" for at in range(20_000)]
    (finding,) = told(*(([here], [there]) for here, there in zip(ports, [*ports[1:], ports[0]], strict=True)))
    assert finding.what.endswith(
        'loop: rule "rule-19999" to rule "rule-0" to rule "rule-1" to rule "rule-2" to rule "rule-3"'
        ' to 19995 more to rule "rule-19999"'
    )
    assert len(finding.others) == 4


hops = st.lists(st.sampled_from(range(1, 7)), min_size=1, max_size=3)


@settings(deadline=None)
@given(st.lists(hops, min_size=1, max_size=6))
def test_every_loop_is_found_and_no_other(targets: list[list[int]]) -> None:
    """There are problems if there is a loop, and without the targets they name there is none left."""
    rules = [([f":{at + 1}"], [f"127.0.0.1:{to}" for to in set(tos)]) for at, tos in enumerate(targets)]
    findings = told(*rules)
    named = {finding.path for finding in findings}
    assert bool(named) == bool(looping(rules, set()))
    assert not looping(rules, named)


def looping(rules: list[tuple[list[str], list[str]]], without: set[tuple[str | int, ...]]) -> set[int]:
    """Take away, again and again, the rules that lead to no other: what is left are loops and ways there."""
    onward = {
        at: {
            int(to.rpartition(":")[2]) - 1 for n, to in enumerate(tos) if ("rule", at, "to", n) not in without
        }
        for at, (_, tos) in enumerate(rules)
    }
    while ends := [at for at, to in onward.items() if not to & onward.keys()]:
        for at in ends:
            del onward[at]
    return set(onward)


def test_listeners_of_several_lengths_are_told_instead_of_the_targets() -> None:
    """No range of targets goes with both: one problem, at the listener, and no hint that mends only one."""
    (finding,) = told(([":80", ":8000-8009"], ["10.0.0.5:100-109", "10.0.0.6:100-101"]))
    assert finding.path == ("rule", 0, "listen", 1)
    assert finding.what == "the listeners differ: :8000-8009 has 10 ports, :80 has 1 port"
    assert "a rule of its own" in (finding.hint or "")
    assert not told(([":80", ":8000-8009"], ["10.0.0.5:100"]))


def test_what_is_no_loop() -> None:
    """Another port, another family, another host, another rule's listener and port 0 are no loops."""
    assert not told((["0.0.0.0:80"], ["[::1]:80", "10.0.0.5:80", "127.0.0.1:81", "web:80"]))
    assert not told((["127.0.0.1:80"], ["127.0.0.2:80"]), ([":81"], ["127.0.0.1:80"]))
    assert not told(([":0"], ["127.0.0.1:80"]), (["unix:/a"], ["unix:/b"]))
