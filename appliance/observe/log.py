"""The log: structlog set up to write JSON lines, or lines for a person on a terminal, to one descriptor.

A session's record is written for every connection, so its way is the shortest one structlog has: a
filtering bound logger, two processors, msgspec, and a logger that only queues bytes. The bytes go out
with flush(), which supervisor/journal.py calls for many records at once.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol, cast

import structlog
from msgspec import UNSET

from appliance.observe import lines
from appliance.observe.names import HEAD, SESSION_LEVEL, Event, Level
from appliance.observe.outlet import open_outlet
from appliance.observe.record import SessionRecord, milliseconds
from appliance.observe.sink import QUEUE_LIMIT, LineWriter
from appliance.outcome import Cause, Stage

wall_clock: Final = time.time  # noqa: TID251 (the wall clock belongs to observe)
"""Seconds since 1970, UTC: what a process passes to make_log and to Ids."""

_EVENT: Final = Event.SESSION.value
_CLOSE_TIMEOUT: Final = 1.0

_HEAD: Final = dict.fromkeys((str(field) for field in HEAD), "")
"""Bound to the logger of events: a key that is there from the start keeps its place at the start."""


class Emit(Protocol):
    """Write one record: the event and its fields, as names.Event says."""

    def __call__(self, event: Event, **fields: object) -> None:
        """Queue the record; exc_info=error adds a traceback. Never raises for what the fields hold."""


class _Queue:
    """What structlog calls with a finished line."""

    __slots__ = ("error", "info", "warning")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.info = self.warning = self.error = write


class Log:
    """One process's log. `info`, `warning` and `error` write an event, `session` a session's record.

    Nothing here blocks or raises; what cannot be written is dropped and counted.
    """

    __slots__ = ("_session", "_writer", "error", "info", "warning")

    def __init__(self, writer: LineWriter, form: lines.Form, level: Level) -> None:
        queue = _Queue(writer.write)
        events = _bound(queue, form.event, level, _HEAD)
        sessions = _bound(queue, form.session, level, {})
        self._writer = writer
        self._session: dict[Cause, Callable[..., None]] = {
            cause: getattr(sessions, level) for cause, level in SESSION_LEVEL.items()
        }
        self.info: Emit = events.info
        self.warning: Emit = events.warning
        self.error: Emit = events.error

    def session(
        self,
        session: str,
        rule: str,
        protocol: str,
        client: str,
        listener: str,
        endpoint: str | None,
        stage: Stage,
        cause: Cause,
        up: int,
        down: int,
        connect_ms: float | None,
        first_byte_ms: float | None,
        duration_ms: float,
        attempts: int = 1,
        ago: float = 0.0,
    ) -> None:
        """Queue the record of a session that ended `ago` seconds before; None for what never came to be.

        Units: names.Field.
        """
        self._session[cause](
            _EVENT,
            ago=ago,
            record=SessionRecord(
                _EVENT,
                "",
                "",
                session,
                rule,
                protocol,
                client,
                listener,
                UNSET if endpoint is None else endpoint,
                stage,
                cause,
                up,
                down,
                UNSET if connect_ms is None else milliseconds(connect_ms),
                UNSET if first_byte_ms is None else milliseconds(first_byte_ms),
                milliseconds(duration_ms),
                attempts if attempts > 1 else UNSET,
            ),
        )

    @property
    def pending(self) -> bool:
        """Whether a flush has something to do."""
        return self._writer.pending

    @property
    def pollable_fd(self) -> int | None:
        """The descriptor to poll for OUT while the reader has stalled; None while polling helps nothing."""
        return self._writer.pollable_fd

    @property
    def dropped(self) -> int:
        """How many records were dropped since the start."""
        return self._writer.dropped

    def flush(self) -> bool:
        """Write what stdout takes now; True when nothing is left."""
        return self._writer.flush()

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> int:
        """Write what is left, waiting up to `timeout` seconds; how many records were dropped in all."""
        return self._writer.close(timeout)


def make_log(
    fd: int,
    *,
    tty: bool | None = None,
    wall_clock: Callable[[], float] = wall_clock,
    level: Level = Level.INFO,
    environ: Mapping[str, str] = os.environ,
    limit: int = QUEUE_LIMIT,
) -> Log:
    """Make the log of this process on `fd`, inherited: JSON lines, or on a terminal lines for a person.

    `tty` overrides the look at the descriptor. `wall_clock` gives seconds since 1970. `limit` is how
    many bytes are held for a reader that does not read. Make it before anything else is opened where
    stdout may be closed: its number is then given to the next descriptor.
    """
    if tty is None:
        tty = os.isatty(fd)
    if tty:
        from appliance.observe.console import console_form  # noqa: PLC0415 (only where a person looks)

        form = console_form(wall_clock, environ)
    else:
        form = lines.json_form(wall_clock)
    tell = _bound(structlog.ReturnLogger(), form.event, Level.WARNING, _HEAD)

    def report(count: int) -> bytes:
        return cast("bytes", tell.warning(Event.LOG_DROPPED, count=count))

    return Log(LineWriter(open_outlet(fd), report, limit), form, level)


def _bound(
    logger: object, processors: tuple[lines.Processor, ...], level: Level, context: Mapping[str, str]
) -> structlog.typing.FilteringBoundLogger:
    unbound = structlog.wrap_logger(
        logger,
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
    )
    return cast("structlog.typing.FilteringBoundLogger", unbound.bind(**context))
