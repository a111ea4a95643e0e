"""Reading whole rulesets: what the case files do not show."""

import subprocess
import sys
import tomllib

import pytest

from appliance.ruleset import Protocol, Ruleset, read
from appliance.values import ListenAddress, TargetAddress

WEB = '[[rule]]\nname = "web"\nlisten = ":80"\nto = "10.0.0.5:80"\n'


def many(count: int) -> bytes:
    """Give a right ruleset of so many rules."""
    rule = (
        '[[rule]]\nname = "r{0}"\nlisten = ["0.0.0.0:{0}", "[::]:{0}"]\nto = "a:{0}"\nidle_timeout = "5m"\n'
    )
    return "".join(rule.format(port) for port in range(1, count + 1)).encode()


def test_values_have_their_plain_types() -> None:
    """What others use are plain tuples and floats, complete with defaults, whatever the model decodes to."""
    ruleset = read(WEB.encode(), "f")
    assert isinstance(ruleset, Ruleset)
    (rule,) = ruleset.rules
    assert type(rule.listen) is tuple
    assert rule.listen == (ListenAddress("", 80, 80),)
    assert rule.to == (TargetAddress("10.0.0.5", 80, 80),)
    assert (
        type(rule.idle_timeout) is type(rule.connect_timeout) is type(ruleset.gateway.drain_timeout) is float
    )
    assert (rule.connect_timeout, rule.idle_timeout, ruleset.gateway.drain_timeout) == (5.0, 3600.0, 30.0)
    assert rule.protocol is Protocol.TCP
    assert (rule.flow_idle_timeout, rule.receive_buffer) == (60.0, 4 * 1024 * 1024)
    assert (type(rule.flow_idle_timeout), type(rule.receive_buffer)) == (float, int)
    assert (rule.responses, rule.max_flows, rule.max_flows_per_client) == (None, None, None)
    assert ruleset.gateway.workers is None


def test_a_rule_overrides_the_defaults() -> None:
    """A time-out is the rule's own, else that of [defaults], else the built-in one."""
    text = f'[defaults]\nidle_timeout = "1m"\nconnect_timeout = "1s"\n{WEB}idle_timeout = "2m"\n'
    ruleset = read(text.encode(), "f")
    assert isinstance(ruleset, Ruleset)
    assert (ruleset.rules[0].idle_timeout, ruleset.rules[0].connect_timeout) == (120.0, 1.0)


def test_one_idle_timeout_is_for_sessions_and_flows() -> None:
    """Only where the file names none are there two: what it says holds for TCP and for UDP."""
    for text in (f'[defaults]\nidle_timeout = "2m"\n{WEB}', f'{WEB}idle_timeout = "2m"\n'):
        ruleset = read(text.encode(), "f")
        assert isinstance(ruleset, Ruleset)
        assert (ruleset.rules[0].idle_timeout, ruleset.rules[0].flow_idle_timeout) == (120.0, 120.0)


def test_a_rule_overrides_what_defaults_say_of_flows() -> None:
    """What is for flows alone is the rule's own, else that of [defaults], key by key."""
    flows = 'max_flows = 10\nmax_flows_per_client = 5\nresponses = 2\nreceive_buffer = "64KiB"\n'
    text = f'[defaults]\nprotocol = "udp"\n{flows}{WEB}responses = 1\nmax_flows = 20\n'
    ruleset = read(text.encode(), "f")
    assert isinstance(ruleset, Ruleset)
    (rule,) = ruleset.rules
    assert rule.protocol is Protocol.UDP
    assert (rule.responses, rule.max_flows, rule.max_flows_per_client) == (1, 20, 5)
    assert rule.receive_buffer == 65536


