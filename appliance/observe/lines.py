"""From an event to a line: the time stamp and the JSON form, as processors of structlog."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, Protocol, TypeAlias

import msgspec
from structlog.processors import format_exc_info
from structlog.typing import EventDict

from appliance.observe.record import SessionRecord

Processor: TypeAlias = Callable[[Any, str, Any], Any]
"""What structlog calls in turn: the logger, the level's name, and what the processor before gave."""

# One entry more than there are milliseconds: 0.9999999 of a second rounds up to a thousand of them.
_MILLISECONDS: Final = (*(f"{ms:03d}" for ms in range(1000)), "999")


@dataclass(frozen=True, slots=True)
class Form:
    """How records look: the processors of a session's record and of every other event."""

    session: tuple[Processor, ...]
    event: tuple[Processor, ...]


class Stamp(Protocol):
    """Say what time it is, or was `ago` seconds before."""

    def __call__(self, ago: float = 0.0) -> str:
        """Give the text."""


def make_stamp(wall_clock: Callable[[], float], pattern: str, zone: tzinfo | None) -> Stamp:
    """Make the function that says what time it is.

    `pattern` is a strftime pattern down to the second, with `{ms}` where the milliseconds go; `zone`
    None is the machine's. The text of a second is kept: formatting it costs ten times the rest.
    """
    before, after = pattern.split("{ms}")
    second = -1
    head = ""

    def stamp(ago: float = 0.0) -> str:
        nonlocal second, head
        now = wall_clock() - ago
        whole = int(now)
        if whole != second:
            second = whole
            head = datetime.fromtimestamp(whole, UTC).astimezone(zone).strftime(before)
        # A float of this size is a quarter of a microsecond coarse: .123 may be .12299990.
        return head + _MILLISECONDS[int((now - whole) * 1000 + 0.001)] + after

    return stamp


def stamp_event(stamp: Stamp) -> Processor:
    """Make the processor that gives an event its level and time."""

    def processor(_logger: object, level: str, fields: EventDict) -> EventDict:
        fields["level"] = level
        fields["time"] = stamp()
        return fields

    return processor


def stamp_session(stamp: Stamp) -> Processor:
    """Make the processor that takes a session's record out of its event, with level and time."""

    def processor(_logger: object, level: str, fields: EventDict) -> SessionRecord:
        record: SessionRecord = fields["record"]
        record.level = level
        record.time = stamp(fields["ago"])
        return record

    return processor


def json_form(wall_clock: Callable[[], float]) -> Form:
    """Make the form of the log as programs read it: one JSON object a line."""
    stamp = make_stamp(wall_clock, "%Y-%m-%dT%H:%M:%S.{ms}Z", UTC)
    return Form(
        session=(stamp_session(stamp), to_json),
        event=(stamp_event(stamp), format_exc_info, to_json),
    )


_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


def to_json(_logger: object, _level: str, record: SessionRecord | EventDict) -> bytes:
    """Encode a record and end its line."""
    try:
        return _encode(record) + b"\n"
    except UnicodeEncodeError:
        # A path or a peer's bytes decoded with surrogateescape: not UTF-8, and no reason to lose the line.
        return _encode(_legible(record)) + b"\n"


def _legible(record: SessionRecord | EventDict) -> dict[str, object]:
    fields = msgspec.structs.asdict(record) if isinstance(record, SessionRecord) else record
    return {
        key: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for key, value in fields.items()
        if value is not msgspec.UNSET
    }
