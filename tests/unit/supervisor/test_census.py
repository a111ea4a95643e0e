"""Asking the workers: each answers for itself, and one that does not holds nobody up for long."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from appliance.ruleset import Protocol
from appliance.supervisor.census import PATIENCE, Census
from appliance.supervisor.generation import Generation
from appliance.supervisor.orders import Ask, Line, Load, line_pair
from appliance.supervisor.place import Place
from appliance.supervisor.status import RulesetStatus, State, Status
from tests.unit.net.loop import Loop, loop
from tests.unit.supervisor.test_binding import bound, ruleset


@dataclass
class Asked:
    """A census of ready workers whose lines the test has the other ends of."""

    loop: Loop
    census: Census
    places: list[Place]
    workers: list[Line]
    replies: list[Status] = field(default_factory=list)

    def ask(self) -> None:
        def keep(reply: msgspec.Struct) -> None:
            assert isinstance(reply, Status)
            self.replies.append(reply)

        self.census.status(b"", keep)

    def states(self) -> list[str]:
        """Take the only reply, and give its workers' states."""
        (reply,) = self.replies
        self.replies.clear()
        assert [worker.ready for worker in reply.workers] == [
            worker.state == "ready" for worker in reply.workers
        ]
        return [worker.state for worker in reply.workers]

    def wait(self) -> None:
        self.loop.clock.now += PATIENCE + 0.1
        self.loop.turn()


@contextmanager
def asked(workers: int = 2, *listens: str) -> Iterator[Asked]:
    with loop() as made, bound(*(listens or ("127.0.0.1:0",)), workers=workers) as binder:
        pairs = [line_pair() for _ in range(workers)]
        places = [
            Place(index, 100 + index, mine, is_ready=True, sessions_max=50)
            for index, (mine, _) in enumerate(pairs)
        ]
        generation = Generation(ruleset(":80"), RulesetStatus("edge.toml", "00", 1), binder, workers)
        generation.places = places
        census = Census(made.reactor, generation, lambda: State.READY)
        try:
            yield Asked(made, census, places, [theirs for _, theirs in pairs])
        finally:
            for mine, theirs in pairs:
                mine.close()
                theirs.close()


def test_the_reply_waits_for_every_worker() -> None:
    """Each is asked, and the reply has what each said just now."""
    with asked() as on:
        on.ask()
        assert [line.hear() for line in on.workers] == [Ask(), Ask()]
        on.census.heard(on.places[1], Load(5, 6))
        assert not on.replies
        on.census.heard(on.places[0], Load(3, 4))
        (reply,) = on.replies
        assert [(one.pid, one.sessions, one.flows) for one in reply.workers] == [(100, 3, 4), (101, 5, 6)]
        assert (reply.state, reply.ruleset.path, reply.workers[0].sessions_max) == ("ready", "edge.toml", 50)
        on.wait()
        assert len(on.replies) == 1


def test_a_silent_worker_is_told_as_such() -> None:
    """After PATIENCE the reply goes out; the next one knows better once the worker has answered."""
    with asked() as on:
        on.ask()
        on.census.heard(on.places[0], Load(0, 0))
        on.wait()
        assert on.states() == ["ready", "silent"]
        on.census.heard(on.places[1], Load(0, 0))
        on.ask()
        for place in on.places:
            on.census.heard(place, Load(0, 0))
        assert on.states() == ["ready", "ready"]


def test_a_silent_worker_is_not_asked_again() -> None:
    """Its queue must have room for the order to drain, however long a health check has gone on."""
    with asked(1) as on:
        for _ in range(2000):
            on.ask()
            on.wait()
        assert {worker.state for reply in on.replies for worker in reply.workers} == {"silent"}
        assert on.workers[0].hear() == Ask()
        with pytest.raises(BlockingIOError):
            on.workers[0].hear()


def test_those_who_ask_together_are_answered_together() -> None:
    """One answer of a worker serves everybody who waits for it."""
    with asked(1) as on:
        for _ in range(3):
            on.ask()
        on.census.heard(on.places[0], Load(7, 0))
        assert [reply.workers[0].sessions for reply in on.replies] == [7, 7, 7]


def test_a_worker_that_dies_is_not_waited_for() -> None:
    """Its place is told as gone, at once."""
    with asked() as on:
        on.ask()
        on.census.heard(on.places[0], Load(0, 0))
        place = on.places[1]
        place.pid, place.line, place.is_ready = 0, None, False
        on.census.lost(place)
        assert on.states() == ["ready", "gone"]


def test_a_worker_that_starts_is_not_asked() -> None:
    """Before it is ready it has nothing to say; with no worker to ask the reply is there at once."""
    with asked() as on:
        on.places[0].is_ready = False
        on.places[1].pid, on.places[1].line, on.places[1].is_ready = 0, None, False
        on.ask()
        assert on.states() == ["starting", "gone"]


def test_a_range_is_one_listener() -> None:
    """Ports side by side are told together, by family and protocol, and others apart; each as it is bound."""
    with asked(2, "127.0.0.1:0") as on:
        address = on.census._listeners[0][0].address
        on.places[0].line = on.places[1].line = None
        on.ask()
        (only,) = on.replies.pop().listeners
        assert (only.rule, only.protocol, only.address, only.bound) == ("rule-0", "tcp", address, True)
        on.census._listeners[0][0].sockets[1].close()
        on.ask()
        assert [listener.bound for listener in on.replies.pop().listeners] == [False]


def test_which_ports_are_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order they were bound: runs of a host and protocol, and unix sockets by themselves."""
    from appliance.supervisor import census  # noqa: PLC0415
    from appliance.supervisor.binding import Bound  # noqa: PLC0415

    (rule,) = ruleset(":80").rules
    addresses = ["[::]:81", "0.0.0.0:81", "[::]:80", "0.0.0.0:80", "0.0.0.0:83", "unix:/a:1", "unix:/a:2"]
    bounds = [
        Bound(rule, protocol, rule.listen[0], address, 0, (), 1, shared=False, inherited=False)
        for protocol in (Protocol.TCP, Protocol.UDP)
        for address in addresses
        if protocol is Protocol.TCP or not address.startswith("unix")
    ]
    told = [census._listener(run) for run in census._ranges(bounds)]
    inet = ["[::]:80-81", "0.0.0.0:80-81", "0.0.0.0:83"]
    assert [(one.protocol, one.address) for one in told] == [
        *(("tcp", address) for address in (*inet, "unix:/a:1", "unix:/a:2")),
        *(("udp", address) for address in inet),
    ]
