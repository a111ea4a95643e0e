"""The JSON Schema."""

import re

import pytest
from jsonschema import Draft202012Validator

from appliance.ruleset.keys import HEADERS, keys_of
from appliance.ruleset.schema import DIALECT, json_schema

RULE = {"name": "web", "listen": ":80", "to": "10.0.0.5:80"}
TUNNEL = {"listen": ":7443", "state": "/var/lib/portway"}
AGENT = {"name": "office", "allow_to": ["192.168.1.0/24:22", "db.internal:5432", "unix:/run/app.sock"]}
FLOWS = {"responses": 1, "max_flows": 10, "max_flows_per_client": 5, "receive_buffer": "64KiB"}


def test_it_is_a_schema() -> None:
    """It says its dialect and is valid in it, and every pattern compiles."""
    schema = json_schema()
    assert schema["$schema"] == DIALECT
    Draft202012Validator.check_schema(schema)
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    scalars = ("Duration", "Size", "AdminAddress", "Directory")
    for name in (*scalars, "ListenAddress", "TunnelAddress", "TargetAddress", "AllowedTarget"):
        re.compile(definitions[name]["pattern"])


def test_an_editor_can_explain_every_key() -> None:
    """Each key has description, examples and what leaving it out means; no other key is allowed."""
    schema = json_schema()
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    assert schema["additionalProperties"] is False
    for table in HEADERS:
        definition = definitions[table.__name__]
        assert definition["additionalProperties"] is False
        assert list(definition["properties"]) == list(keys_of(table))
        for key in keys_of(table).values():
            told = definition["properties"][key.name]
            otherwise = f" Left out: {key.otherwise}." if key.otherwise else ""
            assert told["description"] == f"{key.description}{otherwise}"
            assert told["examples"] == list(key.examples)
            assert told.get("default") == key.default


@pytest.mark.parametrize(
    ("document", "is_valid"),
    [
        ({"rule": [RULE]}, True),
        ({"rule": [{**RULE, "listen": [":80", "unix:/a"], "protocol": "tcp", "idle_timeout": "1h"}]}, True),
        ({"gateway": {"workers": 256, "drain_timeout": "1s"}, "defaults": {}, "rule": [RULE]}, True),
        ({"gateway": {"admin": "/run/portway/admin.sock"}, "rule": [RULE]}, True),
        ({"gateway": {"admin": "@"}, "rule": [RULE]}, True),
        ({"gateway": {"admin": "@portway"}, "rule": [RULE]}, False),
        ({"gateway": {"admin": "admin.sock"}, "rule": [RULE]}, False),
        ({}, False),
        ({"rule": []}, False),
        ({"rule": RULE}, False),
        ({"rule": [{**RULE, "listen": []}]}, False),
        ({"rule": [{**RULE, "listen": 80}]}, False),
        ({"rule": [{**RULE, "name": "a\n"}]}, False),
        ({"rule": [{**RULE, "idle_timeout": 5}]}, False),
        ({"rule": [{**RULE, "protocol": "UDP"}]}, False),
        ({"rule": [{**RULE, "protocol": "udp", **FLOWS}, {**RULE, "protocol": "tcp+udp"}]}, True),
        ({"defaults": FLOWS, "rule": [RULE]}, True),
        ({"rule": [{**RULE, **FLOWS, "receive_buffer": "4mb"}]}, False),
        ({"rule": [{**RULE, **FLOWS, "receive_buffer": 4096}]}, False),
        ({"rule": [{**RULE, **FLOWS, "responses": 0}]}, False),
        ({"rule": [{**RULE, **FLOWS, "responses": 1_000_001}]}, False),
        ({"rule": [{**RULE, **FLOWS, "max_flows": "100"}]}, False),
        ({"rule": [{**RULE, "other": 1}]}, False),
        ({"rule": [{"name": "web", "listen": ":80"}]}, False),
        ({"gateway": {"workers": 0}, "rule": [RULE]}, False),
        ({"gateway": {"workers": "many"}, "rule": [RULE]}, False),
        ({"gateway": {"workers": True}, "rule": [RULE]}, False),
        ({"defaults": {"listen": ":80"}, "rule": [RULE]}, False),
        ({"tunnel": {}, "rule": [RULE]}, False),
        ({"tunnel": TUNNEL, "rule": [RULE]}, True),
        ({"tunnel": {**TUNNEL, "heartbeat": "1m", "encryption": "none"}, "rule": [RULE]}, True),
        ({"tunnel": {**TUNNEL, "listen": [":7443", "127.0.0.1:0"]}, "rule": [RULE]}, True),
        ({"tunnel": {**TUNNEL, "listen": "unix:/a"}, "rule": [RULE]}, False),
        ({"tunnel": {**TUNNEL, "listen": ":7443-7444"}, "rule": [RULE]}, False),
        ({"tunnel": {**TUNNEL, "state": "portway"}, "rule": [RULE]}, False),
        ({"tunnel": {**TUNNEL, "encryption": "ssl"}, "rule": [RULE]}, False),
        ({"tunnel": TUNNEL, "agent": [AGENT], "rule": [{**RULE, "via": "office"}]}, True),
        ({"tunnel": TUNNEL, "agent": [{**AGENT, "encryption": "none"}], "rule": [RULE]}, True),
        ({"tunnel": TUNNEL, "agent": [{**AGENT, "allow_to": "10.0.0.0/8:*"}], "rule": [RULE]}, True),
        ({"tunnel": TUNNEL, "agent": [{**AGENT, "allow_to": []}], "rule": [RULE]}, False),
        ({"tunnel": TUNNEL, "agent": [{**AGENT, "allow_to": "10.0.0.0/33:1"}], "rule": [RULE]}, False),
        ({"tunnel": TUNNEL, "agent": [{}], "rule": [RULE]}, False),
        ({"tunnel": TUNNEL, "agent": AGENT, "rule": [RULE]}, False),
        ({"rule": [{**RULE, "via": "the office"}]}, False),
        ({"rule": [{**RULE, "proxy_protocol": "v3"}]}, False),
        ({"rule": [{**RULE, "source": "gateway"}]}, False),
        ({"defaults": {"proxy_protocol": "v2"}, "rule": [{**RULE, "proxy_protocol": "none"}]}, True),
        ({"defaults": {"via": "office"}, "rule": [RULE]}, False),
    ],
)
def test_it_tells_right_from_wrong(document: object, is_valid: bool) -> None:
    """The schema takes a right document and refuses wrong ones; tests/fuzz compares it with the reader."""
    assert Draft202012Validator(json_schema()).is_valid(document) is is_valid
