"""A ruleset's file, as the verbs are given it."""

import errno
import os
import sys
from pathlib import Path
from typing import Final

from appliance.cli.problems import report
from appliance.problem import Place, Problem
from appliance.ruleset import Ruleset, read

LARGEST: Final = 16 * 1024 * 1024
"""Bytes of a ruleset: 1,000 rules have about 150,000. A device that never ends is not read for ever."""

WRONG_INPUT: Final = 2
"""Exit status: the input was wrong."""

_HINTS: Final = {
    FileNotFoundError: "name a file that is there, or - for standard input",
    IsADirectoryError: "name the file in it",
    NotADirectoryError: "a part of the path is a file",
    PermissionError: "this user may not read it: see ls -l",
}


def load(path: str) -> Ruleset | tuple[Problem, ...]:
    """Read the ruleset at `path`, or standard input for `-`; a file that cannot be read is a problem too."""
    ruleset, _ = load_with_text(path)
    return ruleset


def load_with_text(path: str) -> tuple[Ruleset | tuple[Problem, ...], bytes]:
    """Do the same, and give the text as well; empty where it could not be read."""
    text = _text(path)
    return ((text,), b"") if isinstance(text, Problem) else (read(text, _name(path)), text)


def _name(path: str) -> str:
    return "<stdin>" if path == "-" else path or '""'


def _text(path: str) -> bytes | Problem:
    try:
        text = _bytes(path)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        return Problem(Place(_name(path)), "", what, _HINTS.get(type(error)))
    if len(text) > LARGEST:
        hint = "is this the ruleset?"
        return Problem(Place(_name(path)), "", f"is larger than {LARGEST // 1024**2} MiB", hint)
    return text


def _bytes(path: str) -> bytes:
    if path == "-":
        if sys.stdin is None:  # Python's, where fd 0 is closed
            raise OSError(errno.EBADF, "standard input is closed")
        return sys.stdin.buffer.read(LARGEST + 1)
    if not path:  # which pathlib takes for "."
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with Path(path).open("rb") as stream:
        return stream.read(LARGEST + 1)


def read_ruleset(path: str) -> tuple[Ruleset, bytes]:
    """Give the ruleset at `path` and its text, or print its problems and end the program with status 2."""
    ruleset, text = load_with_text(path)
    if isinstance(ruleset, Ruleset):
        return ruleset, text
    report(ruleset)
    raise SystemExit(WRONG_INPUT)
