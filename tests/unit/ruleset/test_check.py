"""Checks across rules, against the slow and obvious way."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.ruleset.check import check
from appliance.ruleset.finding import Finding, Path
from appliance.ruleset.rules import Protocol
from appliance.ruleset.seen import Seen, SeenTunnel
from appliance.values import ListenAddress, TargetAddress

TCP, UDP, BOTH = Protocol
KINDS = (TCP, UDP)

Carry = Sequence[Protocol | None]


def seen(*rules: tuple[list[str], list[str]], carry: Carry = ()) -> list[Seen]:
    """Make rules of listen and target addresses, TCP unless it is said what each of them carries."""
    return [
        Seen(
            ("rule", index),
            f"rule-{index}",
            tuple(
                (("rule", index, "listen", at), ListenAddress.parse(text)) for at, text in enumerate(listen)
            ),
            tuple((("rule", index, "to", at), TargetAddress.parse(text)) for at, text in enumerate(to)),
            protocol=carry[index] if carry else TCP,
        )
        for index, (listen, to) in enumerate(rules)
    ]


def carries(carried: Protocol | None, kind: Protocol) -> bool:
    """Say whether a rule of that protocol has sessions (or flows) of this kind."""
    return carried in {kind, BOTH}


def sockets(rule: Seen, address: ListenAddress) -> set[tuple[Protocol, str, int]]:
    """Give every kind, host and port that a listener binds, one by one."""
    hosts = [address.host] if address.host else ["0.0.0.0", "::"]
    ports = range(address.first_port, address.last_port + 1)
    kinds = [kind for kind in KINDS if carries(rule.protocol, kind)]
    return {(kind, host, port) for kind in kinds for host in hosts for port in ports if port}


protocols = st.sampled_from([TCP, UDP, BOTH, None])
ranges = st.tuples(st.integers(1, 12), st.integers(0, 4)).map(lambda pair: f"{pair[0]}-{pair[0] + pair[1]}")
listeners = st.builds(
    "{}:{}".format, st.sampled_from(["", "0.0.0.0", "[::]", "127.0.0.1", "[::1]"]), st.just("0") | ranges
)


@settings(deadline=None)
@given(st.lists(st.tuples(protocols, st.lists(listeners, max_size=3)), max_size=5))
def test_every_double_bind_is_found_and_no_other(given: list[tuple[Protocol | None, list[str]]]) -> None:
    """Problems name exactly the listeners that bind what another one binds, the later of two first."""
    rules = seen(*((listen, []) for _, listen in given), carry=[protocol for protocol, _ in given])
    binds = [(path, sockets(rule, address)) for rule in rules for path, address in rule.listen]
    clashing = {
        path for path, bound in binds for other_path, other in binds if path != other_path and bound & other
    }
    findings = check(rules)
    told = {finding.path for finding in findings} | {path for finding in findings for path in finding.others}
    assert told == clashing
    order = {path: at for at, (path, _) in enumerate(binds)}
    for finding in findings:
        (other,) = finding.others
        assert order[other] < order[finding.path]


def told(*rules: tuple[list[str], list[str]], carry: Carry = ()) -> list[Finding]:
    """Give what is found in rules of listen and target addresses."""
    return check(seen(*rules, carry=carry))


@pytest.mark.parametrize(
    ("carry", "what"),
    [
        ((TCP, TCP), ':80 is already taken by rule "rule-0"'),
        ((UDP, UDP), ':80/udp is already taken by rule "rule-0"'),
        ((BOTH, TCP), ':80/tcp is already taken by rule "rule-0"'),
        ((TCP, BOTH), ':80/tcp is already taken by rule "rule-0"'),
        ((UDP, BOTH), ':80/udp is already taken by rule "rule-0"'),
        ((BOTH, BOTH), ':80/tcp+udp is already taken by rule "rule-0"'),
        ((TCP, UDP), None),
        ((UDP, TCP), None),
        ((None, BOTH), None),
        ((None, None), None),
    ],
)
def test_a_port_is_taken_for_what_both_carry(carry: Carry, what: str | None) -> None:
    """A clash names the protocol unless it is plainly TCP; without one in common there is none."""
    findings = told(([":80"], []), ([":80"], []), carry=carry)
    assert [finding.what for finding in findings] == ([] if what is None else [what])


def test_a_port_of_two_protocols_may_clash_with_two_rules() -> None:
    """TCP's holder and UDP's are both told: mending one leaves the other."""
    findings = told(([":80"], []), ([":80"], []), ([":80"], []), carry=(TCP, UDP, BOTH))
    assert [finding.what for finding in findings] == [
        ':80/tcp is already taken by rule "rule-0"',
        ':80/udp is already taken by rule "rule-1"',
    ]


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


def test_a_loop_stays_in_its_protocol() -> None:
    """What leads to a listener of the other protocol only leads nowhere."""
    pair = ([":1"], ["127.0.0.1:2"]), ([":2"], ["127.0.0.1:1"])
    for carry in ((TCP, UDP), (UDP, TCP), (None, BOTH)):
        assert not told(*pair, carry=carry)
    for carry in ((UDP, UDP), (BOTH, UDP), (TCP, BOTH), (BOTH, BOTH)):
        (finding,) = told(*pair, carry=carry)
        assert finding.what == '127.0.0.1:1 closes a loop: rule "rule-1" to rule "rule-0" to rule "rule-1"'
        assert finding.hint is not None
        assert finding.hint.startswith("every flow" if UDP in carry else "every session")


def test_a_loop_of_both_protocols_is_one_problem() -> None:
    """It is told once, wherever one comes from: over UDP the first rule leads into it elsewhere."""
    ring = ([":2"], ["127.0.0.1:3"]), ([":3"], ["127.0.0.1:2"])
    (finding,) = told(([":1"], ["127.0.0.1:3"]), *ring, carry=(UDP, BOTH, BOTH))
    assert finding.path == ("rule", 2, "to", 0)


def test_a_rule_that_leads_to_itself_does_so_in_any_protocol() -> None:
    """Its own protocol is the same at both ends, also where it could not be understood."""
    for protocol in (TCP, UDP, BOTH, None):
        (finding,) = told(([":1"], ["127.0.0.1:1"]), carry=[protocol])
        assert (finding.hint or "").startswith("every flow" if protocol is UDP else "every session")


@pytest.mark.parametrize("protocol", [UDP, BOTH])
def test_a_unix_socket_is_for_tcp(protocol: Protocol) -> None:
    """Each one is told in a rule that carries UDP, and no clash or loop of it beside that."""
    rules = (["unix:/a", ":1"], ["unix:/b"]), (["unix:/b"], ["unix:/a"]), (["unix:/a"], ["a:1"])
    findings = told(*rules, carry=(UDP, UDP, protocol))
    assert [finding.path for finding in findings] == [
        *(("rule", 0, "listen", 0), ("rule", 0, "to", 0)),
        *(("rule", 1, "listen", 0), ("rule", 1, "to", 0)),
        ("rule", 2, "listen", 0),
    ]
    assert not told(*rules[:1], carry=(TCP,))


def test_keys_of_flows_are_told_in_a_tcp_rule() -> None:
    """Each is told at its key; of a rule that carries UDP, or that may, none is."""
    for protocol in (UDP, BOTH, None):
        assert not check([Seen(("rule", 0), protocol=protocol, flow_keys=("responses", "max_flows"))])
    findings = check([Seen(("rule", 0), protocol=TCP, flow_keys=("responses", "max_flows"))])
    assert [(finding.path, finding.at_key) for finding in findings] == [
        (("rule", 0, "responses"), True),
        (("rule", 0, "max_flows"), True),
    ]


DEFAULTS: Path = ("defaults",)


@pytest.mark.parametrize(
    ("whole", "one", "at"),
    [
        ((("rule", 0), 10), (("rule", 0), 10), None),
        ((("rule", 0), 10), (("rule", 0), 11), ("rule", 0, "max_flows_per_client")),
        ((DEFAULTS, 10), (("rule", 0), 11), ("rule", 0, "max_flows_per_client")),
        ((("rule", 0), 10), (DEFAULTS, 11), ("rule", 0, "max_flows")),
        ((DEFAULTS, 10), (DEFAULTS, 11), ("defaults", "max_flows_per_client")),
        ((DEFAULTS, 10), None, None),
        (None, (DEFAULTS, 10), None),
    ],
)
def test_the_cap_of_one_client_is_in_that_of_all(
    whole: tuple[Path, int] | None, one: tuple[Path, int] | None, at: Path | None
) -> None:
    """The lower of two caps is told with the other's place, in the rule if it says either."""
    caps = {"max_flows": whole, "max_flows_per_client": one}
    placed = {key: ((*cap[0], key), cap[1]) for key, cap in caps.items() if cap}
    own = tuple(key for key, cap in caps.items() if cap and cap[0] != DEFAULTS)
    rule = Seen(
        *(("rule", 0), "a"),
        protocol=UDP,
        flow_keys=own,
        max_flows=placed.get("max_flows"),
        max_flows_per_client=placed.get("max_flows_per_client"),
    )
    findings = check([rule])
    assert [finding.path for finding in findings] == ([] if at is None else [at])
    places = {path for path, _ in placed.values()}
    assert all({finding.path, *finding.others} == places for finding in findings)


