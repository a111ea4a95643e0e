"""The log: what a record looks like, and when."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.observe.lines import make_stamp
from appliance.observe.log import Log, make_log
from appliance.observe.names import SESSION_LEVEL, Event, Level, deviations
from appliance.outcome import LEGAL, Cause, Stage

NOW = 1700000000.123


class Gateway:
    """A log on a pipe, and what was read from it."""

    def __init__(self, level: Level = Level.INFO, limit: int = 1 << 20) -> None:
        reading, writing = os.pipe()
        self.reader = FileIO(reading, "r")
        self.now = NOW
        with FileIO(writing, "w"):
            self.log = make_log(writing, wall_clock=lambda: self.now, level=level, limit=limit)

    def lines(self) -> list[bytes]:
        assert self.log.close(0) == 0
        with self.reader:
            return self.reader.readall().splitlines()

    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines()]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    made = Gateway()
    yield made
    made.log.close(0)
    made.reader.close()


def write_session(log: Log, stage: Stage = Stage.RELAY, cause: Cause = Cause.CLIENT_EOF) -> None:
    log.session(
        session="01HF7YAT3V4T9Q2M7XKD000042",
        rule="intranet-web",
        protocol="tcp",
        client="203.0.113.9:51022",
        listener="0.0.0.0:8080",
        endpoint="10.0.0.5:80",
        stage=stage,
        cause=cause,
        up=1204,
        down=90811,
        connect_ms=0.41,
        first_byte_ms=3.2,
        duration_ms=812.0,
    )


def test_a_session_is_the_line_of_the_design(gateway: Gateway) -> None:
    """Keys, their order, and the form of every value, to the byte."""
    write_session(gateway.log)
    (line,) = gateway.lines()
    assert line == (
        b'{"event":"session","level":"info","time":"2023-11-14T22:13:20.123Z",'
        b'"session":"01HF7YAT3V4T9Q2M7XKD000042","rule":"intranet-web","protocol":"tcp",'
        b'"client":"203.0.113.9:51022","listener":"0.0.0.0:8080","endpoint":"10.0.0.5:80",'
        b'"stage":"relay","cause":"client_eof","up":1204,"down":90811,"connect_ms":0.41,'
        b'"first_byte_ms":3.2,"duration_ms":812.0}'
    )


def test_what_never_came_to_be_is_left_out(gateway: Gateway) -> None:
    """A client that was never dialled for has no endpoint and no times of it: the keys are not there."""
    gateway.log.session(
        "id", "web", "tcp", "unix", "unix:/run/p", None, Stage.ADMIT, Cause.FD_LIMIT, 0, 0, None, None, 0.0
    )
    (record,) = gateway.records()
    assert deviations(record) == []
    assert not {"endpoint", "connect_ms", "first_byte_ms", "attempts"} & set(record)
    assert record["up"] == record["down"] == 0
    assert record["duration_ms"] == 0.0


def test_attempts_are_told_when_there_was_more_than_one(gateway: Gateway) -> None:
    """How many endpoints were dialled is in the record only when the first did not do."""
    for attempts in (0, 1, 2):
        gateway.log.session(
            "id", "r", "tcp", "c", "l", "e", Stage.RELAY, Cause.CLIENT_EOF, 0, 0, 1, 1, 1, attempts
        )
    assert [record.get("attempts") for record in gateway.records()] == [None, None, 2]


@pytest.mark.parametrize(
    ("stage", "cause"), [(stage, cause) for stage in Stage for cause in Cause if cause in LEGAL[stage]]
)
def test_every_way_a_session_can_end_has_a_record(gateway: Gateway, stage: Stage, cause: Cause) -> None:
    """Each legal stage and cause gives one record that conforms to the names, at the level of its cause."""
    write_session(gateway.log, stage, cause)
    (record,) = gateway.records()
    assert deviations(record) == []
    assert (record["stage"], record["cause"]) == (stage, cause)
    assert record["level"] == SESSION_LEVEL[cause]


@given(st.floats(0, 1e10))
def test_milliseconds_have_three_decimals_at_most(duration: float) -> None:
    """No record carries the noise of a float: microseconds are the finest, and none is lost."""
    gateway = Gateway()
    gateway.log.session(
        "id", "r", "tcp", "c", "l", None, Stage.RELAY, Cause.DRAIN, 0, 0, duration, duration, duration
    )
    (line,) = gateway.lines()
    record = json.loads(line, parse_float=str)
    for key in ("connect_ms", "first_byte_ms", "duration_ms"):
        assert len(record[key].partition(".")[2]) <= 3
        assert float(record[key]) == pytest.approx(duration, abs=0.00051)


def test_an_event_keeps_the_order_of_its_fields(gateway: Gateway) -> None:
    """Other events begin as a session does and go on in the order they were given."""
    gateway.log.info(Event.LISTENING, rule="web", listener="0.0.0.0:80")
    gateway.log.warning(Event.LISTENER_PAUSED, listener="0.0.0.0:80", error="EMFILE", rule="web")
    first, second = gateway.lines()
    assert first == (
        b'{"event":"listening","level":"info","time":"2023-11-14T22:13:20.123Z",'
        b'"rule":"web","listener":"0.0.0.0:80"}'
    )
    assert second == (
        b'{"event":"listener_paused","level":"warning","time":"2023-11-14T22:13:20.123Z",'
        b'"listener":"0.0.0.0:80","error":"EMFILE","rule":"web"}'
    )


def raised() -> Exception:
    try:
        1 / 0  # noqa: B018  raises
    except ZeroDivisionError as error:
        return error
    return Exception()


def test_a_fault_brings_its_traceback(gateway: Gateway) -> None:
    """An internal error is one line that names the exception and where it was raised."""
    gateway.log.error(Event.INTERNAL_ERROR, exc_info=raised(), worker=1)
    (record,) = gateway.records()
    assert deviations(record) == []
    assert record["worker"] == 1
    assert str(record["exception"]).startswith("Traceback")
    assert str(record["exception"]).endswith("ZeroDivisionError: division by zero")
    assert "in raised" in str(record["exception"])


def test_a_value_json_has_no_word_for_is_no_reason_to_fail(gateway: Gateway) -> None:
    """Paths, exceptions and undecodable bytes are written as text; the record is never lost."""
    gateway.log.warning(Event.WARNING, message="bad \udcff name", error=OSError(24, "x"), rule=Path("/r"))
    gateway.log.session(
        "id", "r", "tcp", "unix", "unix:/\udc80", None, Stage.DIAL, Cause.INTERNAL, 0, 0, None, None, 0
    )
    warning, session = gateway.records()
    assert warning["message"] == "bad \\udcff name"
    assert (warning["error"], warning["rule"]) == ("[Errno 24] x", "/r")
    assert session["listener"] == "unix:/\\udc80"
    assert deviations(session) == []


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_a_record_is_one_line_of_utf8(rule: str, message: str) -> None:
    """Whatever the strings hold, line ends and lone surrogates too: one line, and it parses."""
    gateway = Gateway()
    gateway.log.session("id", rule, "tcp", "c", "l", None, Stage.DIAL, Cause.DRAIN, 0, 0, None, None, 1.0)
    gateway.log.warning(Event.WARNING, message=message)
    session, warning = [json.loads(line.decode()) for line in gateway.lines()]
    assert session["rule"] == rule.encode("utf-8", "backslashreplace").decode()
    assert warning["message"] == message.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize(("level", "written"), [(Level.INFO, 3), (Level.WARNING, 2), (Level.ERROR, 1)])
def test_records_below_the_level_are_not_written(level: Level, written: int) -> None:
    """An operator who asks for warnings gets warnings and errors, of sessions and of everything else."""
    gateway = Gateway(level)
    for cause in (Cause.CLIENT_EOF, Cause.DIAL_REFUSED, Cause.INTERNAL):
        write_session(gateway.log, Stage.RELAY, cause)
    for emit in (gateway.log.info, gateway.log.warning, gateway.log.error):
        emit(Event.WARNING, message="")
    assert len(gateway.lines()) == 2 * written


@pytest.mark.parametrize("level", list(Level))
def test_lost_lines_are_reported_at_any_level(level: Level) -> None:
    """When lines were dropped the log says how many, also where only errors are wanted."""
    gateway = Gateway(level, limit=500)
    for _ in range(5):
        gateway.log.error(Event.WARNING, message="x" * 200)
    assert gateway.log.pending
    assert gateway.log.flush()
    assert gateway.log.dropped > 0
    *rest, last = [json.loads(line) for line in gateway.reader.read(4096).splitlines()]
    assert deviations(last) == []
    assert (last["event"], last["level"]) == ("log_dropped", "warning")
    assert last["count"] == 5 - len(rest) == gateway.log.dropped
    gateway.log.close(0)
    gateway.reader.close()


def test_nothing_leaves_before_the_flush(gateway: Gateway) -> None:
    """A record costs no system call; the turn's flush does."""
    os.set_blocking(gateway.reader.fileno(), False)
    write_session(gateway.log)
    before = gateway.log.pending
    assert gateway.reader.read(1) is None
    assert gateway.log.flush()
    assert (before, gateway.log.pending) == (True, False)
    assert gateway.log.pollable_fd is None
    assert gateway.reader.read(1) == b"{"


