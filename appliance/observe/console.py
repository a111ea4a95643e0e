"""The log for a person: on a terminal, one aligned line a record instead of JSON.

    12:00:01.123 intranet-web  203.0.113.9:51022 -> 10.0.0.5:80  client_eof  up 1.2 kB  down 90.8 kB  812 ms

Nothing a record holds reaches the terminal as a control sequence: what is not printable is escaped.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import UNSET
from structlog import dev
from structlog.processors import format_exc_info
from structlog.typing import EventDict

from appliance.observe.lines import Form, Processor, make_stamp, stamp_event, stamp_session
from appliance.observe.names import Field, Level
from appliance.observe.record import SessionRecord
from appliance.problem import printable

_COLOURS: Final = {Level.INFO: dev.GREEN, Level.WARNING: dev.YELLOW, Level.ERROR: dev.RED}
_PLAIN: Final = {Level.INFO: "", Level.WARNING: "", Level.ERROR: ""}

_UNIT: Final = 1000
_MINUTE: Final = 60_000
_COARSE: Final = 10
"""Milliseconds from which on decimals tell nothing."""


def console_form(wall_clock: Callable[[], float], environ: Mapping[str, str]) -> Form:
    """Make the form of the log as a person reads it, in the machine's time zone.

    Colour unless NO_COLOR is set (no-color.org) or TERM is dumb.
    """
    coloured = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    stamp = make_stamp(wall_clock, "%H:%M:%S.{ms}", None)
    return Form(
        session=(stamp_session(stamp), _session_line(coloured)),
        event=(stamp_event(stamp), format_exc_info, _printable_fields, _event_line(coloured), _to_bytes),
    )


def size(number: int) -> str:
    """Write bytes in decimal units: 812 B, 1.2 kB, 90.8 MB."""
    value = number / _UNIT
    if value < 1:
        return f"{number} B"
    for unit in ("kB", "MB", "GB"):
        if value < _UNIT - 0.05:
            return f"{value:.1f} {unit}"
        value /= _UNIT
    return f"{value:.1f} TB"


def span(ms: float) -> str:
    """Write milliseconds as people say them: 0.41 ms, 812 ms, 12.3 s, 4m05s, 2h09m."""
    if ms < _UNIT - 0.5:
        return f"{ms:.0f} ms" if ms >= _COARSE else f"{ms:.2f} ms"
    if ms < _MINUTE - 50:
        return f"{ms / _UNIT:.1f} s"
    minutes, seconds = divmod(round(ms / _UNIT), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"


def _session_line(coloured: bool) -> Processor:
    colours, dim, reset = (_COLOURS, dev.DIM, dev.RESET_ALL) if coloured else (_PLAIN, "", "")

    def processor(_logger: object, level: str, record: SessionRecord) -> bytes:
        endpoint = "-" if record.endpoint is UNSET else printable(record.endpoint)
        line = (
            f"{dim}{record.time}{reset} {printable(record.rule):<14}"
            f" {printable(record.client):>21} -> {endpoint:<21}"
            f" {colours[Level(level)]}{record.cause:<16}{reset}"
            f" up {size(record.up):>8}  down {size(record.down):>8}  {span(record.duration_ms):>8}"
        )
        return _to_bytes(None, level, line)

    return processor


def _printable_fields(_logger: object, _level: str, fields: EventDict) -> EventDict:
    return {
        key: printable(str(value), keep="\n" if key == Field.EXCEPTION else "")
        for key, value in fields.items()
    }


def _event_line(coloured: bool) -> Processor:
    colours, dim, cyan, reset = (
        (_COLOURS, dev.DIM, dev.CYAN, dev.RESET_ALL) if coloured else (_PLAIN, "", "", "")
    )

    def level_column(key: str, value: object) -> str:  # noqa: ARG001 (named by structlog)
        # Most records are info: the word is kept for the ones to look at.
        return "" if value == Level.INFO else f"{colours[Level(str(value))]}{value}{reset}"

    return dev.ConsoleRenderer(
        columns=[
            dev.Column("", dev.KeyValueColumnFormatter(cyan, "", reset, str)),
            dev.Column(Field.TIME, dev.KeyValueColumnFormatter(None, dim, reset, str)),
            dev.Column(Field.LEVEL, level_column),
            dev.Column(Field.EVENT, dev.KeyValueColumnFormatter(None, "", reset, str)),
        ],
        sort_keys=False,
    )


def _to_bytes(_logger: object, _level: str, line: str) -> bytes:
    return line.encode() + b"\n"
