"""How often a socket is read at an event: more where that paid, never past the most, never nothing."""

import random

from hypothesis import given
from hypothesis import strategies as st

from appliance.net.burst import Burst

MOST = 32


def feed(burst: Burst, waiting: int) -> int:
    """Read as the loop does: up to `size`, and say how it went; give how many were read."""
    taken = min(waiting, burst.size)
    if taken == burst.size:
        burst.filled()
    else:
        burst.emptied(taken)
    return taken


def test_a_lone_datagram_costs_one_read() -> None:
    """It begins with one, and stays there as long as one is all there is to read and to find missing."""
    burst = Burst(MOST)
    assert burst.size == 1
    for _ in range(3):
        burst.emptied(0)
        assert burst.size == 1


def test_a_flood_is_met_soon() -> None:
    """Doubling each time, the most is reached in as many events as it has bits."""
    burst = Burst(MOST)
    sizes = []
    while burst.size < MOST:
        grew = burst.filled()
        assert grew
        sizes.append(burst.size)
    assert sizes == [2, 4, 8, 16, 32]


@given(st.lists(st.integers(0, 100), max_size=200), st.sampled_from((1, 32, 64)))
def test_it_stays_within_bounds(waiting: list[int], most: int) -> None:
    """Whatever comes: at least one read, never more than the most."""
    burst = Burst(most)
    for count in waiting:
        feed(burst, count)
        assert 1 <= burst.size <= most


def test_what_was_found_is_asked_for_next() -> None:
    """After a read in vain, the next event is worth as many reads as this one found."""
    burst = Burst(MOST)
    for _ in range(5):
        burst.filled()
    burst.emptied(7)
    assert burst.size == 7


def test_reads_in_vain_are_not_the_rule() -> None:
    """Where one datagram comes at a time, a second one is looked for at one event in sixty."""
    burst = Burst(MOST)
    vain = []
    for _ in range(2000):
        asked = burst.size
        vain.append(feed(burst, 1) < asked)
    assert sum(vain[1000:]) <= 1000 // 60


def test_growing_is_told_once() -> None:
    """`filled` says so only when the next event asks for more, and not at the most."""
    burst = Burst(4)
    assert [burst.filled() for _ in range(4)] == [True, True, False, False]


@given(st.integers(0, 2**32))
def test_the_credit_may_be_taken_by_hand(seed: int) -> None:
    """Who finds more than 1 credit and takes 1 off himself ends where `filled` would have."""
    dice, called, by_hand = random.Random(seed), Burst(MOST), Burst(MOST)
    for _ in range(100):
        if dice.random() < 0.3:
            taken = dice.randrange(called.size + 1)
            called.emptied(taken)
            by_hand.emptied(taken)
        else:
            called.filled()
            if by_hand.credit > 1:
                by_hand.credit -= 1
            else:
                by_hand.filled()
        assert called.size == by_hand.size
