"""Problems shown to a person, or as JSON to a program."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

import click
import msgspec

from appliance.problem import Place, Problem, printable

WIDTH: Final = 100
"""The most characters of a line that are shown around a place."""

_TAB: Final = "    "
_INDENT: Final = "    "


def render(problem: Problem) -> str:
    """Give a problem as lines: where and what, the line of the file with a caret below, the hint."""
    lines = [str(problem)]
    if problem.place.excerpt:
        shown, caret = excerpt(problem.place)
        lines += [f"{_INDENT}{shown}", f"{_INDENT}{' ' * caret}^"]
    return _with_hint("\n".join(lines), problem.hint)


def complain(what: str, hint: str | None = None) -> None:
    """Print to stderr what is wrong where no file has a place for it, and what to do about it."""
    click.echo(_with_hint(f"portway: {printable(what)}", hint), err=True)


def _with_hint(text: str, hint: str | None) -> str:
    return f"{text}\n  hint: {printable(hint)}" if hint else text


def excerpt(place: Place) -> tuple[str, int]:
    """Give a place's line as a terminal shows it, and how many terminal columns stand before the place.

    Tabs become spaces and what would steer the terminal is escaped; a long line is cut around the place.
    """
    index = place.column - 1
    begin, end = _window(len(place.excerpt), index)
    before = ("…" if begin else "") + _shown(place.excerpt[begin:index])
    after = _shown(place.excerpt[index:end]) + ("…" if end < len(place.excerpt) else "")
    return before + after, _columns(before)


def _window(length: int, index: int) -> tuple[int, int]:
    begin = max(0, min(index - WIDTH // 2, length - WIDTH))
    return begin, min(length, begin + WIDTH)


def _shown(text: str) -> str:
    return printable(text.replace("\t", _TAB))


def _columns(text: str) -> int:
    return sum(_width(char) for char in text)


def _width(char: str) -> int:
    """Give a character's columns: East Asian wide ones have two, combining marks none (UAX #11)."""
    if unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def as_json(problems: Iterable[Problem]) -> bytes:
    """Give problems as a JSON array of flat objects; line and column are null for a file as a whole."""
    return msgspec.json.format(msgspec.json.encode([_object(problem) for problem in problems]))


def _object(problem: Problem) -> dict[str, str | int | None]:
    place = problem.place
    return {
        "file": printable(place.file),
        "line": place.line or None,
        "column": place.column or None,
        "key": problem.key,
        "what": problem.what_and_where,
        "hint": problem.hint,
        "excerpt": excerpt(place)[0],
    }


def report(problems: Sequence[Problem]) -> None:
    """Print problems to stderr, and how many there are."""
    for problem in problems:
        click.echo(render(problem), err=True)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    click.echo(f"{printable(problems[0].place.file)}: {count}", err=True)
