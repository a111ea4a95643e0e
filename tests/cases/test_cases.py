"""Rulesets in, exact messages or the whole model out.

A case is a TOML file with what is expected beside it. `python -m tests.cases.test_cases` writes what the
program says now into those files: for reading the difference before it is committed.
"""

import json
from pathlib import Path

import pytest

from appliance.cli.problems import render
from appliance.ruleset import Ruleset, read

HERE = Path(__file__).parent
BAD = sorted((HERE / "bad").glob("*.toml"))
GOOD = sorted((HERE / "good").glob("*.toml"))


def messages(case: Path) -> str:
    """Give the problems of a case as `portway check` prints them."""
    problems = read(case.read_bytes(), case.name)
    assert isinstance(problems, tuple)
    return "\n".join((*map(render, problems), ""))


def model(case: Path) -> str:
    """Give the ruleset of a case as JSON, addresses as their canonical text."""
    ruleset = read(case.read_bytes(), case.name)
    assert isinstance(ruleset, Ruleset)
    gateway = {
        "workers": ruleset.gateway.workers,
        "drain_timeout": ruleset.gateway.drain_timeout,
        "admin": ruleset.gateway.admin,
    }
    rules = [
        {
            "name": rule.name,
            "listen": [str(address) for address in rule.listen],
            "to": [str(address) for address in rule.to],
            "protocol": rule.protocol,
            "connect_timeout": rule.connect_timeout,
            "idle_timeout": rule.idle_timeout,
            "flow_idle_timeout": rule.flow_idle_timeout,
            "responses": rule.responses,
            "max_flows": rule.max_flows,
            "max_flows_per_client": rule.max_flows_per_client,
            "receive_buffer": rule.receive_buffer,
            "proxy_protocol": rule.proxy_protocol,
            "via": rule.via,
            "is_transparent": rule.is_transparent,
        }
        for rule in ruleset.rules
    ]
    return json.dumps({"gateway": gateway, "rules": rules, **tunnel(ruleset)}, indent=2) + "\n"


def tunnel(ruleset: Ruleset) -> dict[str, object]:
    """Give the tunnel of a ruleset that has one, and its agents."""
    if ruleset.tunnel is None:
        assert not ruleset.agents
        return {}
    agents = [
        {
            "name": agent.name,
            "allow_to": None if agent.allow_to is None else [str(part) for part in agent.allow_to],
            "encryption": agent.encryption,
        }
        for agent in ruleset.agents
    ]
    where = {
        "listen": [str(address) for address in ruleset.tunnel.listen],
        "state": ruleset.tunnel.state,
        "heartbeat": ruleset.tunnel.heartbeat,
    }
    return {"tunnel": where, "agents": agents}


def test_there_are_cases() -> None:
    """Cases of both kinds are found: an empty list would pass every test of this file."""
    assert len(BAD) > 20
    assert len(GOOD) > 3


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.stem)
def test_a_wrong_ruleset_gives_these_messages(case: Path) -> None:
    """The messages, places, excerpts and hints for a wrong ruleset are exactly those written beside it."""
    assert messages(case) == case.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.stem)
def test_a_right_ruleset_gives_this_model(case: Path) -> None:
    """What a right ruleset means, defaults included, is exactly what is written beside it."""
    assert model(case) == case.with_suffix(".json").read_text(encoding="utf-8")


if __name__ == "__main__":
    for bad in BAD:
        bad.with_suffix(".txt").write_text(messages(bad), encoding="utf-8")
    for good in GOOD:
        good.with_suffix(".json").write_text(model(good), encoding="utf-8")
