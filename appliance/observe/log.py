"""The log: structlog set up to write JSON lines, or lines for a person on a terminal, to one descriptor.

Session records are written for every client, so theirs is the shortest way structlog has: a whole batch is
one call of a bound logger, with two processors and msgspec, and a logger that only queues bytes. To be made,
written and cut into blocks costs a record 0.65-0.85 us where 64 go together, 2.7 us where each goes by itself
(CPython 3.11). The bytes go out with flush(), which supervisor/journal.py calls for many records at once.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, cast

from appliance.observe import lines
from appliance.observe.names import HEAD, SESSION_LEVEL, Event, Level
from appliance.observe.outlet import open_outlet
from appliance.observe.record import SessionRecord
from appliance.observe.sink import QUEUE_LIMIT, LineWriter
from appliance.observe.structured import EventDict, FilteringBoundLogger, structlog

wall_clock: Final = time.time  # noqa: TID251 (the wall clock belongs to observe)
"""Seconds since 1970, UTC: what a process passes to make_log and to Ids."""

_CLOSE_TIMEOUT: Final = 1.0

_HEAD: Final = dict.fromkeys((str(field) for field in HEAD), "")
"""Bound to the logger of events: a key that is there from the start keeps its place at the start."""


class Emit(Protocol):
    """Write one record: the event and its fields, as names.Event says."""

    def __call__(self, event: Event, **fields: object) -> None:
        """Queue the record; exc_info=error adds a traceback. Never raises for what the fields hold."""


class _Queue:
    """What structlog calls with finished lines."""

    __slots__ = ("error", "info", "sessions", "warning")

    def __init__(self, writer: LineWriter) -> None:
        self.info = self.warning = self.error = writer.write
        self.sessions = writer.write_lines


class _Batches(structlog.BoundLoggerBase):
    """Takes a batch of session records through structlog as one value.

    As keywords, each record by itself, fields are packed again at every call on the way: 1.5 us a record.
    """

    def sessions(self, batch: Sequence[SessionRecord]) -> None:
        """Have the batch stamped, encoded and queued."""
        self._proxy_to_logger("sessions", batch=batch)


class Log:
    """One process's log. `info`, `warning` and `error` write an event, `sessions` the sessions' records.

    Nothing here blocks or raises; what cannot be written is dropped and counted.
    """

    __slots__ = ("_batches", "_writer", "error", "info", "warning")

    def __init__(self, writer: LineWriter, form: lines.Form, level: Level) -> None:
        queue = _Queue(writer)
        events = _bound(queue, form.event, level, _HEAD)
        self._writer = writer
        self._batches = _Batches(queue, (*_only(level), *form.sessions), {})
        self.info: Emit = events.info
        self.warning: Emit = events.warning
        self.error: Emit = events.error

    def sessions(self, batch: Sequence[SessionRecord]) -> None:
        """Queue the records of sessions and flows that have ended, in this order.

        Each comes with `level` empty and, as `time`, the seconds since its session ended. The log writes
        level (of the cause) and time into the records: they are its own from here on.
        """
        if batch:
            self._batches.sessions(batch)

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

    def mend(self) -> None:
        """Keep the next record apart from what a process that was killed has left of its last one."""
        self._writer.mend()

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


def _only(level: Level) -> tuple[lines.Processor, ...]:
    """Make the processor that leaves out the session records below a level, where there can be any."""
    if level is Level.INFO:
        return ()
    ranks = list(Level)
    wanted = {cause for cause, its in SESSION_LEVEL.items() if ranks.index(its) >= ranks.index(level)}

    def processor(_logger: object, _method: str, fields: EventDict) -> object:
        return {"batch": [record for record in fields["batch"] if record.cause in wanted]}

    return (processor,)


def _bound(
    logger: object, processors: tuple[lines.Processor, ...], level: Level, context: Mapping[str, str]
) -> FilteringBoundLogger:
    unbound = structlog.wrap_logger(
        logger,
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
    )
    return cast("FilteringBoundLogger", unbound.bind(**context))
