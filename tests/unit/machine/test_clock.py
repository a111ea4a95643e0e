"""When the clock is stepped, and when servers are asked."""

from appliance.machine.clock import LONGEST, SHORTEST, Discipline


def test_far_off_is_stepped_and_near_is_slewed() -> None:
    """More than half a second either way is a step, less is not."""
    discipline = Discipline()
    assert [discipline.take(offset)[0] for offset in (0.6, -0.6, 0.4, -0.4, 0.0)] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_clock_that_keeps_is_asked_for_less_and_less() -> None:
    """64 s after the first answer, doubling to 1024, and 64 again when it is off."""
    discipline = Discipline()
    assert [discipline.take(0.001)[1] for _ in range(6)] == [64, 128, 256, 512, 1024, 1024]
    assert discipline.take(0.2)[1] == SHORTEST


def test_servers_that_do_not_answer() -> None:
    """They are asked after 2 s, ever less, at most each minute until the clock is set once, then less."""
    discipline = Discipline()
    assert [discipline.failed() for _ in range(7)] == [2, 4, 8, 16, 32, 64, 64]
    discipline.take(5.0)
    assert [discipline.failed() for _ in range(6)] == [64, 128, 256, 512, LONGEST, LONGEST]
