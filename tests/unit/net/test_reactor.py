"""The loop: who gets which event, what a fault costs, and when fds are closed."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from appliance.net.reactor import HUP, IN, LEAST_WORK, OUT, Reactor
from tests.unit.net.loop import Loop, Watcher, loop, open_fds


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


PATIENCE = 20.0


def fails() -> None:
    raise ValueError("a bug")


def test_events_reach_their_handler() -> None:
    """A watched fd's events come to its handler, and come again while nobody has taken them."""
    with loop() as at, pair() as (mine, theirs):
        watcher = Watcher()
        at.reactor.watch(mine.fileno(), IN, watcher)
        at.turn()
        assert watcher.events == []
        theirs.send(b"x")
        at.turn()
        at.turn()
        assert watcher.events == [IN, IN]
        mine.recv(1)
        at.turn()
        assert watcher.events == [IN, IN]


def test_rewatch_changes_what_is_watched() -> None:
    """Interests can be changed, also to none; EPOLLHUP comes all the same."""
    with loop() as at, pair() as (mine, theirs):
        watcher = Watcher()
        at.reactor.watch(mine.fileno(), IN, watcher)
        theirs.send(b"x")
        at.reactor.rewatch(mine.fileno(), 0)
        at.turn()
        assert watcher.events == []
        at.reactor.rewatch(mine.fileno(), OUT)
        at.turn()
        assert watcher.events == [OUT]
        at.reactor.rewatch(mine.fileno(), 0)
        theirs.close()
        at.turn()
        assert watcher.events == [OUT, HUP]


def test_unwatch_keeps_the_fd_open() -> None:
    """An unwatched fd has no events, is not counted, stays open, and can be watched again."""
    with loop() as at, pair() as (mine, theirs):
        watcher = Watcher()
        at.reactor.watch(mine.fileno(), IN, watcher)
        assert len(at.reactor) == 1
        theirs.send(b"x")
        at.reactor.unwatch(mine.fileno())
        at.turn()
        assert watcher.events == []
        assert len(at.reactor) == 0
        at.reactor.watch(mine.fileno(), IN, watcher)
        at.turn()
        assert watcher.events == [IN]


def test_a_fd_can_be_handed_over() -> None:
    """The new handler gets the events, the old one none."""
    with loop() as at, pair() as (mine, theirs):
        old, new = Watcher(), Watcher()
        at.reactor.watch(mine.fileno(), IN, old)
        theirs.send(b"x")
        at.reactor.hand_over(mine.fileno(), new)
        at.turn()
        assert (old.events, new.events) == ([], [IN])


def test_a_fd_that_is_watched_twice_is_an_error() -> None:
    """EEXIST is not swallowed: it would be two owners of one fd."""
    with loop() as at, pair() as (mine, _):
        at.reactor.watch(mine.fileno(), IN, Watcher())
        with pytest.raises(FileExistsError):
            at.reactor.watch(mine.fileno(), IN, Watcher())


class Hasty(Reactor):
    """Closes at once: what the deferred close is there against."""

    __slots__ = ()

    def forget(self, fd: int, close: Callable[[], object]) -> None:
        super().forget(fd, lambda: None)
        close()


def reuse_within_a_batch(reactor: Reactor) -> list[int]:
    """Have two fds ready in one batch; whoever is first ends the other and opens a newcomer.

    Gives the events that the newcomer got in that batch.
    """
    newcomer = Watcher()
    new_fds: list[int] = []
    with pair() as (one, one_peer), pair() as (two, two_peer):

        def end(other: socket.socket) -> None:
            if not new_fds:
                reactor.forget(other.fileno(), other.close)
                new_fds.extend(os.pipe())  # empty: it has nothing to read
                reactor.watch(new_fds[0], IN, newcomer)

        reactor.watch(one.fileno(), IN, Watcher(lambda: end(two)))
        reactor.watch(two.fileno(), IN, Watcher(lambda: end(one)))
        one_peer.send(b"x")
        two_peer.send(b"x")
        reactor.turn(0.0)
        assert (one.fileno() == -1) is not (two.fileno() == -1)
        reactor.turn(0.0)
        for fd in new_fds:
            os.close(fd)
    return newcomer.events


