"""Kernel memory accounting: reading slabinfo and sharing it out."""

import pytest

from bench.slab import grown, is_foreign, parse_slabinfo, per_session

SLABINFO = """slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit>
TCP                   26     39   2368   13    8 : tunables    0    0    0 : slabdata      3      3      0
filp                 588    588    192   21    1 : tunables    0    0    0 : slabdata     28     28      0
"""


def test_active_objects_are_counted_not_free_ones() -> None:
    """A cache's bytes are its active objects times their size; free objects of its slabs do not count."""
    assert parse_slabinfo(SLABINFO) == {"TCP": 26 * 2368, "filp": 588 * 192}


@pytest.mark.parametrize(
    "cache", ["TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi", "kmalloc-192"]
)
def test_what_a_session_holds_is_never_left_out(cache: str) -> None:
    """Sockets, files, epoll items and plain allocations count."""
    assert not is_foreign(cache, forks=False)


@pytest.mark.parametrize("cache", ["ext4_inode_cache", "proc_inode_cache", "inode_cache", "tw_sock_TCP"])
def test_what_others_do_is_left_out(cache: str) -> None:
    """Files read meanwhile and closed connections of an earlier load are not a session's memory."""
    assert is_foreign(cache, forks=False)
    assert is_foreign(cache, forks=True)


def test_a_process_counts_where_a_session_is_one() -> None:
    """Of a relay that forks per session the process is part of the price; of others it is a neighbour's."""
    assert is_foreign("task_struct", forks=False)
    assert not is_foreign("task_struct", forks=True)


def test_growth_covers_new_shrunk_and_unchanged_caches() -> None:
    """A cache that appears or shrinks is a change; one that stays is none."""
    assert grown({"TCP": 10, "filp": 8, "pid": 5}, {"TCP": 30, "filp": 6, "pid": 5, "skb": 4}) == {
        "TCP": 20,
        "filp": -2,
        "skb": 4,
    }


def test_the_ends_own_sockets_are_taken_off() -> None:
    """A session's price is what it grew by, less what client and endpoint hold without the relay."""
    assert per_session({"TCP": 9_472, "epi": 256}, 2, {"TCP": 2_368.0, "skb": 1.0}) == {
        "TCP": 2_368.0,
        "epi": 128.0,
        "skb": -1.0,
    }
