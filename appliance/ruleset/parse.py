"""From the bytes of a file to a TOML document, or to the one problem that keeps it from being one."""

import re
import tomllib
from typing import Final

from appliance.problem import Place, Problem
from appliance.ruleset.source import Source
from appliance.ruleset.syntax import explained

_BOM: Final = b"\xef\xbb\xbf"
"""TOML 1.0 allows one at the start; tomllib does not take it."""

_WHERE: Final = re.compile(
    r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL
)
_LONG_NUMBER: Final = re.compile(r"[0-9][0-9_]{4299,}")
_DEEP: Final = 100


def parse(text: bytes, file: str) -> tuple[Source, dict[str, object]] | Problem:
    """Read TOML 1.0; never raises."""
    text = text.removeprefix(_BOM)
    try:
        source = Source(file, text.decode())
    except UnicodeDecodeError as error:
        return _not_utf8(text, file, error)
    try:
        return source, tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        return _syntax(source, str(error))
    except RecursionError:
        place = source.at(_deepest(source.text))
        return Problem(place, "", "values are nested too deep", "a ruleset needs no arrays of arrays")
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        return _not_read(source, error)


def _not_utf8(text: bytes, file: str, error: UnicodeDecodeError) -> Problem:
    source = Source(file, text.decode(errors="replace"))
    index = len(text[: error.start].decode(errors="replace"))
    what = f"not UTF-8: byte 0x{text[error.start]:02x} ({error.reason})"
    return Problem(source.at(index), "", what, "save the file as UTF-8")


def _not_read(source: Source, error: Exception) -> Problem:
    """Explain what tomllib lets through of other errors: int() refuses more than 4,300 digits."""
    number = _LONG_NUMBER.search(source.text)
    if number is None:
        return Problem(source.at(0), "", f"not valid TOML: {error}")
    return Problem(
        source.at(number.start()),
        "",
        "a number has too many digits",
        "the largest that a ruleset takes is 1000000000",
    )


def _deepest(text: str) -> int:
    """Give the index of the first bracket with 100 open before it, strings and comments not looked at."""
    depth = 0
    for match in re.finditer(r"[\[{]|[\]}]", text):
        depth += 1 if match[0] in "[{" else -1
        if depth > _DEEP:
            return match.start()
    return 0


def _syntax(source: Source, message: str) -> Problem:
    match = _WHERE.fullmatch(message)
    if match is None:
        return Problem(source.place(1, 1), "", f"not valid TOML: {message}")
    is_end = match["line"] is None
    if is_end:
        place = source.at(len(source.text.rstrip()))
    else:
        place = source.place(int(match["line"]), int(match["column"]))
    if match["what"].startswith("Cannot "):
        return _twice(source, match["what"], place)
    return explained(match["what"], place, is_end=is_end)


def _twice(source: Source, what: str, stopped: Place) -> Problem:
    """Explain a key or table that clashes with one above, with both places where they can be told."""
    from appliance.ruleset.places import Places  # noqa: PLC0415 - tomlkit is needed only where there are problems

    if (places := Places(source).repeated()) is None:
        indent = len(stopped.excerpt) - len(stopped.excerpt.lstrip())
        return explained(what, source.place(stopped.line, indent + 1))
    first, second = places
    return explained(f"This is already given ({first.file}:{first.line})", second)
