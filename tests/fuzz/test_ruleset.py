"""Whatever a ruleset file holds: a ruleset or problems, never anything else."""

import re
import tomllib

import tomlkit
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from appliance.cli.problems import as_json, render
from appliance.problem import Problem
from appliance.ruleset import Ruleset, read
from appliance.ruleset.schema import json_schema
from tests.unit.ruleset import written

SCHEMA = Draft202012Validator(json_schema())

WHOLE_FILE = re.compile(
    r"is already the name of a rule|is already taken by|, where .* has|the listeners differ"
    r"|leads back to|closes a loop|is a unix socket, and|is for UDP flows|is (?:more|less) than max_flows"
    r"|is for TCP sessions|there is no agent|there is no \[tunnel\]|is already the name of an agent"
    r"|is not in allow_to|is for rules that go via|has no address for source|has bits set beyond"
    r"|runs backwards|is too (?:long|short|large|small)|host name of \d+ characters|bytes long"
    r"|cannot be dialled|found the number \d+\.0$"
)
"""What only the reader checks: across keys and rules, and DIFFERENCES of the patterns.

And 1.0, which JSON has for a whole number, since it has one kind of number. TOML has two.
"""

SEED = """\
# comment
[gateway]
workers = 4 # cores
drain_timeout = "30s"
admin = "/run/portway/admin.sock"

[defaults]
idle_timeout = "1h"
protocol = 'tcp'

[[rule]]
name = "web"
listen = ["0.0.0.0:80", "[::]:80", "unix:/run/web.sock"]
to = "10.0.0.5:80"

[[rule]]
name = "voice"
listen = "192.0.2.1:16384-16483"
to = ["db.internal:5432-5531"]
connect_timeout = "250ms"

[[rule]]
name = "dns"
protocol = "tcp+udp"
listen = ":53"
to = "10.0.0.2:53"
responses = 1
max_flows = 20_000
max_flows_per_client = 1_000
receive_buffer = "8MiB"

[tunnel]
listen = ":7443"
state = "/var/lib/portway"
heartbeat = "500ms"

[[agent]]
name = "office"
allow_to = ["192.168.1.0/24:22", "[2001:db8::]/64:*", "db.office:5432"]
encryption = "none"

[[rule]]
name = "office-ssh"
listen = ":2222"
via = "office"
to = ["192.168.1.10:22", "db.office:5432"]
proxy_protocol = "v2"
source = "client"
"""

PIECES = [
    *(
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        '"',
        "'",
        '"""',
        "\\",
        "\n",
        "\r\n",
        "\r",
        "\t",
        " ",
        "#",
    ),
    *(
        "\0",
        "\x1b[2J",
        "\u202e",
        "\ufeff",
        "é",
        "🚪",
        "rule",
        "[rule]",
        "[[rule]]",
        "[gateway]\n",
        "name",
        "to",
    ),
    *(
        "listen",
        ':80"',
        "true",
        "1e9",
        "inf",
        "0x1F",
        "2026-01-02",
        "07:30:00",
        "workers",
        "idle_timeout",
        "max_flows",
        "protocol",
        'udp"',
        "via",
        "[tunnel]\n",
        "[[agent]]\n",
        "allow_to",
        "/24",
        "a.b",
    ),
]


def outcome(text: bytes) -> Ruleset | tuple[Problem, ...]:
    """Read a text and hold what is promised for any: problems lie in the text, in order, and can be shown."""
    result = read(text, "fuzz\x1b.toml")
    if isinstance(result, Ruleset):
        assert result.rules
        return result
    assert result
    assert list(result) == sorted(result)
    lines = text.removeprefix(b"\xef\xbb\xbf").decode(errors="replace").split("\n")
    for problem in result:
        assert 1 <= problem.place.line <= len(lines)
        assert problem.place.excerpt == lines[problem.place.line - 1].removesuffix("\r")
        assert 1 <= problem.place.column <= len(problem.place.excerpt) + 1
        assert len(problem.what) < 600
        shown = render(problem)
        assert shown.replace("\n", "").isprintable()
        assert max(map(len, shown.split("\n"))) < 2000
    as_json(result)
    return result


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes(text: bytes) -> None:
    """Bytes of no meaning are read or explained."""
    outcome(text)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=30).map("".join))
