"""Counts that workers share, against one counter that sees them all."""

import mmap
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.policy.tally import Tally, tally_bytes

SLOTS = 16
WORKERS = 3
keys = st.one_of(st.sampled_from((0, 1, -1, 2, SLOTS, 2**63, 2**64 - 1, 7, 7 + SLOTS)), st.integers(-9, 9))
steps = st.lists(st.tuples(st.integers(0, WORKERS - 1), keys, st.booleans()), max_size=120)


def shared(workers: int = WORKERS, slots: int = SLOTS) -> tuple[bytearray, list[Tally]]:
    memory = bytearray(tally_bytes(workers, slots))
    return memory, [Tally(memoryview(memory), workers, worker) for worker in range(workers)]


def same(key: int) -> int:
    """Which key it is in 64 bits; 0 is no key, and counts as 1."""
    return key % 2**64 or 1


@given(steps)
def test_every_worker_sees_the_sum_of_all(acts: list[tuple[int, int, bool]]) -> None:
    """Whatever each counts up and down, all of them read the same, which is the sum."""
    _, tallies = shared()
    counts: list[Counter[int]] = [Counter() for _ in tallies]
    for worker, key, up in acts:
        if not up and not counts[worker][same(key)]:
            continue
        full = sum(count > 0 for count in counts[worker].values()) >= SLOTS // 2
        if up and full and not counts[worker][same(key)]:
            continue
        tallies[worker].add(key, 1 if up else -1)
        counts[worker][same(key)] += 1 if up else -1
        for each in tallies:
            assert each.total(key) == sum(count[same(key)] for count in counts)
    for key in {same(key) for _, key, _ in acts}:
        assert {each.total(key) for each in tallies} == {sum(count[key] for count in counts)}


@pytest.mark.parametrize("key", [0, 1, -1, -(2**63), 2**63, hash("a"), -hash("a")])
def test_any_number_is_a_key(key: int) -> None:
    """Python's hashes are signed, and may be 0, which is the word for an empty slot."""
    _, (one, *_) = shared()
    assert one.total(key) == 0
    one.add(key, 3)
    assert one.total(key) == 3
    one.add(key, -3)
    assert one.total(key) == 0


def test_keys_of_one_slot_are_told_apart() -> None:
    """Collisions go on to the next slot, around the end as well."""
    _, (one, other, _) = shared()
    colliding = [SLOTS - 1 + SLOTS * step for step in range(8)]
    for count, key in enumerate(colliding, 1):
        one.add(key, count)
        other.add(key, 10)
    assert [one.total(key) for key in colliding] == [count + 10 for count in range(1, 9)]
    assert one.total(SLOTS - 1 + SLOTS * 9) == 0


def test_there_is_always_room_for_what_is_counted() -> None:
    """Keys under which nothing is counted any more make room for new ones, as often as it takes."""
    _, (one, other, _) = shared()
    one.add(5, 1)
    for key in range(1000, 3000):
        one.add(key, 1)
        assert other.total(key) == 1
        one.add(key, -1)
        assert other.total(key) == 0
    assert other.total(5) == 1


@given(st.integers(0, 2**32))
def test_making_room_leaves_no_count_behind(seed: int) -> None:
    """A key that nobody counts under has none, whatever was counted in its place before."""
    dice, (_, (one, other, _)) = random.Random(seed), shared()
    counted: dict[int, int] = {}
    for _ in range(40):
        key = dice.randint(1, 3 * SLOTS)
        if key in counted:
            one.add(key, -counted.pop(key))
        elif len(counted) < SLOTS // 2:
            counted[key] = dice.randint(1, 9)
            one.add(key, counted[key])
        for each in range(1, 3 * SLOTS + 1):
            assert other.total(each) == counted.get(each, 0)


def test_more_keys_than_slots_is_an_error() -> None:
    """It is told, instead of a search for a free slot without an end."""
    _, (one, *_) = shared()
    for key in range(1, SLOTS * 3 // 4 + 1):
        one.add(key, 1)
    with pytest.raises(ValueError, match="more keys"):
        one.add(SLOTS, 1)


def test_a_successor_begins_anew() -> None:
    """What a worker that has died had counted has ended with it; the others' counts stay."""
    memory, (one, other, _) = shared()
    one.add(7, 5)
    one.add(8, 1)
    other.add(7, 2)
    successor = Tally(memoryview(memory), WORKERS, 0)
    assert (successor.total(7), successor.total(8), other.total(7)) == (2, 0, 2)
    successor.add(7, 1)
    assert other.total(7) == 3


def test_a_first_worker_writes_to_no_page_but_its_own() -> None:
    """Memory that was never used is not cleared: a tally of 2 MiB costs a page until it is filled."""
    memory = mmap.mmap(-1, tally_bytes(2, 1 << 17))
    Tally(memoryview(memory), 2, 1).add(1, 1)
    touched = sum(any(memory[at : at + 4096]) for at in range(0, len(memory), 4096))
    assert touched <= 3


def test_parts_are_apart() -> None:
    """No worker writes where another one does: nothing is locked."""
    memory, tallies = shared()
    before = bytes(memory)
    size = len(memory) // WORKERS
    for key in range(1, 9):
        tallies[1].add(key, key)
    assert bytes(memory[:size]) == before[:size]
    assert bytes(memory[2 * size :]) == before[2 * size :]


def test_slots_are_a_power_of_two() -> None:
    """Memory of another size is refused at once."""
    with pytest.raises(ValueError, match="power of two"):
        Tally(memoryview(bytearray(tally_bytes(1, 12))), 1, 0)
