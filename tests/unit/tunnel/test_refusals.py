"""Refusals in the log: the first one at once, a flood as one record for each window."""

from appliance.outcome import Refusal
from appliance.tunnel.refusals import WINDOW, Refusals, Refused
from tests.unit.net.loop import Loop, loop

ONE, OTHER = list(Refusal)[:2]


def pass_time(at: Loop, seconds: float) -> None:
    at.clock.now += seconds
    at.turn()


def test_the_first_is_told_at_once() -> None:
    """The first refusal of each kind, and of each agent's, is told at once."""
    told: list[Refused] = []
    with loop() as at:
        refusals = Refusals(at.reactor, told.append)
        all_first = [Refused("a", ONE), Refused("a", OTHER), Refused("a", ONE, "office")]
        for refused in all_first:
            refusals.add(refused)
    assert told == all_first


def test_a_flood_is_one_record_a_window() -> None:
    """Those like it are counted, and told of as one, the last, when the window is over; then it is quiet."""
    told: list[Refused] = []
    with loop() as at:
        refusals = Refusals(at.reactor, told.append)
        for number in range(1000):
            refusals.add(Refused(f"peer {number}", ONE))
        assert len(told) == 1
        pass_time(at, WINDOW + 0.1)
        assert [(each.peer, each.count) for each in told[1:]] == [("peer 999", 999)]
        refusals.add(Refused("late", ONE))
        assert len(told) == 2, "a flood that goes on is still one"
        pass_time(at, WINDOW + 0.1)
        assert (told[2].peer, told[2].count) == ("late", 1)
        pass_time(at, WINDOW + 0.1)
        pass_time(at, WINDOW + 0.1)
        assert len(told) == 3


def test_after_a_quiet_window_it_is_told_at_once_again() -> None:
    """Nothing is remembered of a kind that did not come in a whole window."""
    told: list[Refused] = []
    with loop() as at:
        refusals = Refusals(at.reactor, told.append)
        refusals.add(Refused("a", ONE))
        pass_time(at, WINDOW + 0.1)
        refusals.add(Refused("b", ONE))
        assert [each.peer for each in told] == ["a", "b"]
        assert not len(refusals._held) > 1
