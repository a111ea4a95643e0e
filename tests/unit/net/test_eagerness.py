"""Looking early for an answer: kept up where it pays, tried now and then where it does not."""

from appliance.net.eagerness import EVERY, MOST, Eagerness


def tries(eagerness: Eagerness, count: int) -> int:
    return sum(eagerness.tries() for _ in range(count))


def test_at_first_it_is_tried_now_and_then() -> None:
    """One flow in so many, from the beginning and for good where nothing is found."""
    eagerness = Eagerness()
    for _ in range(10):
        assert tries(eagerness, EVERY) == 1
        eagerness.missed()


def test_what_pays_is_kept_up() -> None:
    """Once an answer was there, every flow looks."""
    eagerness = Eagerness()
    eagerness.found()
    assert tries(eagerness, EVERY) == EVERY


def test_it_ends_where_it_does_not_pay() -> None:
    """However long it has paid, so many looks in vain more than in success end it."""
    eagerness = Eagerness()
    for _ in range(1000):
        eagerness.found()
    for _ in range(MOST):
        assert eagerness.tries()
        eagerness.missed()
    assert tries(eagerness, EVERY) == 1


def test_half_and_half_is_not_given_up() -> None:
    """A look in vain costs what one that pays saves: where they alternate, it goes on."""
    eagerness = Eagerness()
    for _ in range(3):
        eagerness.found()
    for _ in range(100):
        eagerness.found()
        eagerness.missed()
    assert eagerness.tries()
