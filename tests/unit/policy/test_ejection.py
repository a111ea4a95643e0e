"""Ejection: who failed lately comes last, for a while, and nobody is left out."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.policy.ejection import EJECTED_FOR, Ejection

ENDPOINTS = ("a", "b", "c", "d")


@given(st.lists(st.tuples(st.sampled_from(ENDPOINTS), st.floats(0, 30))), st.floats(0, 60))
def test_those_that_failed_lately_come_last(failures: list[tuple[str, float]], now: float) -> None:
    """Both halves keep their order, and every endpoint is there once."""
    ejection: Ejection[str] = Ejection()
    until: dict[str, float] = {}
    for endpoint, when in failures:
        ejection.eject(endpoint, when)
        until[endpoint] = when + EJECTED_FOR
    out = [endpoint for endpoint in ENDPOINTS if until.get(endpoint, 0.0) > now]
    well = [endpoint for endpoint in ENDPOINTS if endpoint not in out]
    assert list(ejection.order(ENDPOINTS, now)) == well + out


def test_it_ends_by_itself() -> None:
    """Ten seconds later an endpoint has its turn again, not a moment before."""
    ejection: Ejection[str] = Ejection()
    ejection.eject("a", 100.0)
    assert ejection.order(("a", "b"), 100.0 + EJECTED_FOR - 0.001) == ("b", "a")
    assert ejection.order(("a", "b"), 100.0 + EJECTED_FOR) == ("a", "b")


def test_an_answer_ends_it() -> None:
    """Who answers is back at once; taking back who was never out is no error."""
    ejection: Ejection[str] = Ejection()
    ejection.eject("a", 0.0)
    ejection.restore("a")
    ejection.restore("b")
    assert ejection.order(("a", "b"), 0.0) == ("a", "b")


def test_where_all_are_out_all_are_tried() -> None:
    """Nobody is given up: a rule whose endpoints all failed tries them as it would otherwise."""
    ejection: Ejection[str] = Ejection()
    for endpoint in ENDPOINTS:
        ejection.eject(endpoint, 0.0)
    assert ejection.order(ENDPOINTS, 1.0) == ENDPOINTS


def test_a_failure_counts_anew() -> None:
    """Failing again while out makes it longer."""
    ejection: Ejection[str] = Ejection()
    ejection.eject("a", 0.0)
    ejection.eject("a", 5.0)
    assert ejection.order(("a", "b"), EJECTED_FOR + 4.0) == ("b", "a")
    assert ejection.order(("a", "b"), EJECTED_FOR + 5.0) == ("a", "b")