def test_a_reused_number_gets_no_old_event() -> None:
    """A fd that was opened within a batch never gets the event of one that ended in the same batch."""
    with loop() as at:
        assert reuse_within_a_batch(at.reactor) == []


def test_closing_at_once_would_deliver_the_old_event() -> None:
    """The case above is real: without the deferred close the newcomer gets the number and the event."""
    faults: list[BaseException] = []
    reactor = Hasty(faults.append)
    try:
        assert reuse_within_a_batch(reactor) == [IN]
    finally:
        reactor.close()
    assert not faults


def test_a_fd_unwatched_within_a_batch_gets_no_event() -> None:
    """What the first handler unwatches has no event left in the same batch."""
    with loop() as at, pair() as (one, one_peer), pair() as (two, two_peer):
        first = Watcher(lambda: at.reactor.unwatch(two.fileno()) if not second.events else None)
        second = Watcher(lambda: at.reactor.unwatch(one.fileno()) if not first.events else None)
        at.reactor.watch(one.fileno(), IN, first)
        at.reactor.watch(two.fileno(), IN, second)
        one_peer.send(b"x")
        two_peer.send(b"x")
        at.turn()
        assert sorted((len(first.events), len(second.events))) == [0, 1]


def test_a_forgotten_fd_is_closed_by_the_turns_end() -> None:
    """Not before: until then its number is taken."""
    with loop() as at, pair() as (mine, _):
        fd = mine.fileno()
        at.reactor.watch(fd, IN, Watcher())
        at.reactor.forget(fd, mine.close)
        assert fd in open_fds()
        assert len(at.reactor) == 0
        at.turn()
        assert mine.fileno() == -1


def test_what_is_deferred_comes_before_a_close() -> None:
    """A task finds every fd of its turn open, whichever was put off first; what it forgets is closed, too."""
    with loop() as at, pair() as (mine, theirs):
        seen: list[int] = []

        def look() -> None:
            seen.append(mine.fileno())
            at.reactor.forget(theirs.fileno(), theirs.close)

        for each in (mine, theirs):
            at.reactor.watch(each.fileno(), IN, Watcher())
        fd = mine.fileno()
        at.reactor.forget(fd, mine.close)
        at.reactor.defer(look)
        at.turn()
        assert seen == [fd]
        assert mine.fileno() == theirs.fileno() == -1


def test_a_forked_child_holds_nothing_up() -> None:
    """It lets go of what was forgotten in that turn: the peer sees the end while the child lives."""
    with loop() as at, pair() as (mine, theirs), pair() as (living, life):
        theirs.settimeout(PATIENCE)
        at.reactor.watch(mine.fileno(), IN, Watcher())
        at.reactor.forget(mine.fileno(), mine.close)
        pid = os.fork()
        if not pid:
            try:
                theirs.close()
                life.close()
                at.reactor.abandon()
                living.recv(1)
            finally:  # also of what is raised: this is no second run of the tests
                os._exit(0)
        try:
            at.turn()
            assert theirs.recv(1) == b""
        finally:
            life.close()
            living.close()
            assert os.waitpid(pid, 0) == (pid, 0)


def test_a_fault_is_caught_once_and_its_handler_told() -> None:
    """A handler that raises is reported and told once; the others of the batch get their events."""
    with loop() as at, pair() as (one, one_peer), pair() as (two, two_peer):
        faulty, sound = Watcher(fails), Watcher()
        at.reactor.watch(one.fileno(), IN, faulty)
        at.reactor.watch(two.fileno(), IN, sound)
        one_peer.send(b"x")
        two_peer.send(b"x")
        at.turn()
        assert [str(fault) for fault in at.faults] == ["a bug"]
        assert (faulty.faults, sound.faults, sound.events) == (1, 0, [IN])
        at.faults.clear()


def test_a_fault_in_a_deadline_is_caught_once() -> None:
    """As for events: reported, told, and the other deadlines of the turn are kept."""
    with loop() as at:
        faulty, sound = Watcher(fails), Watcher()
        at.reactor.arm(at.clock.now, faulty)
        at.reactor.arm(at.clock.now, sound)
        at.turn()
        assert len(at.faults) == 1
        assert (faulty.faults, len(sound.deadlines)) == (1, 1)
        at.faults.clear()


