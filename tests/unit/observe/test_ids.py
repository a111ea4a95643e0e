"""Session ids."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from appliance.observe.ids import ALPHABET, WORKER_BITS, Ids

workers = st.integers(0, (1 << WORKER_BITS) - 1)
clocks = st.floats(0, 4e9)


def number(text: str) -> int:
    """Read base 32 digits, the slow and obvious way."""
    value = 0
    for digit in text:
        value = value * 32 + ALPHABET.index(digit)
    return value


def test_the_time_is_written_as_the_specification_does() -> None:
    """The ULID specification's own example, 1469918176385 ms, gives its ten characters."""
    assert Ids(0).next(1469918176.385)[:10] == "01ARYZ6S41"


@given(workers, st.lists(clocks, min_size=1))
def test_an_id_holds_time_worker_and_count(worker: int, times: list[float]) -> None:
    """Each id is 26 digits from which the millisecond, the worker and the place in line read back."""
    ids = Ids(worker)
    for count, now in enumerate(times):
        text = ids.next(now)
        assert len(text) == 26
        assert number(text[:10]) == int(now * 1000)
        assert number(text[10:20]) == worker
        assert number(text[20:]) == count


def test_ids_stay_apart_and_in_order_across_pages() -> None:
    """Ids of one millisecond sort in the order of the calls, also where the upper digits change."""
    ids = Ids(1)
    made = [ids.next(1.7e9) for _ in range(3000)]
    assert all(before < after for before, after in pairwise(made))


def test_a_clock_set_back_makes_no_id_twice() -> None:
    """The counter goes on when the clock does not."""
    ids = Ids(1)
    made = [ids.next(now) for now in (100.0, 99.0, 100.0, 99.0)]
    assert len(set(made)) == 4


def test_ids_sort_by_time_across_workers() -> None:
    """An id made a millisecond later sorts later, whichever worker made it."""
    first, second = Ids((1 << WORKER_BITS) - 1), Ids(0)
    assert first.next(1048.575) < second.next(1048.576)


def test_the_counter_wraps_without_losing_its_form() -> None:
    """After 2^30 ids the digits begin again and the id is still 26 long."""
    ids = Ids(5, first=(1 << 30) - 1024)
    made = [ids.next(1.0) for _ in range(1025)]
    last, first = made[-2:]
    assert made[0][20:] == "ZZZZ00"
    assert (last[20:], first[20:]) == ("ZZZZZZ", "000000")
    assert last[:20] == first[:20]