def test_any_text(text: str) -> None:
    """Text made of what TOML is made of is read or explained."""
    outcome(text.encode())


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_a_ruleset_with_damage(data: st.DataObject) -> None:
    """A right ruleset with parts cut out, doubled, swapped or put in is read or explained."""
    text = SEED
    for _ in range(data.draw(st.integers(1, 4))):
        begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        end = min(end, begin + data.draw(st.sampled_from([0, 1, 5, 60])))
        put = data.draw(st.sampled_from(["", text[begin:end] * 2, *PIECES]))
        text = text[:begin] + put + text[end:]
    outcome(text.encode())


def test_the_seed_is_right() -> None:
    """What is damaged is a right ruleset to begin with."""
    assert isinstance(outcome(SEED.encode()), Ruleset)


scalars = st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=5) | st.dates() | st.times()
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
names = st.sampled_from(["a", "b", "web-1", "A.b_c", "x" * 63, "x" * 64, "", "-a", "a b", "a\n"])
right_listen = st.sampled_from([":80", "0.0.0.0:80", "[::]:81", "127.0.0.1:0", "unix:/a", "[::1]:90-99"])
right_to = st.sampled_from(["10.0.0.5:80", "a.b:90-99", "unix:/b", "[2001:db8::1]:1", "localhost:80"])
right_allowed = st.sampled_from(
    [
        "0.0.0.0/0:*",
        "[::]/0:1-99",
        "10.0.0.0/8:80",
        "10.0.0.5:80",
        "[2001:db8::]/64:1",
        "a.b:90-99",
        "unix:/b",
    ]
)
right_duration = st.sampled_from(["5s", "1h30m", "250ms", "365d"])


