"""Pauses between tries: they grow to a bound, and no two agents have the same."""

import random

from appliance.tunnel.backoff import FIRST, LONGEST, Backoff


def test_pauses_double_to_a_bound() -> None:
    """The longest possible pauses are FIRST, twice that, and so on, up to LONGEST."""
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next() for _ in range(5)] == [FIRST, 2 * FIRST, 4 * FIRST, LONGEST, LONGEST]


def test_each_is_a_random_one_from_half_of_it_up() -> None:
    """No pause is below half of its bound, and they differ."""
    numbers = random.Random(1)
    pauses = [Backoff(numbers.random).next() for _ in range(200)]
    assert all(FIRST / 2 <= pause <= FIRST for pause in pauses)
    assert max(pauses) - min(pauses) > FIRST / 3


def test_success_begins_anew() -> None:
    """After a success the next pause is a first one."""
    backoff = Backoff(lambda: 1.0)
    for _ in range(9):
        backoff.next()
    backoff.reset()
    assert backoff.next() == FIRST
