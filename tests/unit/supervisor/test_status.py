"""What a gateway says of itself: it is the same on both sides, and health is one word."""

import msgspec
import pytest
from msgspec.structs import replace

from appliance.supervisor.status import (
    Failure,
    ListenerStatus,
    RulesetStatus,
    State,
    Status,
    WorkerState,
    WorkerStatus,
)


def worker(index: int, state: WorkerState = WorkerState.READY) -> WorkerStatus:
    return WorkerStatus(
        index=index,
        pid=100 + index,
        state=state,
        ready=state is WorkerState.READY,
        sessions=3,
        sessions_max=10,
        flows=0,
        flows_max=0,
    )


def listener(*, bound: bool = True) -> ListenerStatus:
    return ListenerStatus(rule="web", protocol="tcp", address="0.0.0.0:80", bound=bound)


GOOD = Status(
    version="0.1.0",
    pid=99,
    state=State.READY,
    started="2026-11-24T16:00:00.000Z",
    up=12.5,
    ruleset=RulesetStatus("edge.toml", "0" * 64, 1),
    workers=(worker(0), worker(1)),
    listeners=(listener(), listener()),
)


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (GOOD, None),
        (replace(GOOD, state=State.DRAINING), "the gateway is draining"),
        (replace(GOOD, state=State.STARTING), "the gateway is starting"),
        (
            replace(GOOD, workers=(worker(0), worker(1, WorkerState.SILENT))),
            "1 of 2 workers is not ready",
        ),
        (
            replace(
                GOOD,
                state=State.STARTING,
                workers=(worker(0, WorkerState.GONE), worker(1, WorkerState.STARTING)),
            ),
            "2 of 2 workers are not ready",
        ),
        (replace(GOOD, listeners=(listener(bound=False), listener())), "1 of 2 listeners is not bound"),
        (replace(GOOD, listeners=(listener(bound=False),) * 3), "3 of 3 listeners are not bound"),
        (
            replace(GOOD, listeners=(listener(bound=False),), workers=(worker(0, WorkerState.GONE),)),
            "1 of 1 workers is not ready",
        ),
    ],
)
def test_what_the_trouble_is(status: Status, trouble: str | None) -> None:
    """Healthy is ready, with every worker ready and every listener bound; else the worst is one clause."""
    assert status.trouble == trouble


def test_it_arrives_as_it_was_said() -> None:
    """Encoded and decoded it is the same, and no failure."""
    line = msgspec.json.encode(GOOD)
    assert msgspec.json.decode(line, type=Status) == GOOD
    assert msgspec.json.decode(line, type=Failure).error == ""


def test_a_later_version_may_say_more() -> None:
    """Keys that this version does not know do not make a reply unreadable."""
    said = {**msgspec.to_builtins(GOOD), "more": 1}
    assert msgspec.json.decode(msgspec.json.encode(said), type=Status) == GOOD
