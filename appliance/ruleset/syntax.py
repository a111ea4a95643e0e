"""What is mostly meant where text is not TOML."""

import re
from typing import Final

from appliance.problem import Place, Problem, quoted

_LONGEST_WHAT: Final = 120
_UNQUOTED: Final = re.compile(r"\s*(?P<key>[A-Za-z0-9_-]+)\s*=\s*(?P<value>[^\s\"'\[{#][^#]*)")
_COLON: Final = re.compile(r"\s*(?P<key>[A-Za-z0-9_-]+)\s*:\s*(?P<value>[^\s#][^#]*)")
_RULE_HEADER: Final = re.compile(r"\s*\[+\s*rule\s*\]")
_NAMES: Final = re.compile(r"\('(?P<names>.*)',?\)")

_HINTS: Final = (
    (
        r"(This is already|Cannot declare) .*",
        "a key or table stands once: put its values, or its keys, together",
    ),
    (r"(Cannot|Duplicate inline) .*", "a table has each key once"),
    (
        r"Illegal character '\\n'|Unterminated string|Expected [\"']'.*",
        "close the text with the quote it begins with",
    ),
    (
        r"Unescaped .*|Invalid hex .*|Escaped .*",
        "in double quotes a backslash begins an escape: write two of them",
    ),
    (r"Unclosed array", "a comma stands between values, and ] ends the list"),
    (r"Unclosed inline table", "a comma stands between keys, and } ends the table, on the same line"),
    (r"Expected '\]+' .*", "a header is [gateway] or [[rule]], alone on its line"),
    (r"(Illegal|Found invalid) character .*", "take the control character out"),
    (r"Expected newline .*", "each key goes on a line of its own"),
    (
        r"Expected '=' .*|Invalid (initial|statement).*",
        "a line is a header, such as [[rule]], or: key = value",
    ),
    (r"Invalid value", 'text goes in quotes, such as ":80"'),
)


def explained(what: str, place: Place, *, is_end: bool = False) -> Problem:
    """Give the problem for tomllib's message `what`, which it raised at `place` or at the end of the text."""
    said = _NAMES.sub(lambda match: match["names"].replace("', '", "."), f"{what[:1].lower()}{what[1:]}")
    said = said if len(said) <= _LONGEST_WHAT else f"{said[: _LONGEST_WHAT - 1]}…"
    return Problem(place, "", f"not valid TOML: {said}", _hint(what, place, is_end=is_end))


def _hint(what: str, place: Place, *, is_end: bool) -> str | None:
    if what == "Invalid value" and is_end:
        return "the text ends too early: close the list with ], or give the last key its value"
    if what.startswith(("Invalid value", "Expected newline")) and (
        unquoted := _UNQUOTED.match(place.excerpt)
    ):
        return f"text goes in quotes: {unquoted['key']} = {quoted(unquoted['value'].strip())}"
    if what.startswith("Expected '=' after") and (colon := _COLON.match(place.excerpt)):
        return f"a key and its value have = between them: {colon['key']} = {colon['value'].strip()}"
    if _RULE_HEADER.match(place.excerpt) and what.startswith(("This is already", "Cannot")):
        return "every rule begins with [[rule]], with two brackets on each side"
    return next((hint for pattern, hint in _HINTS if re.fullmatch(pattern, what, re.DOTALL)), None)
