"""What is done again and again."""

import pytest

from appliance.supervisor.repeated import Repeated
from tests.unit.net.loop import loop


def test_it_is_done_each_time() -> None:
    """Not at once, then every so many seconds, once for a loop that was late."""
    done: list[float] = []
    with loop() as on:
        Repeated(on.reactor, 10.0, lambda: done.append(on.clock.now))
        for seconds in (9.5, 0.6, 5.0, 5.1, 100.0, 0.1, 10.1):
            on.clock.now += seconds
            on.turn()
        assert done == pytest.approx([1010.1, 1020.2, 1120.2, 1130.4])


def test_a_fault_does_not_end_it() -> None:
    """It is reported, and the next time comes."""
    done: list[int] = []

    def fail() -> None:
        done.append(1)
        raise ZeroDivisionError

    with loop() as on:
        Repeated(on.reactor, 10.0, fail)
        for _ in range(2):
            on.clock.now += 10.1
            on.turn()
        assert len(done) == len(on.faults) == 2
        on.faults.clear()