def test_caps_of_the_defaults_are_told_once() -> None:
    """However many rules take them over, they are mended in one place."""
    caps = ((*DEFAULTS, "max_flows"), 10), ((*DEFAULTS, "max_flows_per_client"), 11)
    rules = [
        Seen(("rule", at), protocol=UDP, max_flows=caps[0], max_flows_per_client=caps[1]) for at in range(9)
    ]
    assert len(check(rules)) == 1


hops = st.lists(st.sampled_from(range(1, 7)), min_size=1, max_size=3)


@settings(deadline=None)
@given(st.lists(hops, min_size=1, max_size=6), st.lists(protocols, min_size=6, max_size=6))
def test_every_loop_is_found_and_no_other(targets: list[list[int]], carry: list[Protocol]) -> None:
    """There are problems if there is a loop, and without the targets they name there is none left."""
    rules = [([f":{at + 1}"], [f"127.0.0.1:{to}" for to in set(tos)]) for at, tos in enumerate(targets)]
    findings = told(*rules, carry=carry)
    named = {finding.path for finding in findings}
    assert len(named) == len(findings)
    assert bool(named) == any(looping(rules, carry, kind, set()) for kind in (*KINDS, None))
    assert not any(looping(rules, carry, kind, named) for kind in (*KINDS, None))


