"""Sizes: `4MiB`, `512kB`, `4096B`."""

import re
from types import MappingProxyType
from typing import Final

from appliance.problem import quoted
from appliance.values.misread import Misread

_UNIT: Final = MappingProxyType(
    {
        "GiB": 1 << 30,
        "GB": 10**9,
        "MiB": 1 << 20,
        "MB": 10**6,
        "KiB": 1 << 10,
        "kB": 10**3,
        "B": 1,
    }
)
MAX_SIZE: Final = 1024 * _UNIT["GiB"]

_SIZE: Final = re.compile(f"(0|[1-9][0-9]{{0,12}})({'|'.join(_UNIT)})")
_NEARLY: Final = re.compile(r"(?P<whole>[0-9]{1,13})(?:\.(?P<part>[0-9]{1,3}))?(?P<unit>[A-Za-z]{1,3})")
_MEANT: Final = MappingProxyType(
    {
        **{unit.lower(): (unit,) for unit in _UNIT},
        **dict.fromkeys(("k", "kb"), ("kB", "KiB")),
        **dict.fromkeys(("m", "mb"), ("MB", "MiB")),
        **dict.fromkeys(("g", "gb"), ("GB", "GiB")),
    }
)
"""What a unit in other letters may stand for, in lower case."""

_LONGEST_MENDED: Final = 64


def parse_size(text: str) -> int:
    """Read `4MiB`, `512kB` or `4096B` as bytes: more than 0, at most 1024GiB."""
    size = _bytes(text)
    if size is None:
        raise Misread(f"{quoted(text)} is no size", _size_hint(text))
    if size == 0:
        raise Misread(f"{quoted(text)} is no room at all", "the smallest size is 1B")
    if size > MAX_SIZE:
        raise Misread(f"{quoted(text)} is too large", f"the largest size is {format_size(MAX_SIZE)}")
    return size


def _bytes(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    return None if match is None else int(match[1]) * _UNIT[match[2]]


def _size_hint(text: str) -> str:
    units = 'write a whole number with B, kB, MB, GB, KiB, MiB or GiB, such as "4MiB" or "512kB"'
    if len(text) > _LONGEST_MENDED:
        return units
    if text.isdigit() and 0 < (_bytes(f"{text}B") or 0) <= MAX_SIZE:
        return f'say the unit: write "{text}B"'
    match = _NEARLY.fullmatch("".join(text.split()))
    if match is None:
        return units
    written = match["unit"]
    meant = (written,) if written in _UNIT else _MEANT.get(written.lower(), ())
    mended = [f'"{size}"' for unit in meant if (size := _mended(match, unit))]
    if not mended:
        return units
    return f"write {mended[0]}" if len(mended) == 1 else f"did you mean {' or '.join(mended)}?"


def _mended(match: re.Match[str], unit: str) -> str:
    """Write a number in whole units, nothing where it is no whole number of bytes."""
    part = match["part"] or ""
    size, left = divmod(int(match["whole"] + part) * _UNIT[unit], 10 ** len(part))
    if left or not 0 < size <= MAX_SIZE:
        return ""
    return format_size(size) if part else f"{int(match['whole'])}{unit}"


def format_size(size: int) -> str:
    """Give the shortest text that `parse_size` reads as `size`."""
    whole = (f"{size // unit}{name}" for name, unit in _UNIT.items() if size % unit == 0)
    return min(whole, key=len) if size else "0B"
