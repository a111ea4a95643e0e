"""Checks of what goes through a tunnel."""

import pytest

from appliance.problem import Problem
from appliance.ruleset import Encryption, ProxyProtocol, Ruleset, read

TUNNEL = '[tunnel]\nlisten = ":7443"\nstate = "/var/lib/portway"\n'
AGENT = '[[agent]]\nname = "office"\n'
RULE = '[[rule]]\nname = "ssh"\nlisten = ":22"\nto = "192.168.1.10:22"\n'
VIA = f'{RULE}via = "office"\n'


def problems(*parts: str) -> list[tuple[str, str, str | None]]:
    """Give key, message and hint of every problem of a text."""
    result = read("".join(parts).encode(), "f")
    assert isinstance(result, tuple)
    assert all(isinstance(problem, Problem) for problem in result)
    return [(problem.key, problem.what, problem.hint) for problem in result]


def ruleset(*parts: str) -> Ruleset:
    """Read a text that is right."""
    result = read("".join(parts).encode(), "f")
    assert isinstance(result, Ruleset), result
    return result


def test_an_agent_that_no_rule_uses_is_right() -> None:
    """A tunnel may be there before its rules are."""
    assert [agent.name for agent in ruleset(TUNNEL, AGENT, RULE).agents] == ["office"]
    assert ruleset(TUNNEL, RULE).agents == ()


def test_a_tunnel_alone_forwards_nothing() -> None:
    """There has to be a rule in any file."""
    ((_, what, _),) = problems(TUNNEL, AGENT)
    assert what.startswith("there is no [[rule]]")


@pytest.mark.parametrize(
    ("parts", "hint"),
    [
        ((TUNNEL, AGENT, VIA.replace("office", "ofice")), 'did you mean "office"?'),
        ((TUNNEL, AGENT, VIA.replace("office", "q")), 'add [[agent]], and below it name = "q"'),
        ((TUNNEL, VIA), 'add [[agent]], and below it name = "office"'),
        (
            (VIA,),
            'add [[agent]], and below it name = "office"; and [tunnel], and below it listen and state',
        ),
    ],
)
def test_a_rule_goes_via_an_agent_that_is_there(parts: tuple[str, ...], hint: str) -> None:
    """Else the nearest name is the hint, or what to add."""
    ((key, what, told),) = problems(*parts)
    assert (key, told) == ("rule[0].via", hint)
    assert what.startswith("there is no agent ")


@pytest.mark.parametrize(
    "agents",
    ['[[agent]]\nname = "the office"\n', "[[agent]]\n", '[[agents]]\nname = "office"\n', "agent = 1\n"],
)
def test_an_agent_that_is_wrong_by_itself_hides_that_it_is_meant(agents: str) -> None:
    """One mistake, one problem: a rule is not told of an agent whose table could not be understood."""
    assert not [what for _, what, _ in problems(agents, TUNNEL, VIA) if "no agent" in what]


@pytest.mark.parametrize("tunnel", ["[tunel]\n", "[tunnel]\n", "tunnel = 1\n"])
def test_a_tunnel_that_is_wrong_by_itself_is_one(tunnel: str) -> None:
    """Whoever wrote [tunnel], or nearly, is not told to add it."""
    assert not [what for _, what, _ in problems(tunnel, AGENT, VIA) if "there is no" in what]


def test_agents_without_a_tunnel_are_told_once() -> None:
    """However many agents and rules there are, what is missing is one table."""
    branch = AGENT.replace("office", "branch")
    ((key, what, hint),) = problems(AGENT, branch, VIA)
    assert (key, what) == ("agent[0]", "there is no [tunnel], so no agent could come in")
    assert hint == "add [tunnel], and below it listen and state"


def test_agents_have_names_of_their_own() -> None:
    """A name that is there twice is told at the second, and rules are held against the first."""
    twice = f'{AGENT}allow_to = "192.168.1.0/24:22"\n{AGENT}allow_to = "10.0.0.0/8:*"\n'
    ((key, what, _),) = problems(TUNNEL, twice, VIA)
    assert (key, what) == ("agent[1].name", '"office" is already the name of an agent')


@pytest.mark.parametrize(
    ("allow_to", "to", "outside"),
    [
        ('"192.168.1.0/24:22"', '"192.168.1.10:22"', []),
        ('"192.168.1.0/24:22"', '["192.168.1.10:22", "192.168.1.10:23"]', ["rule[0].to[1]"]),
        ('"192.168.1.0/24:22"', '"ssh.office:22"', []),
        ('"192.168.1.0/24:22"', '"ssh.office:23"', ["rule[0].to"]),
        ('["db.office:22", "192.168.1.10:22"]', '"ssh.office:22"', []),
        ('"db.office:22"', '"ssh.office:22"', ["rule[0].to"]),
        ('"ssh.office:22"', '"SSH.office:22"', []),
        ('"0.0.0.0/0:*"', '["unix:/a", "[::1]:1"]', ["rule[0].to[0]", "rule[0].to[1]"]),
        ('["unix:/a", "[::]/0:*"]', '["unix:/a", "[::1]:1"]', []),
    ],
)
def test_targets_are_within_what_their_agent_may_reach(allow_to: str, to: str, outside: list[str]) -> None:
    """Each that is not is told at its place; of a name that a network may have only the agent can tell."""
    text = (TUNNEL, AGENT, f"allow_to = {allow_to}\n", VIA.replace('"192.168.1.10:22"', to))
    if outside:
        assert [key for key, _, _ in problems(*text)] == outside
    else:
        ruleset(*text)


