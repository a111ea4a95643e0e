"""What master and worker say to each other arrives as it was said, and an end is heard."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.supervisor.orders import Ask, Cut, Drain, Line, Load, Message, Ready, line_pair

messages = st.one_of(
    st.builds(Drain, within=st.floats(0, 1e9)),
    st.just(Cut()),
    st.just(Ask()),
    st.builds(Load, sessions=st.integers(0, 2**31), flows=st.integers(0, 2**31)),
    st.builds(Ready, sessions_max=st.integers(0, 2**31), flows_max=st.integers(0, 2**31)),
)


@contextmanager
def line() -> Iterator[tuple[Line, Line]]:
    one, other = line_pair()
    try:
        yield one, other
    finally:
        one.close()
        other.close()


@given(st.lists(messages, max_size=20))
def test_messages_arrive_whole_and_in_order(said: list[Message]) -> None:
    """Each message is one packet: none is merged with its neighbour, whichever end says it."""
    with line() as ends:
        for speaker, hearer in (ends, ends[::-1]):
            for message in said:
                speaker.say(message)
            assert [hearer.hear() for _ in said] == said


def test_how_much_a_worker_takes_is_told_of_both_kinds() -> None:
    """A worker without UDP says nothing of flows, and takes none."""
    with line() as (mine, theirs):
        mine.say(Ready(100, 2000))
        mine.say(Ready(100))
        assert theirs.hear() == Ready(sessions_max=100, flows_max=2000)
        assert theirs.hear() == Ready(sessions_max=100, flows_max=0)


def test_nothing_said_is_not_an_end() -> None:
    """`hear` does not wait, and does not take silence for the other's end."""
    with line() as (mine, _), pytest.raises(BlockingIOError):
        mine.hear()


def test_the_others_end_is_heard_after_its_last_words() -> None:
    """What was said before is heard first, then None, again and again."""
    with line() as (mine, theirs):
        theirs.say(Ready(7))
        theirs.close()
        assert mine.hear() == Ready(7)
        assert mine.hear() is None
        assert mine.hear() is None


def test_an_end_with_words_unheard_is_an_end() -> None:
    """A process that dies with an order unread resets the line (ECONNRESET): that is its end as well."""
    with line() as (mine, theirs):
        mine.say(Drain(1.0))
        theirs.close()
        assert mine.hear() is None


def test_saying_to_a_process_that_is_gone_is_no_error() -> None:
    """No exception, no SIGPIPE; its end is heard on the same line."""
    with line() as (mine, theirs):
        theirs.close()
        mine.say(Cut())
        assert mine.hear() is None


def test_both_ends_can_be_watched_and_no_program_inherits_them() -> None:
    """Each end has an fd for the loop, closed on exec."""
    with line() as ends:
        for end in ends:
            assert not os.get_inheritable(end.fileno())
            assert not os.get_blocking(end.fileno())