clocks = st.one_of(st.floats(0, 4e9), st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000))


@given(st.lists(clocks, min_size=1))
def test_the_time_is_the_clocks_to_the_millisecond(times: list[float]) -> None:
    """Forwards, backwards and within one second: RFC 3339, UTC, three decimals, never a ms too early."""
    current = 0.0
    stamp = make_stamp(lambda: current, "%Y-%m-%dT%H:%M:%S.{ms}Z", UTC)
    for current in times:
        text = stamp()
        assert len(text) == len("2023-11-14T22:13:20.123Z")
        assert text.endswith("Z")
        written = datetime.fromisoformat(text).timestamp()
        assert -0.000_002 <= current - written < 0.001_001


@given(st.integers(0, 4_000_000_000_000))
def test_a_whole_millisecond_is_written_as_itself(ms: int) -> None:
    """What a float does to .123 is not seen."""
    stamp = make_stamp(lambda: ms / 1000, "%s.{ms}", UTC)
    assert stamp()[-3:] == f"{ms % 1000:03d}"


def test_a_terminal_gets_lines_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a person reads is seen from the descriptor, unless it is said."""
    there, here = os.openpty()
    with FileIO(there, "r") as screen, FileIO(here, "w"):
        people, programs = make_log(here), make_log(here, tty=False)
        write_session(people)
        assert people.close(1) == 0
        assert b"intranet-web" in (line := screen.read(4096))
        assert b"{" not in line
        write_session(programs)
        assert programs.close(1) == 0
        assert b'{"event":"session"' in screen.read(4096)


def test_logs_do_not_share_their_time_or_level() -> None:
    """Two logs in one process, as tests and demo have them, keep their own clock and level."""
    first, second = Gateway(), Gateway(Level.ERROR)
    second.now = NOW + 3600
    for made in (first, second):
        made.log.error(Event.WARNING, message="")
        made.log.info(Event.WARNING, message="")
    assert [record["time"] for record in first.records()] == ["2023-11-14T22:13:20.123Z"] * 2
    assert [record["time"] for record in second.records()] == ["2023-11-14T23:13:20.123Z"]