@pytest.mark.parametrize(
    ("protocol", "carries_tcp", "carries_udp"),
    [(Protocol.TCP, True, False), (Protocol.UDP, False, True), (Protocol.BOTH, True, True)],
)
def test_what_a_protocol_carries(protocol: Protocol, carries_tcp: bool, carries_udp: bool) -> None:
    """A rule for both is one for TCP and one for UDP."""
    assert (protocol.carries_tcp, protocol.carries_udp) == (carries_tcp, carries_udp)
    for other in Protocol:
        shared = protocol.shared(other)
        assert bool(shared and shared.carries_tcp) == (carries_tcp and other.carries_tcp)
        assert bool(shared and shared.carries_udp) == (carries_udp and other.carries_udp)


def test_equal_text_gives_equal_rulesets() -> None:
    """Rulesets compare by content, so that a reload can tell what changed."""
    assert read(many(20), "f") == read(many(20), "g")
    assert read(many(20), "f") != read(many(21), "f")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("listen =", "lisen ="),
        ("to =", "# to ="),
        ("a:80", "a"),
        (":80", ":99999"),
        ('"r', '"r '),
        ("to", "x = 1\nto"),
    ],
)
def test_one_mistake_hides_no_other(right: str, wrong: str) -> None:
    """Every one of a hundred rules with the same mistake is told."""
    text = "".join(f'[[rule]]\nname = "r{i}"\nlisten = ":{i}"\nto = "a:80"\n' for i in range(1, 101))
    problems = read(text.replace(right, wrong).encode(), "f")
    assert isinstance(problems, tuple)
    assert {problem.key.partition(".")[0] for problem in problems} == {f"rule[{i}]" for i in range(100)}


def test_problems_come_in_the_order_of_the_text() -> None:
    """Problems are sorted by place, those across rules among the others."""
    text = f"{WEB}{WEB.replace('10.0.0.5:80', 'wrong')}bogus = 1\n[gateway]\nworkers = 0\n"
    problems = read(text.encode(), "f")
    assert isinstance(problems, tuple)
    assert [problem.place.line for problem in problems] == [6, 7, 8, 9, 11]


def test_problems_name_the_file_they_are_told() -> None:
    """Both places of a clash name the file as the caller does."""
    problems = read((WEB + WEB).encode(), "dir/edge.toml")
    assert isinstance(problems, tuple)
    assert [str(problem) for problem in problems] == [
        'dir/edge.toml:6:8: rule[1].name: "web" is already the name of a rule (dir/edge.toml:2)',
        'dir/edge.toml:7:10: rule[1].listen: :80 is already taken by rule "web" (dir/edge.toml:3)',
    ]


def test_a_good_ruleset_needs_no_tomlkit() -> None:
    """Reading a right file imports no tomlkit: a gateway starts without it."""
    code = (
        "import sys\n"
        "from appliance.ruleset import Ruleset, read\n"
        f"assert isinstance(read({WEB.encode()!r}, 'f'), Ruleset)\n"
        "print('tomlkit' in sys.modules)\n"
        "read(b'x = 1', 'f')\n"
        "print('tomlkit' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]


def calls(count: int) -> int:
    """Count the Python calls that reading a right ruleset of so many rules takes."""
    made = 0

    def count_one(_frame: object, event: str, _arg: object) -> None:
        nonlocal made
        made += event == "call"

    text = many(count)
    sys.setprofile(count_one)
    try:
        read(text, "f")
    finally:
        sys.setprofile(None)
    return made


def test_work_grows_with_the_rules_and_not_with_their_square() -> None:
    """Four times the rules take four times the calls: neither clashes nor names are compared pair by pair."""
    calls(1)
    assert calls(400) < 4.5 * calls(100)


def test_toml_is_read_as_tomllib_reads_it() -> None:
    """The values of a ruleset are those of tomllib, escapes and all."""
    text = WEB.replace('":80"', '"\\u003a80"').replace('"10.0.0.5:80"', "'''\n10.0.0.5:80'''")
    assert tomllib.loads(text)["rule"][0]["listen"] == ":80"
    assert read(text.encode(), "f") == read(WEB.encode(), "f")
