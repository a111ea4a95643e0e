"""Text that is TOML, and text that is not."""

import pytest

from appliance.problem import Problem
from appliance.ruleset.parse import parse


def refused(text: str | bytes) -> Problem:
    """Give the problem of a text that is not TOML."""
    problem = parse(text.encode() if isinstance(text, str) else text, "f.toml")
    assert isinstance(problem, Problem)
    return problem


def test_toml_is_read_after_a_byte_order_mark() -> None:
    """One leading mark is taken off and does not count as a column; a second one is an error."""
    parsed = parse(b"\xef\xbb\xbfa = 1", "f.toml")
    assert not isinstance(parsed, Problem)
    assert parsed[1] == {"a": 1}
    assert parsed[0].text == "a = 1"
    assert refused(b"\xef\xbb\xbf\xef\xbb\xbfa = 1").place.column == 1


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        (b"a = 1\nb = '\xff'", 2, 6),
        ("ü = 'ü".encode() + b"\xc3", 1, 7),
        (b"\xef\xbb\xbf\xff", 1, 1),
        (b"\r\n\x80", 2, 1),
    ],
)
def test_a_byte_that_is_not_utf8_has_its_place(text: bytes, line: int, column: int) -> None:
    """The place is that of the bad byte, in characters."""
    problem = refused(text)
    assert (problem.place.line, problem.place.column) == (line, column)
    assert problem.what.startswith("not UTF-8: byte 0x")


@pytest.mark.parametrize(
    ("text", "line", "column", "what", "hint"),
    [
        ("a = :80", 1, 5, "invalid value", 'text goes in quotes: a = ":80"'),
        ("\n  to = 1.2.3.4:5 # x", 2, 11, "expected newline", 'text goes in quotes: to = "1.2.3.4:5"'),
        ("a = 'x' 'y'", 1, 9, "expected newline", "each key goes on a line of its own"),
        ("a: 5", 1, 2, "expected '='", "a key and its value have = between them: a = 5"),
        ("rule", 1, 5, "expected '='", "a line is a header"),
        ("= 5", 1, 1, "invalid statement", "a line is a header"),
        ("a = 'x\n", 1, 7, "", "close the text"),
        ('a = "x', 1, 7, "unterminated string", "close the text"),
        ("a = '''x\n\n", 1, 9, "expected \"'''\"", "close the text"),
        ('a = "\\q"', 1, 8, "unescaped", "backslash"),
        ('a = "\\uD800"', 1, 12, "escaped character", "backslash"),
        ("a = [1 2]", 1, 8, "unclosed array", "a comma"),
        ("a = [1,\n\n", 1, 8, "invalid value", "ends too early"),
        ("a =\n", 1, 4, "invalid value", "text goes in quotes"),
        ("a =", 1, 4, "invalid value", "ends too early"),
        ("a = { b = 1\n}", 1, 12, "unclosed inline table", "on the same line"),
        ("a = { b = 1, b = 2 }", 1, 19, "duplicate inline table key", "each key once"),
        ("[a", 1, 3, "expected ']'", "alone on its line"),
        ("[[a]", 1, 4, "expected ']]'", "alone on its line"),
        ("a = 1 # \x00", 1, 9, "found invalid character '\\x00'", "control character"),
        ("a = 1\n\n\ta = 2", 3, 2, "already given (f.toml:1)", "once"),
        ("[a]\nx = 1\n [a]", 3, 2, "already given (f.toml:1)", "once"),
        ("[rule]\n[rule]", 2, 1, "already given (f.toml:1)", "[[rule]]"),
        ("[rule]\n[[rule]]", 2, 1, "overwrite", "[[rule]]"),
        ("a = { b = 1 }\n  a.c = 1", 2, 3, "", "each key once"),
        ("a.b = 1\n[a]", 2, 1, "cannot declare a twice", "once"),
        ("a = 2026-02-30", 1, 5, "invalid date", None),
    ],
)
def test_a_syntax_error_has_place_and_hint(
    text: str, line: int, column: int, what: str, hint: str | None
) -> None:
    """Where TOML stops making sense there is a place, the reason, and for common slips what was meant."""
    problem = refused(text)
    assert (problem.place.line, problem.place.column) == (line, column)
    assert problem.what.startswith("not valid TOML: ")
    assert what in problem.what
    assert problem.hint is None if hint is None else hint in (problem.hint or "")


def test_deep_nesting_is_a_problem() -> None:
    """Brackets beyond what can be parsed give a problem at a bracket, of arrays and of inline tables."""
    for text in ("a = " + "[" * 50_000, "a = " + "{a = " * 50_000):
        problem = refused(text)
        assert problem.what == "values are nested too deep"
        assert problem.place.excerpt[problem.place.column - 1] in "[{"


def test_a_number_too_long_is_a_problem() -> None:
    """A number with more digits than Python converts is pointed at."""
    problem = refused(f"a = 1\nb = {'9' * 5000}")
    assert (problem.place.line, problem.place.column) == (2, 5)
    assert "too many digits" in problem.what


def test_what_is_said_is_short() -> None:
    """A message never repeats a text of any length."""
    problem = refused(f"{'a' * 100_000} = 1\n{'a' * 100_000} = {{ b = 1, b = 2 }}")
    assert len(problem.what) < 200
    assert len(refused(f"x = {{ {'a' * 9000} = 1, {'a' * 9000} = 2 }}").what) < 200
