"""`portway source`: which endpoints are meant, and what is said where that cannot be told."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from appliance.__main__ import main
from appliance.host import routing
from appliance.host.answers import State
from appliance.host.commands import CommandError

NOTHING = State({4: [], 6: []}, {4: [], 6: []}, [])


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the host: 127.0.0.1 is its own, and its kernel has been told nothing."""
    monkeypatch.setattr(routing, "is_here", lambda host: host == "127.0.0.1")
    monkeypatch.setattr(routing, "state", lambda: NOTHING)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["source", *arguments], catch_exceptions=False)


def rules(*more: str) -> str:
    return "".join(
        f'[[rule]]\nname = "r{index}"\nlisten = "127.0.0.1:{index}"\n{keys}\n'
        for index, keys in enumerate(more, 1)
    )


def test_a_ruleset_names_the_endpoints(tmp_path: Path) -> None:
    """Those of rules with source = "client" that this host serves, and no others."""
    path = tmp_path / "rules.toml"
    path.write_text(rules('to = "127.0.0.1:80"\nsource = "client"', 'to = "[2001:db8::1]:80"'))
    result = run(str(path))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "ip route replace local default dev lo table 5057",
        "ip rule add pref 5057 from 127.0.0.1 iif lo ipproto tcp sport 80 lookup 5057",
    ]


def test_a_ruleset_without_such_a_rule(tmp_path: Path) -> None:
    """Nothing to print is a mistake, and the hint tells of agents."""
    path = tmp_path / "rules.toml"
    path.write_text(rules('to = "127.0.0.1:80"'))
    result = run(str(path))
    assert result.exit_code == 2
    assert "--to" in result.stderr


def test_check_fails_unless_all_is_there() -> None:
    """Each line with what it is; the exit status tells a script."""
    result = run("--check", "--to", "10.0.0.5:80")
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["missing"] * 3


def test_undo_with_nothing_to_take_back() -> None:
    """Nothing is printed."""
    result = run("--undo")
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize("arguments", [[], ["rules.toml", "--to", "10.0.0.5:80"], ["--to", "10.0.0.5"]])
def test_endpoints_are_named_in_one_way(arguments: list[str]) -> None:
    """A ruleset or --to, which must be an address with a port: status 2."""
    assert run(*arguments).exit_code == 2


def test_what_cannot_be_seen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root is told by nft; the sentence says so, with status 1."""

    def refuse() -> State:
        raise CommandError("nft does not say what there is: Operation not permitted")

    monkeypatch.setattr(routing, "state", refuse)
    result = run("--undo")
    assert result.exit_code == 1
    assert "as root" in result.stderr
