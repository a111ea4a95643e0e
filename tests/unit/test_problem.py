"""Problems and what of them reaches a terminal."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.problem import Place, Problem, printable, quoted


def test_a_problem_is_one_line() -> None:
    """str() has file, line, column, key and what; a problem without a key leaves it out."""
    place = Place("edge.toml", 3, 7, "listen = 5")
    assert (
        str(Problem(place, "rule[0].listen", "is wrong", "mend it"))
        == "edge.toml:3:7: rule[0].listen: is wrong"
    )
    assert str(Problem(place, "", "is wrong")) == "edge.toml:3:7: is wrong"


def test_problems_sort_by_place() -> None:
    """Problems come in the order of the text whatever order they were found in, hints or not."""
    problems = [
        Problem(Place("a", line, column, "x"), key, "what", hint)
        for line in (1, 2, 10)
        for column in (1, 9)
        for key, hint in (("k", None), ("l", "h"))
    ]
    for seed in range(20):
        shuffled = random.Random(seed).sample(problems, len(problems))
        assert sorted(shuffled) == problems


@settings(deadline=None)
@given(st.text())
def test_printable_is_printable_and_stays(text: str) -> None:
    """Nothing that steers a terminal is left, and a second time changes nothing."""
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown


def test_printable_escapes() -> None:
    """Escapes are those of Python; what is printable, umlauts and backslashes too, stays."""
    assert (
        printable("a\x1b[31m\n\t\u202e\U000e0001\udc80ü\\") == "a\\x1b[31m\\n\\t\\u202e\\U000e0001\\udc80ü\\"
    )


def test_printable_lets_through_what_it_is_told_to() -> None:
    """Line ends of a traceback may stay, and nothing else with them."""
    assert printable("büro-東京") == "büro-東京"
    assert printable("a\n\r\tb", keep="\n") == "a\n\\r\\tb"


def test_a_problem_of_a_whole_file_has_no_line() -> None:
    """Where there is no text there is no line to look at."""
    assert str(Problem(Place("edge.toml"), "", "cannot be read")) == "edge.toml: cannot be read"


def test_other_places_stand_behind_what() -> None:
    """A problem of several places names them all, and `what` alone none."""
    problem = Problem(
        Place("f", 3, 1, "x"), "k", "clashes", None, (Place("f", 1, 2, "y"), Place("f", 2, 1, "z"))
    )
    assert str(problem) == "f:3:1: k: clashes (f:1, f:2)"
    assert problem.what == "clashes"


def test_quoted_is_short_and_closed() -> None:
    """A quoted value shows its own quotes and backslashes as such, and a long one is cut."""
    assert quoted('a"b\\c\n') == '"a\\"b\\\\c\\n"'
    assert quoted("x" * 61) == '"' + "x" * 59 + '…"'
    assert quoted("x" * 60) == '"' + "x" * 60 + '"'
