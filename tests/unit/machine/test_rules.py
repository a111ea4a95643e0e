"""Which ruleset is tried, and in which order."""

from pathlib import Path

from appliance.machine.config import LAST_GOOD, RULES, Place
from appliance.machine.rules import Candidate, candidates

GOOD = b'[[rule]]\nname = "web"\nlisten = ":8080"\nto = "10.0.0.5:80"\n'
OLD = b'[[rule]]\nname = "old"\nlisten = ":8080"\nto = "10.0.0.6:80"\n'
BAD = b'[[rule]]\nname = "web"\nlisten = ":808080"\nto = "10.0.0.5:80"\n'


def tried(folder: Path) -> tuple[list[Candidate], list[str]]:
    """Every candidate, and the problems on the way."""
    problems: list[str] = []
    return list(candidates([Place("PORTWAY", folder)], folder, str, problems)), problems


def test_nothing_is_there(tmp_path: Path) -> None:
    """A machine without rules runs the built-in ones, which nobody outside can reach."""
    (only,), problems = tried(tmp_path)
    assert [rule.name for rule in only.ruleset.rules] == ["quickstart"]
    assert str(only.ruleset.rules[0].listen[0]).startswith("127.0.0.1:")
    assert (only.is_own, only.is_stopgap, problems) == (False, False, [])


def test_the_operators_come_first_then_the_last_good_ones(tmp_path: Path) -> None:
    """Own rules, the last good ones where they are others, the built-in ones."""
    (tmp_path / RULES).write_bytes(GOOD)
    (tmp_path / LAST_GOOD).write_bytes(OLD)
    found, problems = tried(tmp_path)
    assert [each.ruleset.rules[0].name for each in found] == ["web", "old", "quickstart"]
    assert [each.is_own for each in found] == [True, False, False]
    assert [each.is_stopgap for each in found] == [False, False, True]
    assert problems == []
    (tmp_path / LAST_GOOD).write_bytes(GOOD)
    assert [each.ruleset.rules[0].name for each in tried(tmp_path)[0]] == ["web", "quickstart"]


def test_wrong_rules_are_told_and_passed_over(tmp_path: Path) -> None:
    """Rules with a mistake are not run; the mistake is told with its place."""
    (tmp_path / RULES).write_bytes(BAD)
    (tmp_path / LAST_GOOD).write_bytes(OLD)
    found, problems = tried(tmp_path)
    assert [each.ruleset.rules[0].name for each in found] == ["old", "quickstart"]
    assert len(problems) == 1
    assert problems[0].startswith("PORTWAY:rules.toml:3:10: rule[0].listen: ")