def test_a_fault_in_what_was_deferred_stops_nothing() -> None:
    """The other deferred tasks run, and what is forgotten is closed, also behind a close that fails."""
    with loop() as at, pair() as (mine, theirs):
        done: list[str] = []
        for each in (mine, theirs):
            at.reactor.watch(each.fileno(), IN, Watcher())
        at.reactor.defer(fails)
        at.reactor.defer(lambda: done.append("deferred"))
        at.reactor.forget(theirs.fileno(), fails)
        at.reactor.forget(mine.fileno(), mine.close)
        at.turn()
        assert len(at.faults) == 2
        assert done == ["deferred"]
        assert mine.fileno() == -1
        at.faults.clear()


class Hopeless(Watcher):
    """Raises also when it is told to end."""

    def on_fault(self) -> None:
        super().on_fault()
        fails()


def test_a_fault_in_ending_is_reported_too() -> None:
    """`on_fault` that raises is a second report, and not asked again."""
    with loop() as at:
        handler = Hopeless(fails)
        at.reactor.arm(at.clock.now, handler)
        at.turn()
        assert len(at.faults) == 2
        assert handler.faults == 1
        at.faults.clear()


def test_what_is_no_fault_is_not_caught() -> None:
    """KeyboardInterrupt and SystemExit leave the loop."""

    def leave() -> None:
        raise KeyboardInterrupt

    with loop() as at:
        at.reactor.arm(at.clock.now, Watcher(leave))
        with pytest.raises(KeyboardInterrupt):
            at.turn()


def test_deadlines_follow_the_clock() -> None:
    """A deadline is kept in the turn in which the clock has passed it, with that turn's `now`."""
    with loop() as at:
        watcher = Watcher()
        at.reactor.arm(at.clock.now + 5, watcher)
        at.clock.now += 4.9
        at.turn()
        assert watcher.deadlines == []
        at.clock.now += 0.2
        at.turn()
        assert watcher.deadlines == [at.clock.now]
        assert at.reactor.now == at.clock.now


def test_a_turn_waits_no_longer_than_its_next_deadline() -> None:
    """With nothing to read, `turn` comes back for the deadline by itself."""
    faults: list[BaseException] = []
    reactor = Reactor(faults.append)
    watcher = Watcher()
    reactor.arm(reactor.now + 0.01, watcher)
    for _ in range(1000):
        if watcher.deadlines:
            break
        reactor.turn()
    reactor.close()
    assert len(watcher.deadlines) == 1
    assert not faults


def test_an_event_in_the_same_turn_sees_the_new_time() -> None:
    """`now` is read after the wait: what a handler notes is not as old as the wait was long."""
    with loop() as at, pair() as (mine, theirs):
        seen: list[float] = []
        at.reactor.watch(mine.fileno(), IN, Watcher(lambda: seen.append(at.reactor.now)))
        theirs.send(b"x")
        at.clock.now += 7
        at.turn()
        assert seen == [at.clock.now]


def test_deferred_tasks_run_in_order_at_the_end() -> None:
    """After every event and deadline of the turn; one deferred meanwhile waits for the next turn."""
    with loop() as at, pair() as (mine, theirs):
        order: list[str] = []

        def again() -> None:
            order.append("second")
            at.reactor.defer(lambda: order.append("third"))

        at.reactor.defer(lambda: order.append("first"))
        at.reactor.defer(again)
        at.reactor.arm(at.clock.now, Watcher(lambda: order.append("deadline")))
        at.reactor.watch(mine.fileno(), IN, Watcher(lambda: order.append("event")))
        theirs.send(b"x")
        at.turn()
        assert order == ["event", "deadline", "first", "second"]
        mine.recv(1)
        at.reactor.turn()  # without an end: what is deferred must not wait for an event
        assert order[4:] == ["third"]


class Task:
    """Work that notes when it was done."""

    def __init__(self, done: list["Task"]) -> None:
        self.done = done
        self.faults = 0

    def do(self) -> None:
        self.done.append(self)

    def on_fault(self) -> None:
        self.faults += 1


