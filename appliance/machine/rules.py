"""Which ruleset the gateway runs: the operator's, else the last one that ran well, else the built-in one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.machine.config import LAST_GOOD, RULES, Place, Text, first
from appliance.problem import Problem
from appliance.ruleset import Ruleset, read

QUICKSTART: Final = """\
# Nothing says what to forward yet. This rule holds its place, and only the machine itself can reach it.
[[rule]]
name = "quickstart"
listen = "127.0.0.1:18080"
to = "127.0.0.1:18081"
"""
BUILT_IN: Final = "built-in quickstart"

Render = Callable[[Problem], str]
"""Write a problem as lines: where, what, the line, the hint."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A ruleset that can be run, and where it is from."""

    ruleset: Ruleset
    text: Text
    is_own: bool
    """Whether the operator wrote it, here and now."""
    is_stopgap: bool = False
    """Whether it stands in for rules that are there but do not run."""


def candidates(
    places: Iterable[Place], kept: Path | None, render: Render, problems: list[str]
) -> Iterator[Candidate]:
    """Give the rulesets to try, the best first, each read when it is its turn; the last one always runs.

    `kept` is the folder that may have the last one that ran well. `problems` gets what is wrong, as lines.
    """
    own = first(places, RULES, problems)
    if own and (candidate := _candidate(own, render, problems, is_own=True)):
        yield candidate
    last = first([Place("last good", kept)], LAST_GOOD, problems) if kept else None
    if last:
        text = Text("the last rules that ran well", last.data)
        if (own is None or own.data != last.data) and (
            candidate := _candidate(text, render, problems, is_own=False)
        ):
            yield candidate
    built_in = read(QUICKSTART.encode(), "quickstart")
    assert isinstance(built_in, Ruleset)
    is_stopgap = own is not None or last is not None
    yield Candidate(built_in, Text(BUILT_IN, QUICKSTART.encode()), is_own=False, is_stopgap=is_stopgap)


def _candidate(text: Text, render: Render, problems: list[str], *, is_own: bool) -> Candidate | None:
    ruleset = read(text.data, text.origin)
    if isinstance(ruleset, Ruleset):
        return Candidate(ruleset, text, is_own)
    problems.extend(render(problem) for problem in ruleset)
    return None
