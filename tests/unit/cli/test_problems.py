"""Problems on a terminal and as JSON."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.cli.problems import WIDTH, as_json, excerpt, render
from appliance.problem import Place, Problem


def test_a_problem_has_line_caret_and_hint() -> None:
    """Where and what, the line, a caret below the place, the hint: in this form."""
    problem = Problem(Place("edge.toml", 3, 10, "listen = :80"), "rule[0].listen", "is wrong", 'write ":80"')
    assert render(problem) == (
        'edge.toml:3:10: rule[0].listen: is wrong\n    listen = :80\n             ^\n  hint: write ":80"'
    )


def test_what_a_problem_has_not_is_left_out() -> None:
    """Without a line of text there is no caret, and without a hint no hint."""
    assert render(Problem(Place("edge.toml", 1, 1, ""), "", "is gone")) == "edge.toml:1:1: is gone"


@pytest.mark.parametrize(
    ("text", "column", "shown", "caret"),
    [
        ("a = 1", 5, "a = 1", 4),
        ("a = 1", 6, "a = 1", 5),
        ("\ta\t= 1", 4, "    a    = 1", 9),
        ("門 = 1", 5, "門 = 1", 5),
        ("\uff21 = 1", 5, "\uff21 = 1", 5),
        ("e\u0301 = 1", 6, "e\u0301 = 1", 4),
        ("\x1b = 1", 5, "\\x1b = 1", 7),
        ("\u202e = 1", 1, "\\u202e = 1", 0),
    ],
)
def test_the_caret_is_below_its_character(text: str, column: int, shown: str, caret: int) -> None:
    """Tabs, wide characters, combining marks and escapes are counted as a terminal shows them."""
    assert excerpt(Place("f", 1, column, text)) == (shown, caret)


@pytest.mark.parametrize("column", [1, 40, 51, 5_000, 9_950, 10_000, 10_001])
def test_a_long_line_is_cut_around_the_place(column: int) -> None:
    """Of a long line about a hundred characters are shown, the place among them, cuts marked."""
    text = "".join(chr(ord("a") + at % 26) for at in range(10_000))
    shown, caret = excerpt(Place("f", 1, column, text))
    assert len(shown) <= WIDTH + 2
    assert shown[caret : caret + 1].replace("…", "") == text[column - 1 : column]
    assert shown.startswith("…") == (column > WIDTH // 2 + 1)
    assert shown.endswith("…") == (column < 9_951)


@settings(deadline=None)
@given(st.text(max_size=300), st.integers(0, 300))
def test_no_line_steers_the_terminal(text: str, before: int) -> None:
    """Any text at any place is shown printable, and the caret stands within it or just behind."""
    shown, caret = excerpt(Place("f", 1, min(before, len(text)) + 1, text))
    assert shown.isprintable()
    wide = sum(unicodedata.east_asian_width(char) in {"W", "F"} for char in shown)
    assert 0 <= caret <= len(shown) + wide


def test_file_key_and_hint_do_not_steer_the_terminal_either() -> None:
    """All that is printed is escaped, wherever it comes from."""
    problem = Problem(Place("\x1b.toml", 1, 1, "x"), "\x9b", "is \x07", "write \x08")
    assert render(problem).replace("\n", "").isprintable()


def test_json_is_flat_and_whole() -> None:
    """Every field is there, a missing hint as null, for each problem in order."""
    problems = [
        Problem(Place("f", 3, 2, "\tü\x1b"), "rule[0]", "is wrong", "mend it"),
        Problem(Place("\udc80", 4, 1, ""), "", "is gone"),
    ]
    first, second = json.loads(as_json(problems))
    assert first == {
        "file": "f",
        "line": 3,
        "column": 2,
        "key": "rule[0]",
        "what": "is wrong",
        "hint": "mend it",
        "excerpt": "    ü\\x1b",
    }
    assert (second["file"], second["hint"]) == ("\\udc80", None)
    assert json.loads(as_json([])) == []