def mostly(right: st.SearchStrategy[object], nearly: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Give what is right, at times what nearly is, and seldom anything at all."""
    return st.sampled_from([*[right] * 45, *[nearly] * 4, anything]).flatmap(lambda chosen: chosen)


def one_or_many(right: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Give a value or a list of them."""
    return right | st.lists(right, min_size=1, max_size=3)


durations = mostly(right_duration, written.durations())
protocols = mostly(st.sampled_from(["tcp", "udp", "tcp+udp"]), st.sampled_from(["TCP", "tcp,udp", ""]))
counts = mostly(st.integers(1, 1000), st.integers(-1, 2) | st.sampled_from([10**6, 10**6 + 1, 10**9, 2**70]))
optional = {
    "protocol": protocols,
    "connect_timeout": durations,
    "idle_timeout": durations,
    "responses": counts,
    "max_flows": counts,
    "max_flows_per_client": counts,
    "receive_buffer": mostly(st.sampled_from(["4KiB", "512kB", "4MiB", "1GiB"]), written.sizes()),
    "proxy_protocol": mostly(st.sampled_from(["none", "v1", "v2"]), st.sampled_from(["V2", "v3", "", 2])),
}
encryptions = mostly(st.sampled_from(["tls", "none"]), st.sampled_from(["TLS", "", True]))
tunnels = st.fixed_dictionaries(
    {
        "listen": mostly(
            one_or_many(st.sampled_from([":7443", "[::1]:0", "127.0.0.1:81"])),
            st.just([]) | one_or_many(written.addresses()),
        ),
        "state": mostly(st.sampled_from(["/a", "/var/lib/portway/"]), written.directories()),
    },
    optional={
        "heartbeat": mostly(st.sampled_from(["200ms", "2s", "1m"]), written.durations()),
        "encryption": encryptions,
    },
)
agents = st.fixed_dictionaries(
    {"name": mostly(st.sampled_from(["a", "b"]), names)},
    optional={
        "allow_to": mostly(one_or_many(right_allowed), st.just([]) | one_or_many(written.allowed())),
        "encryption": encryptions,
    },
)
unknown = {"zzz": anything, "admim": st.just("x")}
gateway = st.fixed_dictionaries(
    {},
    optional={
        "workers": mostly(st.just("auto") | st.integers(1, 256), st.integers(-1, 300)),
        "drain_timeout": durations,
        "admin": mostly(st.sampled_from(["@", "/a", "/run/portway/admin.sock"]), written.admins()),
    },
)
required = {
    "name": names.flatmap(lambda name: mostly(st.uuids().map(str), st.just(name))),
    "listen": mostly(one_or_many(right_listen), st.just([]) | one_or_many(written.addresses())),
    "to": mostly(one_or_many(right_to), st.just([]) | one_or_many(written.addresses())),
}
via = {
    "via": mostly(st.sampled_from(["a", "a", "a", "b"]), names),
    "source": mostly(st.just("client"), st.sampled_from(["gateway", "", "Client"])),
}
rules = st.fixed_dictionaries(required, optional=optional)
rules_via = st.fixed_dictionaries(required, optional={**optional, **via})


@st.composite
def documents(draw: st.DrawFn) -> dict[str, object]:
    """Give whole documents: most keys right, a few nearly, some missing, some unknown."""
    has_tunnel = draw(st.booleans())
    # Without a tunnel a rule that goes through one is wrong, and nothing else of it would be compared.
    kind = draw(st.sampled_from([rules_via if has_tunnel else rules] * 9 + [rules_via]))
    document: dict[str, object] = {"rule": draw(mostly(st.lists(kind, min_size=1, max_size=2), st.just([])))}
    if draw(st.booleans()):
        document["gateway"] = draw(
            mostly(gateway, st.dictionaries(st.text(max_size=3), anything, max_size=2))
        )
    if draw(st.booleans()):
        document["defaults"] = draw(st.fixed_dictionaries({}, optional=optional))
    if has_tunnel:
        own = st.lists(agents, min_size=1, max_size=2, unique_by=lambda agent: str(agent["name"]))
        document["tunnel"] = draw(mostly(tunnels, st.just({})))
        document["agent"] = draw(mostly(own, agents))
    damage(draw, document)
    return document


def damage(draw: st.DrawFn, document: dict[str, object]) -> None:
    """Put a key that is unknown into one of the tables at times, or take one out."""
    tables = [document, *(table for table in document.values() if isinstance(table, dict))]
    for several in (document["rule"], document.get("agent")):
        if isinstance(several, list):
            tables += [table for table in several if isinstance(table, dict)]
    table = draw(st.sampled_from(tables))
    done = draw(st.sampled_from([*["none"] * 9, "unknown", "missing"]))
    if done == "unknown":
        table[draw(st.sampled_from(["zzz", "admin", "lisen", "Name", "tunnel", "via", ""]))] = draw(anything)
    elif done == "missing" and table:
        del table[draw(st.sampled_from(sorted(table)))]


def as_toml(document: dict[str, object]) -> str:
    """Write a document as TOML; what tomlkit does not write so that it reads back is left aside."""
    text = tomlkit.dumps(document)
    try:
        same = tomllib.loads(text) == document
    except tomllib.TOMLDecodeError:
        same = False
    assume(same)
    return text


@settings(deadline=None, max_examples=600)
@given(documents())
def test_reader_and_schema_agree(document: dict[str, object]) -> None:
    """What the reader takes the schema takes; what only the reader refuses has a listed reason."""
    result = outcome(as_toml(document).encode())
    is_valid = SCHEMA.is_valid(document)
    if isinstance(result, Ruleset):
        assert is_valid
    elif is_valid:
        assert [problem for problem in result if not WHOLE_FILE.search(problem.what)] == []
