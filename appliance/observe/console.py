"""The log for a person: on a terminal, one aligned line a record instead of JSON.

    12:00:01.123 intranet-web  203.0.113.9:51022 -> 10.0.0.5:80  client_eof  up 1.2 kB  down 90.8 kB  812 ms

A UDP flow's line goes on with its datagrams, and with those that were dropped, if any:

    … up 41 B  down 120 B  3 ms  datagrams 1 up, 1 down  dropped 2 send_full

Nothing a record holds reaches the terminal as a control sequence: what is not printable is escaped.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import UNSET, UnsetType

from appliance.observe.lines import Clock, Form, Processor, make_times, stamp_event, stamp_sessions
from appliance.observe.names import Field, Level
from appliance.observe.record import SessionRecord
from appliance.observe.structured import EventDict, dev, format_exc_info
from appliance.outcome import Drop
from appliance.problem import printable

_COLOURS: Final[Mapping[str, str]] = {Level.INFO: dev.GREEN, Level.WARNING: dev.YELLOW, Level.ERROR: dev.RED}
_PLAIN: Final[Mapping[str, str]] = {Level.INFO: "", Level.WARNING: "", Level.ERROR: ""}

_UNIT: Final = 1000
_MINUTE: Final = 60_000
_COARSE: Final = 10
"""Milliseconds from which on decimals tell nothing."""


def console_form(clock: Clock, environ: Mapping[str, str]) -> Form:
    """Make the form of the log as a person reads it, in the machine's time zone.

    Colour unless NO_COLOR is set (no-color.org) or TERM is dumb.
    """
    coloured = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    times = make_times("%H:%M:%S.{ms}", None)
    return Form(
        sessions=(stamp_sessions(clock, times), _session_lines(coloured)),
        event=(
            stamp_event(clock, times),
            format_exc_info,
            _printable_fields,
            _event_line(coloured),
            _to_bytes,
        ),
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


def _session_lines(coloured: bool) -> Processor:
    colours, dim, reset = (_COLOURS, dev.DIM, dev.RESET_ALL) if coloured else (_PLAIN, "", "")

    def line(record: SessionRecord) -> str:
        endpoint = "-" if record.endpoint is UNSET else printable(record.endpoint)
        return (
            f"{dim}{record.time}{reset} {printable(record.rule):<14}"
            f" {printable(record.client):>21} -> {endpoint:<21}"
            f" {colours[record.level]}{record.cause:<20}{reset}"
            f" up {size(record.up):>8}  down {size(record.down):>8}  {span(record.duration_ms):>8}"
            f"{_datagrams(record.up_datagrams, record.down_datagrams)}{_drops(record.drops)}\n"
        )

    def processor(_logger: object, _method: str, batch: Sequence[SessionRecord]) -> bytes:
        return "".join([line(record) for record in batch]).encode()

    return processor


def _datagrams(up: int | UnsetType, down: int | UnsetType) -> str:
    return "" if up is UNSET else f"  datagrams {up} up, {down} down"


def _drops(drops: Mapping[Drop, int] | UnsetType) -> str:
    return "" if drops is UNSET else "  dropped " + ", ".join(f"{n} {why}" for why, n in drops.items())


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
        return "" if value == Level.INFO else f"{colours[str(value)]}{value}{reset}"

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
