"""SNTP messages (RFC 5905, 14; RFC 4330, 5): a question, and what an answer says about the clock."""

import struct
from dataclasses import dataclass
from typing import Final

PORT: Final = 123
SIZE: Final = 48

_EPOCH: Final = 2_208_988_800
"""Seconds from 1900 to 1970."""
_ERA: Final = 1 << 32
_TURN: Final = 1_704_067_200
"""2024, in seconds since 1970: a time stamp before it is one of the era that begins in 2036."""

_CLIENT, _SERVER = 3, 4
_UNSYNCHRONISED: Final = 3
_LARGEST_STRATUM: Final = 15


@dataclass(frozen=True, slots=True)
class Sample:
    """How far this clock is behind the server's, and how long the answer took: seconds."""

    offset: float
    delay: float


def ask(cookie: bytes) -> bytes:
    """Build a question. `cookie` (8 octets) stands where the time would be: the answer must give it back.

    Random rather than the time: it tells nobody this clock, and is harder to guess.
    """
    return bytes(((4 << 3) | _CLIENT,)).ljust(SIZE - 8, b"\0") + cookie


def read(data: bytes, cookie: bytes, sent: float, received: float) -> Sample | str:
    """Read an answer to `ask(cookie)`. `sent` and `received` are this clock's seconds since 1970.

    Gives the sample, or why the answer is of no use (RFC 4330, 5).
    """
    if len(data) < SIZE:
        return "is too short"
    leap, mode, stratum = data[0] >> 6, data[0] & 7, data[1]
    if mode != _SERVER or data[24:32] != cookie:
        return "is no answer to the question"
    if stratum == 0:
        return f"asks to be left alone ({data[12:16].decode('ascii', 'replace').strip()})"
    if leap == _UNSYNCHRONISED or stratum > _LARGEST_STRATUM:
        return "does not know the time itself"
    arrived, left = _seconds(data[32:40]), _seconds(data[40:48])
    if not left:
        return "has no time"
    delay = (received - sent) - (left - arrived)
    return Sample(((arrived - sent) + (left - received)) / 2, max(delay, 0.0))


def _seconds(stamp: bytes) -> float:
    """Read a time stamp as seconds since 1970; 0 where it is unset."""
    whole, fraction = struct.unpack("!II", stamp)
    if not whole and not fraction:
        return 0.0
    seconds: float = whole - _EPOCH + fraction / _ERA
    return seconds if seconds >= _TURN else seconds + _ERA