def test_a_list_that_is_wrong_in_part_refuses_no_target() -> None:
    """What could not be understood of a list may be what allows a target."""
    ((key, _, _),) = problems(TUNNEL, AGENT, 'allow_to = ["10.0.0.0/8:*", "192.168.1.10"]\n', VIA)
    assert key == "agent[0].allow_to[1]"


def test_the_hint_for_a_target_outside_can_be_written() -> None:
    """What is to be added to the list reads, and allows the target, with an interface too."""
    text = (TUNNEL, AGENT, 'allow_to = "10.0.0.0/8:*"\n', VIA.replace("192.168.1.10:22", "[fe80::1%eth0]:22"))
    ((_, _, hint),) = problems(*text)
    assert hint is not None
    assert hint.startswith('add "[fe80::1]:22" to it')
    ruleset(*(part.replace("10.0.0.0/8:*", "[fe80::1]:22") for part in text))


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        (RULE.replace(":22", "unix:/a", 1), "rule[0].listen"),
        (VIA.replace(":22", "unix:/a", 1), "rule[0].listen"),
        (VIA.replace("192.168.1.10:22", "unix:/a"), "rule[0].to"),
    ],
)
def test_the_source_is_the_clients_only_where_it_can_be(rule: str, key: str) -> None:
    """From an address to an address; by this host, or by an agent."""
    ((told, _, _),) = problems(TUNNEL, AGENT, f'{rule}source = "client"\n')
    assert told == key
    for good, via in ((RULE, None), (VIA, "office")):
        (right,) = ruleset(TUNNEL, AGENT, f'{good}source = "client"\n').rules
        assert (right.via, right.is_transparent) == (via, True)


@pytest.mark.parametrize(
    ("defaults", "own", "protocol", "expected"),
    [
        ("", "", "tcp", None),
        ("", "v2", "tcp", ProxyProtocol.V2),
        ("v1", "", "tcp", ProxyProtocol.V1),
        ("v1", "v2", "tcp+udp", ProxyProtocol.V2),
        ("v1", "none", "tcp", None),
        ("v1", "", "udp", None),
        ("v1", "", "tcp+udp", ProxyProtocol.V1),
    ],
)
def test_the_proxy_protocol_is_for_sessions(
    defaults: str, own: str, protocol: str, expected: ProxyProtocol | None
) -> None:
    """A rule's own word counts, else that of [defaults], which passes by a rule of UDP only."""
    default = f'[defaults]\nproxy_protocol = "{defaults}"\n' if defaults else ""
    said = f'proxy_protocol = "{own}"\n' if own else ""
    (rule,) = ruleset(default, f'{RULE}protocol = "{protocol}"\n{said}').rules
    assert rule.proxy_protocol is expected


def test_a_rule_of_udp_only_says_nothing_of_the_proxy_protocol() -> None:
    """It would promise what no datagram carries."""
    ((key, what, _),) = problems(f'{RULE}protocol = "udp"\nproxy_protocol = "none"\n')
    assert (key, what) == ("rule[0].proxy_protocol", "is for TCP sessions, and this rule carries UDP only")


def test_values_of_a_tunnel_have_their_plain_types() -> None:
    """What others use are plain tuples, texts and floats, complete with defaults."""
    complete = ruleset(TUNNEL, AGENT, AGENT.replace("office", "branch"), 'encryption = "none"\n', VIA)
    tunnel = complete.tunnel
    assert tunnel is not None
    assert (type(tunnel.listen), type(tunnel.state), type(tunnel.heartbeat)) == (tuple, str, float)
    assert list(map(str, tunnel.listen)) == [":7443"]
    assert (tunnel.state, tunnel.heartbeat) == ("/var/lib/portway", 2.0)
    assert [(agent.allow_to, agent.encryption) for agent in complete.agents] == [
        (None, Encryption.TLS),
        (None, Encryption.NONE),
    ]
    assert ruleset(RULE).tunnel is None


def test_what_the_tunnel_says_of_encryption_holds_for_its_agents() -> None:
    """Each agent may say otherwise."""
    branch = f'{AGENT.replace("office", "branch")}encryption = "tls"\n'
    complete = ruleset(TUNNEL, 'encryption = "none"\n', AGENT, branch, VIA)
    assert [agent.encryption for agent in complete.agents] == [Encryption.NONE, Encryption.TLS]
