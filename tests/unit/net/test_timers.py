"""Deadlines: never early, late by a slot at the most, and cheap to cancel."""

import math
import random

from appliance.net.timers import SLOTS_PER_SECOND, Timers
from tests.unit.net.loop import Watcher

LATE = 1 / SLOTS_PER_SECOND


def test_nobody_is_called_early() -> None:
    """A handler is not taken out before its deadline has passed."""
    timers, handler = Timers(), Watcher()
    timers.arm(100.01, handler)
    assert timers.take_due(100.0099) == []
    assert timers.take_due(100.01 + LATE) == [handler]


def test_a_deadline_on_a_slots_edge_is_not_put_off() -> None:
    """A deadline that is a multiple of the slot is kept to the instant."""
    timers, handler = Timers(), Watcher()
    timers.arm(100.0625, handler)
    assert timers.due == 100.0625
    assert timers.take_due(100.0625) == [handler]


def test_a_deadline_that_has_passed_already_is_due_at_once() -> None:
    """Arming for the past calls in the next turn, also when later deadlines were armed before."""
    timers, handler = Timers(), Watcher()
    timers.arm(500.0, Watcher())
    timers.arm(1.0, handler)
    assert timers.due <= 1.0 + LATE
    assert timers.take_due(100.0) == [handler]


def test_each_handler_is_called_once() -> None:
    """What was taken is gone; the same deadline armed twice is one call."""
    timers, handler = Timers(), Watcher()
    assert timers.arm(10.0, handler) == timers.arm(10.0, handler)
    assert len(timers) == 1
    assert timers.take_due(11.0) == [handler]
    assert timers.take_due(12.0) == []
    assert len(timers) == 0


def test_cancelling_is_idempotent() -> None:
    """A handler that was called, cancelled or never armed can be cancelled; the others of its slot stay."""
    timers, gone, stays = Timers(), Watcher(), Watcher()
    slot = timers.arm(10.0, gone)
    assert timers.arm(10.0, stays) == slot
    timers.cancel(slot, gone)
    timers.cancel(slot, gone)
    timers.cancel(-1, gone)
    assert timers.take_due(11.0) == [stays]
    timers.cancel(slot, stays)
    assert timers.take_due(12.0) == []


def test_an_empty_slot_wakes_nobody() -> None:
    """Slots whose handlers were all cancelled are dropped at the next look: `due` passes over them."""
    timers, handler = Timers(), Watcher()
    for deadline in (10.0, 20.0, 30.0):
        timers.cancel(timers.arm(deadline, handler), handler)
    timers.arm(40.0, handler)
    assert timers.take_due(1.0) == []
    assert timers.due == 40.0
    assert timers.take_due(40.0) == [handler]
    assert timers.due == math.inf


def test_with_nothing_armed_nothing_is_due() -> None:
    """A fresh set of timers never wakes the loop."""
    assert Timers().due == math.inf


def walk(seed: int) -> int:
    """Do anything in any order, beside a model that is a plain dict; how many deadlines were kept."""
    dice, timers, now, kept = random.Random(seed), Timers(), 1000.0, 0
    handlers = [Watcher() for _ in range(8)]
    armed: dict[Watcher, tuple[float, int]] = {}
    for _ in range(150):
        handler = dice.choice(handlers)
        act = dice.random()
        if act < 0.5 and handler not in armed:
            deadline = now + dice.choice((dice.uniform(-1, 5), dice.randint(0, 3), 3600.0))
            armed[handler] = deadline, timers.arm(deadline, handler)
        elif act < 0.65 and handler in armed:
            timers.cancel(armed.pop(handler)[1], handler)
        elif act > 0.65:
            now += dice.choice((0.0, dice.uniform(0, 0.2), dice.uniform(0, 10)))
            called = timers.take_due(now)
            kept += len(called)
            assert len(called) == len(set(called))
            for each in called:
                assert isinstance(each, Watcher)
                assert armed.pop(each)[0] <= now, "early"
            assert all(deadline + LATE > now for deadline, _ in armed.values()), "late"
        assert len(timers) == len(armed)
        earliest = min((deadline for deadline, _ in armed.values()), default=math.inf)
        assert timers.due == earliest or timers.due < earliest + LATE, "the loop would sleep over a deadline"
    return kept


def test_any_walk_keeps_every_deadline() -> None:
    """Whatever is armed and cancelled: each call is due, at most a slot late, once; `due` is never late."""
    kept = 0
    for seed in range(200):
        try:
            kept += walk(seed)
        except BaseException:
            print(f"walk({seed})")
            raise
    assert kept > 1000
