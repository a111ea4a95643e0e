"""The record of a session or flow: the line that is written when it ends."""

from typing import Final

from msgspec import UNSET, Struct, UnsetType

from appliance.observe.names import Event
from appliance.outcome import Cause, Drop, Stage

_NO_FRACTION: Final = 1.5 * 2**52
"""Added to a float, it leaves no bits for a fraction (IEEE 754): the sum is rounded to a whole number."""


class SessionRecord(Struct, gc=False, tag_field="event", tag=Event.SESSION.value):
    """One client's life; the order of the keys is the order of the line. Units: names.Field.

    Whoever makes one leaves `level` empty and gives as `time` how many seconds ago the session ended;
    Log.sessions puts level and time in their place. A key that is UNSET is left out of the line.
    Positional arguments take 0.06 us, keywords 0.43 (CPython 3.11).
    """

    level: str
    time: str | float
    session: str
    rule: str
    protocol: str
    client: str
    listener: str
    endpoint: str | UnsetType
    stage: Stage
    cause: Cause
    up: int
    down: int
    up_datagrams: int | UnsetType
    down_datagrams: int | UnsetType
    drops: dict[Drop, int] | UnsetType
    connect_ms: float | UnsetType
    first_byte_ms: float | UnsetType
    duration_ms: float
    attempts: int | UnsetType = UNSET
    agent: str | UnsetType = UNSET


def milliseconds(seconds: float) -> float:
    """Give seconds as milliseconds with three decimals: microseconds.

    Exact for 71 years (2^51 us). 0.05 us; int() instead of the addition takes 0.07, round() 0.24.
    """
    return (seconds * 1e6 + _NO_FRACTION - _NO_FRACTION) / 1000
