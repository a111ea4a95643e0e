"""What the model says about its keys, and what an unknown key may have meant."""

import pytest

from appliance.ruleset.keys import HEADERS, Table, keys_of, literal, unknown_hint
from appliance.ruleset.model import DefaultsTable, File, GatewayTable, RuleTable
from appliance.ruleset.tunnel_tables import AgentTable, TunnelTable

RULE_HAS = (
    "[[rule]] has name, listen, to, protocol, connect_timeout, idle_timeout, "
    "responses, max_flows, max_flows_per_client, receive_buffer, proxy_protocol, via, source"
)


@pytest.mark.parametrize("table", list(HEADERS))
def test_every_key_is_documented(table: Table) -> None:
    """No key lacks its description, what it takes, or an example: messages and the page are made of them."""
    for key in keys_of(table).values():
        assert key.description.endswith(".")
        assert key.wants
        assert key.examples


def test_defaults_are_told_once() -> None:
    """A rule's optional keys have no default of their own; the others' are as a file would write them."""
    assert {key.name: key.default for key in keys_of(DefaultsTable).values()} == {
        "protocol": "tcp",
        "connect_timeout": "5s",
        "idle_timeout": None,
        "responses": None,
        "max_flows": None,
        "max_flows_per_client": None,
        "receive_buffer": "4MiB",
        "proxy_protocol": "none",
    }
    assert {key.name: key.default for key in keys_of(GatewayTable).values()} == {
        "workers": "auto",
        "drain_timeout": "30s",
        "admin": None,
    }
    assert {key.name: key.default for key in keys_of(TunnelTable).values()} == {
        "listen": None,
        "state": None,
        "heartbeat": "2s",
        "encryption": "tls",
    }
    for table in (RuleTable, AgentTable):
        assert {key.default for key in keys_of(table).values()} == {None}
    assert [key.name for key in keys_of(RuleTable).values() if key.is_required] == ["name", "listen", "to"]


@pytest.mark.parametrize("table", list(HEADERS))
def test_leaving_a_key_out_means_something(table: Table) -> None:
    """Each key is required, has a default, or says in words what its absence means: never two of these."""
    for key in keys_of(table).values():
        assert sum((key.is_required, key.default is not None, key.otherwise is not None)) == 1


def test_the_words_for_a_key_that_is_left_out() -> None:
    """The words of [defaults] say what the program does; those of a rule point there if it has the key."""
    defaults, rule = keys_of(DefaultsTable), keys_of(RuleTable)
    assert rule["via"].otherwise == "this host dials the endpoints itself"
    assert rule["proxy_protocol"].otherwise == "as [defaults] has it"
    assert keys_of(AgentTable)["encryption"].otherwise == "as [tunnel] has it"
    assert defaults["idle_timeout"].otherwise == "1h for TCP, 1m for UDP"
    assert rule["idle_timeout"].otherwise == rule["protocol"].otherwise == "as [defaults] has it"


def test_the_keys_of_flows_are_marked() -> None:
    """What a TCP rule cannot have is the same in both tables, and every other key is for both protocols."""
    for table in (DefaultsTable, RuleTable):
        assert [key.name for key in keys_of(table).values() if key.for_flows] == [
            *("responses", "max_flows", "max_flows_per_client", "receive_buffer")
        ]
        assert [key.name for key in keys_of(table).values() if key.for_sessions] == ["proxy_protocol"]


@pytest.mark.parametrize(
    ("name", "written", "example"),
    [
        ("protocol", "UDP", "udp"),
        ("protocol", "tcp,udp", "tcp+udp"),
        ("protocol", "both", "tcp"),
        ("protocol", ["udp"], "tcp"),
        ("protocol", "udp" * 1_000_000, "tcp"),
        ("receive_buffer", 5, "4MiB"),
        ("responses", "1", 1),
    ],
)
def test_the_example_of_a_hint_is_the_nearest(name: str, written: object, example: object) -> None:
    """What nearly is an example gets that one, anything else the first."""
    assert keys_of(RuleTable)[name].example(written) == example


def test_no_alias_is_a_key_or_means_two() -> None:
    """What other programs call a key is never a key here, nor stands for two keys of a table.

    The name of a table may be one, as `agent` is for `via`: within another table it is not the table.
    """
    keys = {key.name for table in HEADERS for key in keys_of(table).values()}
    for table in (File, *HEADERS):
        aliases = [alias for key in keys_of(table).values() for alias in key.aka]
        assert not keys.intersection(aliases)
        assert table is not File or not set(keys_of(File)).intersection(aliases)
        assert len(aliases) == len(set(aliases))


@pytest.mark.parametrize(
    ("table", "name", "hint"),
    [
        (GatewayTable, "wokers", "did you mean workers?"),
        (GatewayTable, "listen", "it belongs in [[rule]] or [tunnel]"),
        (RuleTable, "agent", "did you mean via?"),
        (RuleTable, "transparent", "did you mean source?"),
        (RuleTable, "send-proxy-v2", "did you mean proxy_protocol?"),
        (RuleTable, "allow_to", "it belongs in [[agent]]"),
        (DefaultsTable, "via", "it belongs in [[rule]]"),
        (TunnelTable, "state_dir", "did you mean state?"),
        (TunnelTable, "heartbeats", "did you mean heartbeat?"),
        (AgentTable, "to", "it belongs in [[rule]]"),
        (AgentTable, "alow_to", "did you mean allow_to?"),
        (AgentTable, "tunnel", "did you mean [tunnel], on a line of its own?"),
        (File, "agents", "did you mean [[agent]]?"),
        (File, "tunel", "did you mean [tunnel]?"),
        (GatewayTable, "idle_timeout", "it belongs in [[rule]] or [defaults]"),
        (GatewayTable, "idle_timeot", "did you mean idle_timeout, in [[rule]] or [defaults]?"),
        (RuleTable, "drain_timeout", "it belongs in [gateway]"),
        (RuleTable, "Backend", "did you mean to?"),
        (RuleTable, "LISTEN", "did you mean listen?"),
        (RuleTable, "proxy_responses", "did you mean responses?"),
        (DefaultsTable, "udp_timeout", "did you mean idle_timeout?"),
        (RuleTable, "max_flow", "did you mean max_flows?"),
        (RuleTable, "rcvbuf", "did you mean receive_buffer?"),
        (RuleTable, "qqq", RULE_HAS),
        (RuleTable, "q" * 1_000_000, RULE_HAS),
        (RuleTable, "gateway", "did you mean [gateway], on a line of its own?"),
        (GatewayTable, "defalts", "did you mean [defaults], on a line of its own?"),
        (File, "workes", "did you mean workers, in [gateway]?"),
        (File, "rules", "did you mean [[rule]]?"),
        (File, "Gateways", "did you mean [gateway]?"),
        (File, "workers", "it belongs in [gateway]"),
        (File, "", "a file has [[rule]], [defaults], [gateway], [tunnel], [[agent]]"),
    ],
)
def test_an_unknown_key_has_a_hint(table: Table, name: str, hint: str) -> None:
    """The hint is where the key belongs, else the key that was meant, else what there is."""
    assert unknown_hint(table, name) == hint


def test_examples_are_written_as_toml() -> None:
    """Examples read back from TOML as themselves."""
    assert literal("a") == '"a"'
    assert literal(4) == "4"
    assert literal(["a", "b"]) == '["a", "b"]'