def test_queued_work_leaves_events_their_turn() -> None:
    """However much is queued, a turn does little of it, in order, and the next turn does not wait."""
    with loop() as at, pair() as (mine, theirs):
        done: list[Task] = []
        tasks = [Task(done) for _ in range(3 * LEAST_WORK)]
        seen: list[int] = []
        at.reactor.watch(mine.fileno(), IN, Watcher(lambda: seen.append(len(done))))
        theirs.send(b"x")
        for task in tasks:
            at.reactor.queue(task)
        for _ in range(3):
            at.reactor.turn(60.0)
        assert seen == [0, LEAST_WORK, 2 * LEAST_WORK]
        assert done == tasks


def test_work_is_queued_once() -> None:
    """Whoever asks again keeps the first place, and whoever is done may ask anew."""
    with loop() as at:
        done: list[Task] = []
        first, second = Task(done), Task(done)
        for task in (first, second, first):
            at.reactor.queue(task)
        at.turn()
        at.turn()
        assert done == [first, second]
        at.reactor.queue(first)
        at.turn()
        assert done == [first, second, first]


def test_work_that_nobody_wants_any_more_takes_no_turn() -> None:
    """What is taken back is not done, nor waited for: not by whoever is queued behind it, either."""
    with loop() as at:
        done: list[Task] = []
        tasks = [Task(done) for _ in range(3 * LEAST_WORK)]
        for task in tasks:
            at.reactor.queue(task)
        for task in tasks[:-1]:
            at.reactor.unqueue(task)
            at.reactor.unqueue(task)
        at.turn()
        assert done == [tasks[-1]]


def test_queued_work_gets_as_much_time_as_the_events_took() -> None:
    """Where the loop is busy with them, a few tasks a turn would be few a second."""
    with loop() as at, pair() as (mine, theirs):
        done: list[Task] = []
        for _ in range(3 * LEAST_WORK):
            at.reactor.queue(Task(done))
        events = Watcher(lambda: setattr(at.clock, "now", at.clock.now + 0.01))
        at.reactor.watch(mine.fileno(), IN, events)
        theirs.send(b"x")
        at.turn()  # its clock stands while the work is done
        assert len(done) == 3 * LEAST_WORK
        mine.recv(1)


def test_a_fault_in_queued_work_is_caught_once() -> None:
    """It is told, and what is queued behind it is done."""

    class Faulty(Task):
        def do(self) -> None:
            fails()

    with loop() as at:
        done: list[Task] = []
        faulty, next_one = Faulty(done), Task(done)
        at.reactor.queue(faulty)
        at.reactor.queue(next_one)
        at.turn()
        assert (len(at.faults), faulty.faults, done) == (1, 1, [next_one])
        at.faults.clear()


def test_run_ends_with_stop() -> None:
    """`stop` in a handler lets the turn end, deferred tasks included."""
    with loop() as at:
        done: list[str] = []
        at.reactor.defer(lambda: done.append("deferred"))
        at.reactor.arm(at.clock.now, Watcher(at.reactor.stop))
        at.reactor.run()
        assert done == ["deferred"]


def test_close_runs_what_is_deferred() -> None:
    """Sockets that wait for their close are closed with the loop, and so is the epoll set."""
    before = open_fds()
    with pair() as (mine, _), loop() as at:
        at.reactor.forget(mine.fileno(), mine.close)
        at.reactor.close()
        assert mine.fileno() == -1
    assert open_fds() == before


def test_more_events_than_a_batch_holds_come_later() -> None:
    """With more fds ready than one turn takes, each gets its event after a few turns."""
    with loop() as at:
        pairs = [os.pipe() for _ in range(300)]
        watchers = [Watcher() for _ in pairs]
        for (mine, theirs), watcher in zip(pairs, watchers, strict=True):
            at.reactor.watch(mine, IN, watcher)
            os.write(theirs, b"x")
        _turn_some(at)
        assert all(watcher.events for watcher in watchers)
        for ends in pairs:
            for fd in ends:
                os.close(fd)


def _turn_some(at: Loop) -> None:
    for _ in range(4):
        at.turn()


def test_watching_what_is_no_file_is_told() -> None:
    """EBADF reaches the one who asked."""
    with loop() as at:
        reading, writing = os.pipe()
        os.close(writing)
        os.close(reading)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            at.reactor.watch(reading, IN, Watcher())
