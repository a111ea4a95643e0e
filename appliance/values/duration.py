"""Durations: `5s`, `250ms`, `1h30m`, `1d`."""

import re
from typing import Final

from appliance.problem import quoted
from appliance.values.misread import Misread

MAX_DURATION_MS: Final = 365 * 86_400_000
MAX_DURATION: Final = MAX_DURATION_MS // 1000
"""The longest duration, in seconds."""

_COUNT: Final = r"(0|[1-9][0-9]{0,10})"
_DURATION: Final = re.compile("".join(f"(?:{_COUNT}{unit})?" for unit in ("d", "h", "m", "s", "ms")))
_UNIT_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_LONGEST_MENDED: Final = 64


def parse_duration(text: str) -> float:
    """Read `5s`, `250ms`, `1h30m` or `1d` as seconds: more than 0, at most 365 days."""
    milliseconds = _milliseconds(text)
    if milliseconds is None:
        raise Misread(f"{quoted(text)} is no duration", _duration_hint(text))
    if milliseconds == 0:
        raise Misread(f"{quoted(text)} is no time at all", "the shortest duration is 1ms")
    if milliseconds > MAX_DURATION_MS:
        raise Misread(f"{quoted(text)} is too long", "the longest duration is 365d")
    return milliseconds / 1000


def _milliseconds(text: str) -> int | None:
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        return None
    counts = zip(_UNIT_MS.values(), match.groups(), strict=True)
    return sum(unit * int(count) for unit, count in counts if count is not None)


def _duration_hint(text: str) -> str:
    units = 'write whole numbers with d, h, m, s or ms, such as "5s", "250ms" or "1h30m"'
    if len(text) > _LONGEST_MENDED:
        return units
    if _milliseconds(f"{text}s"):
        return f'say the unit: write "{text}s"'
    if decimal := re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,3})s", text):
        return f'write "{int(decimal[1]) * 1000 + int(decimal[2].ljust(3, "0"))}ms"'
    plain = re.sub(r"(seconds?|secs?)", "s", "".join(text.split()).lower())
    plain = re.sub(r"(minutes?|mins?)", "m", re.sub(r"(hours?|hrs?)", "h", re.sub(r"days?", "d", plain)))
    if _milliseconds(plain):
        return f'write "{plain}"'
    return units


def format_duration(seconds: float) -> str:
    """Give the shortest text that `parse_duration` reads as `seconds`, to the millisecond."""
    left = round(seconds * 1000)
    parts = []
    for unit, size in _UNIT_MS.items():
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
