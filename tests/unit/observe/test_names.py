"""The names of the log and the page that is made from them."""

import ast
import inspect
import json
from pathlib import Path

import pytest
from msgspec.structs import fields

from appliance.observe import reference
from appliance.observe.names import HEAD, SESSION_LEVEL, Event, Field, deviations
from appliance.observe.record import SessionRecord
from appliance.outcome import LEGAL, Cause, Drop, Refusal, Stage

PAGE = Path(__file__).parents[3] / "docs" / "log.md"


def test_page_is_made_from_the_names() -> None:
    """docs/log.md is what the program prints: a name changed in one place is changed in both."""
    assert PAGE.read_text(encoding="utf-8") == reference.page()


def test_page_names_everything() -> None:
    """Every event, field, stage, cause and drop has a row, and no row lacks its meaning."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in reference.page().splitlines()
        if line.startswith("| `")
    ]
    assert [row[0].strip("`") for row in rows] == [
        *Event,
        *HEAD,
        *(field for field in Field if field not in HEAD),
        *Stage,
        *Cause,
        *Drop,
        *Refusal,
    ]
    assert all(member.meaning.endswith(".") for names in (Event, Field) for member in names)


def test_every_stage_cause_and_drop_has_its_meaning_on_the_page() -> None:
    """The meaning written below a stage, cause or drop in the source is the one the page shows."""
    page = reference.page()
    for closed_set in (Stage, Cause, Drop, Refusal):
        body = ast.parse(inspect.getsource(closed_set)).body[0]
        assert isinstance(body, ast.ClassDef)
        meanings = [
            node.value.value
            for node in body.body[1:]
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ]
        assert len(meanings) == len(closed_set)
        assert all(str(meaning) in page for meaning in meanings)


def test_a_session_record_has_the_fields_of_its_event() -> None:
    """The struct that is encoded and the table of names list the same keys."""
    keys = [field.name for field in fields(SessionRecord)]
    config = SessionRecord.__struct_config__
    assert (config.tag_field, config.tag) == (Field.EVENT, Event.SESSION)
    assert tuple(keys[:2]) == HEAD[1:]
    assert set(keys[2:]) == {*Event.SESSION.always, *Event.SESSION.sometimes}


def test_every_cause_has_a_level() -> None:
    """A session can end by any cause and its record finds a level that the event allows."""
    assert set(SESSION_LEVEL) == set(Cause)
    assert {cause for causes in LEGAL.values() for cause in causes} <= set(SESSION_LEVEL)
    assert set(SESSION_LEVEL.values()) == set(Event.SESSION.levels)


def test_every_field_belongs_to_an_event() -> None:
    """No field is left in the table that no record has, and none is both always and sometimes there."""
    used = {field for event in Event for field in (*event.always, *event.sometimes)}
    assert used | set(HEAD) == set(Field)
    assert not any(set(event.always) & set(event.sometimes) for event in Event)


GOOD: dict[str, object] = {
    "event": "listening",
    "level": "info",
    "time": "2026-01-01T00:00:00.000Z",
    "rule": "web",
    "protocol": "udp",
    "listener": "0.0.0.0:80",
}


def test_a_record_of_the_table_conforms() -> None:
    """What is listed is accepted, with and without what may be left out."""
    assert deviations(GOOD) == []
    fault = {key: value for key, value in GOOD.items() if key not in {"rule", "protocol", "listener"}}
    fault |= {"event": "internal_error", "level": "error", "exception": "Traceback"}
    assert deviations(fault) == []
    assert deviations(fault | {"worker": 0}) == []


HEAD_ONLY: dict[str, object] = {"event": "", "level": "info", "time": "2026-01-01T00:00:00.000Z"}


@pytest.mark.parametrize(
    ("event", "level", "always"),
    [
        ("listening", "info", {"rule": "r", "protocol": "tcp", "listener": "l"}),
        ("ready", "info", {"workers": 2, "pid": 7, "version": "1", "sessions_max": 500}),
        ("receive_buffer_limited", "warning", {"rule": "r", "wanted": 4194304, "granted": 212992}),
        ("datagrams_dropped", "warning", {"rule": "r", "listener": "l", "worker": 0, "count": 7}),
        ("draining", "info", {"signal": "SIGTERM", "deadline_ms": 30000.0}),
        ("listener_paused", "warning", {"rule": "r", "listener": "l", "error": "EMFILE", "worker": 0}),
        ("listener_resumed", "info", {"rule": "r", "listener": "l", "worker": 0}),
        ("resolve_failed", "warning", {"name": "db.internal", "error": "x", "worker": 0}),
    ],
)
def test_what_a_reader_may_rely_on(event: str, level: str, always: dict[str, object]) -> None:
    """These records have each of these fields and no other: a field that nobody writes is not promised."""
    record = HEAD_ONLY | {"event": event, "level": level} | always
    assert deviations(record) == []
    for field in always:
        less = {key: value for key, value in record.items() if key != field}
        assert deviations(less) == [f"{event} without {field}"]
    for never in ("session", "message", "duration_ms"):
        assert deviations(record | {never: HEAD_ONLY}) == [f"{event} with {never}", *types(never)]


def types(field: str) -> list[str]:
    """Say what is found where a field holds a table."""
    kind = next(each.kind for each in Field if each == field)
    return [f"{field} is {HEAD_ONLY!r}, not of type {kind}"]


@pytest.mark.parametrize(
    "said",
    [
        "without headers",
        "no flow's record",
        "`session_limit`",
        "50 ms",
        "SIGKILL",
        "nothing counts them",
        "other side's kernel",
        "copytruncate",
    ],
)
def test_page_tells_what_a_count_may_miss(said: str) -> None:
    """Who adds up records has to know when they are late, lost, or larger than what was read."""
    assert said in " ".join(reference.page().split())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"event": "lisening"}, "unknown event 'lisening'"),
        ({"level": "error"}, "listening at level 'error'"),
        ({"up": 1}, "listening with up"),
        ({"colour": 1}, "listening with colour"),
        ({"rule": 7}, "rule is 7, not of type string"),
        ({"rule": None}, "rule is None, not of type string"),
        ({"protocol": 17}, "protocol is 17, not of type string"),
    ],
)
def test_a_record_off_the_table_is_named(change: dict[str, object], said: str) -> None:
    """An event, level, field or type that the page does not list is found, and said in a sentence."""
    assert deviations(GOOD | change) == [said]


def test_a_record_that_lacks_or_misorders_its_keys_is_named() -> None:
    """A missing field and a head out of order are found, and a boolean is no number."""
    assert deviations({key: value for key, value in GOOD.items() if key != "rule"}) == [
        "listening without rule"
    ]
    assert deviations(dict(reversed(GOOD.items()))) == ["begins with listener, protocol, rule"]
    dropped = {"event": "log_dropped", "level": "warning", "time": "", "count": True}
    assert deviations(dropped) == ["count is True, not of type integer"]


FLOW: dict[str, object] = json.loads(reference.sample().splitlines()[1])


@pytest.mark.parametrize("drops", [{"truncated": 1}, {"unsent": 3, "too_long": 2}])
def test_drops_are_counts_by_why(drops: dict[str, int]) -> None:
    """A flow's record may say how many datagrams were dropped for each of the reasons on the page."""
    assert deviations(FLOW | {"drops": drops}) == []


@pytest.mark.parametrize(
    "drops", [{}, {"evaporated": 1}, {"unsent": 0}, {"unsent": True}, {"unsent": "1"}, 7, ["unsent"], None]
)
def test_drops_off_the_table_are_named(drops: object) -> None:
    """No other reason, no count of nothing, no empty object: what was not dropped is not mentioned."""
    assert deviations(FLOW | {"drops": drops}) == [f"drops is {drops!r}, not of type object"]


def test_the_samples_on_the_page_conform() -> None:
    """The session and the flow that the page shows are as its tables say, one of each protocol."""
    samples = [json.loads(line) for line in reference.sample().splitlines()]
    assert [deviations(sample) for sample in samples] == [[], []]
    assert [sample["protocol"] for sample in samples] == ["tcp", "udp"]
