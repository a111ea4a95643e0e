"""The log: what a record looks like, and when."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from appliance.observe.lines import make_times
from appliance.observe.log import make_log
from appliance.observe.names import SESSION_LEVEL, Event, Level, deviations
from appliance.observe.record import SessionRecord, milliseconds
from appliance.outcome import LEGAL, Cause, Drop, Stage
from tests.unit.observe.records import flow, session

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


def test_a_session_is_the_line_of_the_design(gateway: Gateway) -> None:
    """Keys, their order, and the form of every value, to the byte."""
    gateway.log.sessions([session()])
    (line,) = gateway.lines()
    assert line == (
        b'{"event":"session","level":"info","time":"2023-11-14T22:13:20.123Z",'
        b'"session":"01HF7YAT3V4T9Q2M7XKD000042","rule":"intranet-web","protocol":"tcp",'
        b'"client":"203.0.113.9:51022","listener":"0.0.0.0:8080","endpoint":"10.0.0.5:80",'
        b'"stage":"relay","cause":"client_eof","up":1204,"down":90811,"connect_ms":0.41,'
        b'"first_byte_ms":3.2,"duration_ms":812.0}'
    )


def test_a_flow_is_the_line_of_a_session_with_its_datagrams(gateway: Gateway) -> None:
    """A UDP flow has the same record; datagrams and drops stand behind the bytes, to the byte."""
    gateway.log.sessions([flow(drops={Drop.TRUNCATED: 1, Drop.SEND_FULL: 2})])
    (line,) = gateway.lines()
    assert line == (
        b'{"event":"session","level":"info","time":"2023-11-14T22:13:20.123Z",'
        b'"session":"01HF7YAT3V4T9Q2M7XKD000042","rule":"dns","protocol":"udp",'
        b'"client":"203.0.113.9:51022","listener":"0.0.0.0:53","endpoint":"10.0.0.2:53",'
        b'"stage":"relay","cause":"answered","up":41,"down":120,"up_datagrams":1,"down_datagrams":1,'
        b'"drops":{"truncated":1,"send_full":2},"first_byte_ms":3.2,"duration_ms":812.0}'
    )
    assert deviations(json.loads(line)) == []


@pytest.mark.parametrize("made", [session, flow])
def test_what_never_came_to_be_is_left_out(gateway: Gateway, made: Callable[..., SessionRecord]) -> None:
    """A client that was never dialled for has no endpoint and no times of it: the keys are not there."""
    gateway.log.sessions(
        [
            made(
                stage=Stage.DIAL,
                cause=Cause.FD_LIMIT,
                endpoint=UNSET,
                connect_ms=UNSET,
                first_byte_ms=UNSET,
                up=0,
                duration_ms=0.0,
            )
        ]
    )
    (record,) = gateway.records()
    assert deviations(record) == []
    assert not {"endpoint", "connect_ms", "first_byte_ms", "attempts", "drops"} & set(record)
    assert record["up"] == record["duration_ms"] == 0


@pytest.mark.parametrize("made", [session, flow])
@pytest.mark.parametrize(
    ("stage", "cause"), [(stage, cause) for stage in Stage for cause in Cause if cause in LEGAL[stage]]
)
def test_every_way_a_session_can_end_has_a_record(
    gateway: Gateway, made: Callable[..., SessionRecord], stage: Stage, cause: Cause
) -> None:
    """Each legal stage and cause gives one record that conforms to the names, at the level of its cause."""
    gateway.log.sessions([made(stage=stage, cause=cause)])
    (record,) = gateway.records()
    assert deviations(record) == []
    assert (record["stage"], record["cause"]) == (stage, cause)
    assert record["level"] == SESSION_LEVEL[cause]


def test_a_batch_is_written_in_its_order_each_with_its_own_time_and_level(gateway: Gateway) -> None:
    """Of many records written at once, each says when its session ended and the level of its cause."""
    causes = [Cause.CLIENT_EOF, Cause.INTERNAL, Cause.ANSWERED, Cause.FLOW_LIMIT]
    gateway.log.sessions(
        [
            session(session=f"{number}", cause=cause, time=ago)
            for number, (cause, ago) in enumerate(zip(causes, (0.2, 0.05, 0.05, 0), strict=True))
        ]
    )
    records = gateway.records()
    assert [record["session"] for record in records] == ["0", "1", "2", "3"]
    assert [record["level"] for record in records] == ["info", "error", "info", "warning"]
    assert [record["time"] for record in records] == [
        "2023-11-14T22:13:19.923Z",
        "2023-11-14T22:13:20.073Z",
        "2023-11-14T22:13:20.073Z",
        "2023-11-14T22:13:20.123Z",
    ]


def test_no_records_are_no_line(gateway: Gateway) -> None:
    """A batch may be empty."""
    gateway.log.sessions([])
    assert not gateway.log.pending
    assert gateway.lines() == []


@given(
    st.lists(
        st.one_of(
            st.builds(lambda text: session(rule=text), st.text(st.characters(codec=None), max_size=5)),
            st.builds(lambda drops: flow(drops=drops), st.dictionaries(st.sampled_from(Drop), st.just(1))),
        )
    )
)
def test_a_batch_is_what_its_records_are_one_by_one(batch: list[SessionRecord]) -> None:
    """Together or each by itself, broken strings among them or not: the same lines, to the byte."""
    together, alone = Gateway(), Gateway()
    for record in batch:
        alone.log.sessions([replace(record)])
    together.log.sessions(batch)
    assert together.lines() == alone.lines()


def test_a_value_that_is_no_text_costs_no_other_record(gateway: Gateway) -> None:
    """One record of a batch holds bytes that are not UTF-8: it is written with them escaped, as are all."""
    gateway.log.sessions([session(), flow(listener="unix:/\udc80", drops={Drop.UNSENT: 1}), session()])
    first, broken, last = gateway.records()
    assert first == last
    assert broken["listener"] == "unix:/\\udc80"
    assert broken["drops"] == {"unsent": 1}
    assert list(broken)[:3] == ["event", "level", "time"]
    assert all(deviations(record) == [] for record in (first, broken, last))


def test_a_batch_that_does_not_fit_is_counted_to_the_record() -> None:
    """Of a batch larger than the room that is left, what fits is written and the rest counted."""
    gateway = Gateway(limit=2000)
    gateway.log.sessions([session(session=f"{number}") for number in range(64)])
    assert gateway.log.flush()
    *written, told = [json.loads(line) for line in gateway.reader.read(4096).splitlines()]
    assert [record["session"] for record in written] == [f"{number}" for number in range(len(written))]
    assert (told["event"], told["count"]) == ("log_dropped", 64 - len(written))
    assert gateway.log.dropped == 64 - len(written) < 64
    gateway.log.close(0)
    gateway.reader.close()


@given(st.floats(0, 1e7))
def test_milliseconds_have_three_decimals_at_most(seconds: float) -> None:
    """No record carries the noise of a float: microseconds are the finest, and none is lost."""
    gateway = Gateway()
    gateway.log.sessions([session(duration_ms=milliseconds(seconds))])
    (line,) = gateway.lines()
    written = json.loads(line, parse_float=str)["duration_ms"]
    assert len(written.partition(".")[2]) <= 3
    assert float(written) == pytest.approx(seconds * 1000, abs=0.00051)


def test_an_event_keeps_the_order_of_its_fields(gateway: Gateway) -> None:
    """Other events begin as a session does and go on in the order they were given."""
    gateway.log.info(Event.LISTENING, rule="web", protocol="tcp", listener="0.0.0.0:80")
    gateway.log.warning(Event.LISTENER_PAUSED, listener="0.0.0.0:80", error="EMFILE", rule="web")
    first, second = gateway.lines()
    assert first == (
        b'{"event":"listening","level":"info","time":"2023-11-14T22:13:20.123Z",'
        b'"rule":"web","protocol":"tcp","listener":"0.0.0.0:80"}'
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
    (warning,) = gateway.records()
    assert warning["message"] == "bad \\udcff name"
    assert (warning["error"], warning["rule"]) == ("[Errno 24] x", "/r")


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_a_record_is_one_line_of_utf8(rule: str, message: str) -> None:
    """Whatever the strings hold, line ends and lone surrogates too: one line, and it parses."""
    gateway = Gateway()
    gateway.log.sessions([session(rule=rule)])
    gateway.log.warning(Event.WARNING, message=message)
    ended, warning = [json.loads(line.decode()) for line in gateway.lines()]
    assert ended["rule"] == rule.encode("utf-8", "backslashreplace").decode()
    assert warning["message"] == message.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize(("level", "written"), [(Level.INFO, 3), (Level.WARNING, 2), (Level.ERROR, 1)])
def test_records_below_the_level_are_not_written(level: Level, written: int) -> None:
    """An operator who asks for warnings gets warnings and errors, of sessions and of everything else."""
    gateway = Gateway(level)
    gateway.log.sessions(
        [session(cause=cause) for cause in (Cause.CLIENT_EOF, Cause.DIAL_REFUSED, Cause.INTERNAL)]
    )
    gateway.log.sessions([session(cause=Cause.DRAIN)] if level is not Level.INFO else [])
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
    gateway.log.sessions([session()])
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
    write = make_times("%Y-%m-%dT%H:%M:%S.{ms}Z", UTC)
    for current in times:
        text = write(current)
        assert len(text) == len("2023-11-14T22:13:20.123Z")
        assert text.endswith("Z")
        written = datetime.fromisoformat(text).timestamp()
        assert -0.000_002 <= current - written < 0.001_001


@given(st.integers(0, 4_000_000_000_000))
def test_a_whole_millisecond_is_written_as_itself(ms: int) -> None:
    """What a float does to .123 is not seen."""
    assert make_times("%s.{ms}", UTC)(ms / 1000)[-3:] == f"{ms % 1000:03d}"


def test_a_terminal_gets_lines_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a person reads is seen from the descriptor, unless it is said."""
    there, here = os.openpty()
    with FileIO(there, "r") as screen, FileIO(here, "w"):
        people, programs = make_log(here), make_log(here, tty=False)
        people.sessions([session()])
        assert people.close(1) == 0
        assert b"intranet-web" in (line := screen.read(4096))
        assert b"{" not in line
        programs.sessions([session()])
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