def looping(
    rules: list[tuple[list[str], list[str]]], carry: Carry, kind: Protocol | None, without: set[Path]
) -> set[int]:
    """Take away, again and again, the rules that lead to no other: what is left are loops and ways there.

    Without a kind it is each rule by itself that counts, whatever it carries.
    """
    onward = {
        at: {
            int(to.rpartition(":")[2]) - 1 for n, to in enumerate(tos) if ("rule", at, "to", n) not in without
        }
        for at, (_, tos) in enumerate(rules)
        if kind is None or carries(carry[at], kind)
    }
    if kind is None:
        onward = {at: to & {at} for at, to in onward.items()}
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


def test_what_goes_via_an_agent_does_not_loop_here() -> None:
    """Its targets are dialled elsewhere: neither to its own listener nor over others is there a loop."""
    rules = seen(([":1"], ["127.0.0.1:1"]), ([":2"], ["127.0.0.1:3"]), ([":3"], ["127.0.0.1:2"]))
    assert len(check(rules)) == 2
    for via in ("office", ""):
        through = [replace(rules[0], via=via), replace(rules[1], via=via), rules[2]]
        findings = check(through, SeenTunnel(is_there=True, has_agents=True))
        assert not [finding for finding in findings if "loop" in finding.what or "leads" in finding.what]


@pytest.mark.parametrize(
    ("carry", "listen", "tunnel", "what"),
    [
        (TCP, ":7443", ":7443", ':7443 is already taken by rule "rule-0"'),
        (TCP, "0.0.0.0:7000-8000", ":7443", ':7443 is already taken by rule "rule-0" with 0.0.0.0:7000-8000'),
        (BOTH, ":7443", "[::]:7443", '[::]:7443/tcp is already taken by rule "rule-0" with :7443'),
        (UDP, ":7443", ":7443", None),
        (TCP, ":7443", "127.0.0.1:7443", None),
        (TCP, ":0", ":0", None),
    ],
)
def test_the_tunnel_shares_no_port_with_a_rule(
    carry: Protocol, listen: str, tunnel: str, what: str | None
) -> None:
    """What [tunnel] listens on is compared with the TCP listeners of rules as theirs are with each other."""
    path = ("tunnel", "listen")
    findings = check(seen(([listen], []), carry=[carry]), tunnel_at(tunnel))
    assert [(finding.path, finding.what) for finding in findings] == ([] if what is None else [(path, what)])


def test_the_tunnel_listens_once() -> None:
    """An address that stands twice in its list is told as one of its own."""
    (finding,) = check([], tunnel_at(":7443", "0.0.0.0:7443"))
    assert finding.what == "0.0.0.0:7443 is already taken by [tunnel] with :7443"


def tunnel_at(*listen: str) -> SeenTunnel:
    """Make a tunnel that listens there."""
    places = (("tunnel", "listen"), ("tunnel", "listen", 1))
    addresses = tuple(map(ListenAddress.parse, listen))
    return SeenTunnel(is_there=True, listen=tuple(zip(places, addresses, strict=False)))
