"""Balancing: who is tried first, and who after it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.policy.balance import RoundRobin

targets = st.lists(st.integers(), min_size=1, max_size=12, unique=True)


@given(targets, st.integers(0, 40))
def test_every_endpoint_is_tried_once(endpoints: list[int], sessions: int) -> None:
    """Each order has every endpoint once: a dial that fails everywhere has tried them all."""
    balance = RoundRobin(endpoints)
    for _ in range(sessions + 1):
        assert sorted(balance.order()) == sorted(endpoints)


@given(targets, st.integers(1, 60))
def test_endpoints_take_turns(endpoints: list[int], sessions: int) -> None:
    """First choices go round in the rule's order, so they differ by one session at the most."""
    balance = RoundRobin(endpoints)
    firsts = [balance.order()[0] for _ in range(sessions)]
    assert firsts == [endpoints[session % len(endpoints)] for session in range(sessions)]
    counts = Counter(firsts)
    assert max(counts.values()) - min(counts[each] for each in endpoints) <= 1


@given(targets, st.integers(0, 20))
def test_the_others_follow_in_the_rules_order(endpoints: list[int], before: int) -> None:
    """After its first choice a session goes on where the next session begins."""
    balance = RoundRobin(endpoints)
    for _ in range(before):
        balance.order()
    order = balance.order()
    begin = endpoints.index(order[0])
    assert list(order) == endpoints[begin:] + endpoints[:begin]


def test_an_endpoint_named_twice_has_two_turns() -> None:
    """Equal endpoints are not merged: naming one twice gives it twice the sessions."""
    balance = RoundRobin(["a", "a", "b"])
    assert Counter(balance.order()[0] for _ in range(9)) == {"a": 6, "b": 3}


def test_no_endpoint_is_a_bug() -> None:
    """A rule has at least one endpoint; who asks for less is told at once, not at the first session."""
    with pytest.raises(ValueError, match="at least one"):
        RoundRobin([])
