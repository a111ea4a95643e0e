"""The log for a person."""

import os
import re
import time
from collections.abc import Iterator
from io import FileIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from structlog import dev

from appliance.observe.console import size, span
from appliance.observe.log import make_log
from appliance.observe.names import Event
from appliance.outcome import Cause, Drop, Stage
from tests.unit.observe.records import flow, session

COLOUR = re.compile("\x1b\\[[0-9;]*m")
PLAIN = {"NO_COLOR": "1"}


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC-2")
        time.tzset()
        yield
    time.tzset()


class Screen:
    """A log for people, and what they see."""

    def __init__(self, environ: dict[str, str]) -> None:
        reading, writing = os.pipe()
        self.reader = FileIO(reading, "r")
        with FileIO(writing, "w"):
            self.log = make_log(writing, tty=True, wall_clock=lambda: 1700000000.123, environ=environ)

    def text(self) -> str:
        assert self.log.close(0) == 0
        with self.reader:
            return self.reader.readall().decode()


def test_a_session_is_one_aligned_line() -> None:
    """Local time, who, where to, why it ended, how much and how long; columns stand below each other."""
    screen = Screen(PLAIN)
    nowhere = session(rule="mail", endpoint=UNSET, stage=Stage.DIAL, cause=Cause.DIAL_RESOLVE)
    longest = session(cause=Cause.ENDPOINT_UNREACHABLE)
    screen.log.sessions([session(), nowhere])
    screen.log.sessions([longest])
    lines = screen.text().splitlines()
    assert re.sub(" +", " ", lines[0]) == (
        "00:13:20.123 intranet-web 203.0.113.9:51022 -> 10.0.0.5:80 client_eof up 1.2 kB down 90.8 kB 812 ms"
    )
    assert "-> -  " in lines[1]
    assert "dial_resolve" in lines[1]
    columns = [[line.index(mark) for mark in ("->", " up ", " down ")] for line in lines]
    assert columns == [columns[0]] * 3
    assert {len(line) for line in lines} == {len(lines[0])}


def test_a_flow_is_a_sessions_line_with_its_datagrams() -> None:
    """How many datagrams went which way, and of those that did not, how many and why."""
    screen = Screen(PLAIN)
    dropped = {Drop.SEND_FULL: 2, Drop.TRUNCATED: 1}
    screen.log.sessions([session(), flow(), flow(drops=dropped)])
    tcp, whole, lossy = screen.text().splitlines()
    assert whole[len(tcp) :] == "  datagrams 1 up, 1 down"
    assert lossy == f"{whole}  dropped 2 send_full, 1 truncated"


def test_a_batch_says_when_each_ended() -> None:
    """Of records written together, each has its own time, and the colour of its own level."""
    screen = Screen({})
    screen.log.sessions([session(time=2.5), session(cause=Cause.INTERNAL)])
    first, second = screen.text().splitlines()
    assert "00:13:17.623" in first
    assert "00:13:20.123" in second
    assert f"{dev.GREEN}client_eof" in first
    assert f"{dev.RED}internal" in second


def test_an_event_is_a_line_with_its_fields() -> None:
    """Other events say their name and fields; only what needs attention says its level."""
    screen = Screen(PLAIN)
    screen.log.info(Event.LISTENING, rule="web", listener="0.0.0.0:80")
    screen.log.warning(Event.LISTENER_PAUSED, rule="web", listener="0.0.0.0:80", error="EMFILE")
    assert screen.text().splitlines() == [
        "00:13:20.123 listening rule=web listener=0.0.0.0:80",
        "00:13:20.123 warning listener_paused rule=web listener=0.0.0.0:80 error=EMFILE",
    ]


def raised() -> Exception:
    try:
        1 / 0  # noqa: B018  raises
    except ZeroDivisionError as error:
        return error
    return Exception()


def test_a_traceback_is_printed_as_lines() -> None:
    """A fault's traceback reads as Python prints it."""
    screen = Screen(PLAIN)
    screen.log.error(Event.INTERNAL_ERROR, exc_info=raised(), session="01H")
    first, second, *_, last = screen.text().splitlines()
    assert first == "00:13:20.123 error internal_error session=01H"
    assert second == "Traceback (most recent call last):"
    assert last == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({}, True),
        ({"TERM": "xterm"}, True),
        ({"NO_COLOR": ""}, True),
        (PLAIN, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colour_is_left_out_where_it_is_not_wanted(environ: dict[str, str], coloured: bool) -> None:
    """NO_COLOR, when not empty, and TERM=dumb are obeyed; without colour the same text remains."""
    screen, plain = Screen(environ), Screen(PLAIN)
    for log in (screen.log, plain.log):
        log.sessions([session()])
        log.warning(Event.WARNING, message="m")
    text = screen.text()
    assert ("\x1b" in text) is coloured
    assert COLOUR.sub("", text) == plain.text()


@given(st.text(st.characters(codec=None)))
def test_no_field_reaches_the_terminal_as_a_command(text: str) -> None:
    """Whatever rule names, errors or messages hold: each record is its line, without control characters."""
    screen = Screen({})
    screen.log.sessions([session(rule=text, endpoint=text, client=text)])
    screen.log.warning(Event.WARNING, message=text, error=ValueError(text))
    lines = COLOUR.sub("", screen.text()).split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_a_traceback_cannot_command_the_terminal_either() -> None:
    """The message of an exception may come from outside: only its line ends are kept."""
    screen = Screen(PLAIN)
    screen.log.error(Event.INTERNAL_ERROR, exc_info=ValueError("\x1b]0;title\x07\r\n\x9b2J"))
    text = screen.text()
    assert text.replace("\n", "").isprintable()
    assert "\\x1b]0;title\\x07\\r\n\\x9b2J" in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (90_811, "90.8 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1 << 30, "1.1 GB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_sizes_read_as_people_say_them(number: int, text: str) -> None:
    """Decimal units, one decimal, no 1000.0 of the smaller unit."""
    assert size(number) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0.00 ms"),
        (0.414, "0.41 ms"),
        (9.996, "10.00 ms"),
        (12.3, "12 ms"),
        (999.4, "999 ms"),
        (999.5, "1.0 s"),
        (59_949, "59.9 s"),
        (59_950, "1m00s"),
        (245_000, "4m05s"),
        (3_599_499, "59m59s"),
        (3_599_500, "1h00m"),
        (7_740_000, "2h09m"),
        (360_000_000, "100h00m"),
    ],
)
def test_spans_read_as_people_say_them(ms: float, text: str) -> None:
    """Two units at most, and no 60 seconds."""
    assert span(ms) == text
