"""What is wrong with a document, told by paths into it; places in the text are looked up only afterwards."""

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from appliance.problem import quoted

Path = tuple[str | int, ...]
"""Keys and array positions from the document down to a value: `("rule", 2, "listen", 0)`."""

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    `at_key` points at the key and not at its value. `others` are further places that `what` speaks of.
    """

    path: Path
    what: str
    hint: str | None = None
    at_key: bool = False
    others: tuple[Path, ...] = ()


def dotted(path: Path) -> str:
    """Give a path as people write it: `rule[2].listen[0]`, with quotes around keys that TOML would quote."""
    return "".join(_steps(path))


def _steps(path: Path) -> Iterator[str]:
    for depth, step in enumerate(path):
        if isinstance(step, int):
            yield f"[{step}]"
        else:
            yield ("." if depth else "") + (step if _BARE.fullmatch(step) else quoted(step, limit=40))


def found(value: object) -> str:
    """Say what a value is, briefly: `"web"`, `the integer 5`, `an array`, `a table`."""
    match value:
        case str():
            shown = quoted(value)
        case bool():
            shown = "true" if value else "false"
        case int():
            shown = f"the integer {value}" if value.bit_length() <= _SHOWN_BITS else "a very large integer"
        case float():
            shown = f"the number {value}"
        case dt.date() | dt.time():
            shown = f"the date or time {value.isoformat()}"
        case list():
            shown = "an array" if value else "an empty array"
        case _:
            shown = "a table"
    return shown
