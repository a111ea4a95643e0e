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
    told = {finding.path for finding in findings} | {finding.other for finding in findings}
    assert told == clashing
    order = {path: at for at, (path, _) in enumerate(binds)}
    for finding in findings:
        assert finding.other is not None
        assert order[finding.other] < order[finding.path]


def told(*rules: tuple[list[str], list[str]]) -> list[Finding]:
    """Give what is found in rules of listen and target addresses."""
    return check(seen(*rules))


def test_ten_thousand_binds_of_one_port_are_each_told_once() -> None:
    """Every bind but the first is told, against one other: not every pair of them."""
    findings = told(*(([":80"], []) for _ in range(10_000)))
    assert len(findings) == 9_999
    assert {finding.other for finding in findings} == {("rule", 0, "listen", 0)}


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


def test_what_is_no_loop() -> None:
    """Another port, another family, another host, another rule's listener and port 0 are no loops."""
    assert not told((["0.0.0.0:80"], ["[::1]:80", "10.0.0.5:80", "127.0.0.1:81", "web:80"]))
    assert not told((["127.0.0.1:80"], ["127.0.0.2:80"]), ([":81"], ["127.0.0.1:80"]))
    assert not told(([":0"], ["127.0.0.1:80"]), (["unix:/a"], ["unix:/b"]))
