"""The resolver: what is known is used, what is stale is asked again, what fails takes nothing away."""

import errno
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from appliance.net.resolve import FRESH, Name, Resolver, look_up
from appliance.net.sockets import Endpoint, endpoint_named
from tests.unit.net.loop import PATIENCE, Loop, loop

WEB: Name = ("web.internal", 80)
DNS_DOWN = socket.gaierror(socket.EAI_AGAIN, "the DNS server is gone")


def endpoint(host: str, port: int = 80) -> Endpoint:
    return endpoint_named(socket.AF_INET, (host, port))


@dataclass(eq=False)
class Asker:
    """Who waits for a name; it may raise."""

    answers: list[tuple[Endpoint, ...]] = field(default_factory=list)
    fault: Exception | None = None

    def resolved(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.answers.append(endpoints)
        if self.fault is not None:
            raise self.fault


class Names:
    """A resolver over answers that the test gives, one for each question."""

    def __init__(self, at: Loop) -> None:
        self.at = at
        self.asked: list[Name] = []
        self.failures: list[tuple[str, str]] = []
        self._answers: queue.SimpleQueue[list[Endpoint] | BaseException] = queue.SimpleQueue()
        self.resolver = Resolver(
            at.reactor, lambda name, error: self.failures.append((name, error)), self._look_up
        )

    def _look_up(self, host: str, port: int) -> list[Endpoint]:
        self.asked.append((host, port))
        answer = self._answers.get(timeout=PATIENCE)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def answer(self, answer: list[Endpoint] | BaseException) -> None:
        """Answer the question that is open, or the next one, and let the loop hand it on."""
        entries = self._state()
        self._answers.put(answer)
        self.at.until(lambda: self._state() != entries)

    def _state(self) -> tuple[object, ...]:
        fetched = [(name, entry.fetched) for name, entry in self.resolver._entries.items()]
        return len(self.resolver._asked), fetched, len(self.failures)

    def ask(self) -> tuple[tuple[Endpoint, ...] | None, Asker]:
        asker = Asker()
        return self.resolver.resolve(WEB, asker), asker

    def close(self) -> None:
        """End the threads, which live as long as their process otherwise."""
        if self.resolver._questions is None:
            return
        for number, thread in enumerate(Ending.started):
            self.resolver._questions.put(("end", number))
            self._answers.put(SystemExit())
            assert thread.daemon, "a process that ends does not wait for a DNS server"
        for thread in Ending.started:
            thread.join(PATIENCE)
        if self.resolver._wakeup >= 0:
            os.close(self.resolver._wakeup)


class Ending(threading.Thread):
    """A thread that may end: SystemExit in one would be a warning of pytest's."""

    started: ClassVar[list[threading.Thread]] = []

    def start(self) -> None:
        self.started.append(self)
        super().start()

    def run(self) -> None:
        with suppress(SystemExit):
            super().run()


@contextmanager
def names() -> Iterator[Names]:
    with loop() as at, pytest.MonkeyPatch.context() as patch:
        patch.setattr("appliance.net.resolve.threading.Thread", Ending)
        Ending.started.clear()
        made = Names(at)
        try:
            yield made
        finally:
            made.close()


def test_without_names_there_is_no_thread() -> None:
    """A resolver that was never asked has started nothing."""
    with names() as of:
        assert of.resolver._questions is None
        assert len(of.at.reactor) == 0


def test_an_answer_comes_later_and_is_kept() -> None:
    """The first asker waits; while the answer is fresh the next one has it at once, and nobody is asked."""
    with names() as of:
        known, asker = of.ask()
        assert known is None
        assert asker.answers == []
        of.answer([endpoint("10.0.0.1"), endpoint("10.0.0.2")])
        both = (endpoint("10.0.0.1"), endpoint("10.0.0.2"))
        assert asker.answers == [both]
        of.at.clock.now += FRESH
        of.at.turn()
        assert of.ask()[0] == both
        assert not of.resolver._asked
        assert of.asked == [WEB]


def test_many_askers_are_one_question() -> None:
    """Who asks while a question is open waits for its answer."""
    with names() as of:
        askers = [of.ask()[1] for _ in range(5)]
        of.answer([endpoint("10.0.0.1")])
        assert all(asker.answers == [(endpoint("10.0.0.1"),)] for asker in askers)
        assert of.asked == [WEB]


def test_a_stale_answer_is_used_while_a_new_one_is_fetched() -> None:
    """After FRESH seconds one question is asked; meanwhile nobody waits, afterwards the new answer holds."""
    with names() as of:
        of.ask()
        of.answer([endpoint("10.0.0.1")])
        of.at.clock.now += FRESH + 1
        of.at.turn()
        asked = [of.ask() for _ in range(3)]
        assert all(known == (endpoint("10.0.0.1"),) for known, _ in asked)
        of.answer([endpoint("10.0.0.9")])
        assert all(asker.answers == [] for _, asker in asked), "they had their answer"
        assert of.ask()[0] == (endpoint("10.0.0.9"),)
        assert of.asked == [WEB, WEB]


def test_a_fresh_answer_is_asked_for_again_on_request() -> None:
    """Who has lost what a name led to asks anew; the old answer holds until there is another, if there is."""
    with names() as of:
        of.ask()
        of.answer([endpoint("10.0.0.1")])
        of.resolver.refresh(WEB)
        assert of.ask()[0] == (endpoint("10.0.0.1"),)
        of.answer([endpoint("10.0.0.9")])
        assert of.ask()[0] == (endpoint("10.0.0.9"),)
        of.resolver.refresh(WEB)
        of.answer(DNS_DOWN)
        assert of.ask()[0] == (endpoint("10.0.0.9"),)


@pytest.mark.parametrize("failure", [DNS_DOWN, [], UnicodeError("label too long")])
def test_the_last_good_answer_outlives_a_failure(failure: list[Endpoint] | BaseException) -> None:
    """A DNS server that is down takes nothing away, is told of, and is asked again after FRESH seconds."""
    with names() as of:
        of.ask()
        of.answer([endpoint("10.0.0.1")])
        for _ in range(2):
            of.at.clock.now += FRESH + 1
            of.at.turn()
            assert of.ask()[0] == (endpoint("10.0.0.1"),)
            of.answer(failure)
            assert of.ask()[0] == (endpoint("10.0.0.1"),)
            assert not of.resolver._asked, "a server that is down is not asked for each session"
        assert len(of.asked) == 3
        assert [name for name, _ in of.failures] == ["web.internal"] * 2


def test_a_name_that_never_resolved_has_no_endpoints() -> None:
    """The asker is told so, the failure reported, and the next asker asks anew."""
    with names() as of:
        _, asker = of.ask()
        of.answer(DNS_DOWN)
        assert asker.answers == [()]
        assert of.failures == [("web.internal", str(DNS_DOWN))]
        known, again = of.ask()
        assert known is None
        of.answer([endpoint("10.0.0.1")])
        assert again.answers == [(endpoint("10.0.0.1"),)]


def test_who_withdrew_is_not_told() -> None:
    """A session that ended hears nothing; the others do, and withdrawing twice is no error."""
    with names() as of:
        _, gone = of.ask()
        _, stays = of.ask()
        of.resolver.withdraw(WEB, gone)
        of.resolver.withdraw(WEB, gone)
        of.resolver.withdraw(("other.internal", 80), gone)
        of.answer([endpoint("10.0.0.1")])
        assert (len(gone.answers), len(stays.answers)) == (0, 1)


def test_a_port_is_part_of_a_name() -> None:
    """The same host at two ports is two questions."""
    with names() as of:
        of.ask()
        of.answer([endpoint("10.0.0.1")])
        assert of.resolver.resolve(("web.internal", 443), Asker()) is None
        of.answer([endpoint("10.0.0.1", 443)])
        assert of.asked == [WEB, ("web.internal", 443)]


def test_who_raises_takes_nobody_along() -> None:
    """An asker that raises is reported; whoever else waits for that name or another one is still told."""
    with names() as of:
        _, faulty = of.ask()
        faulty.fault = ValueError("a bug")
        _, same = of.ask()
        other = Asker()
        of.resolver.resolve(("other.internal", 80), other)
        answers = of.resolver._answers
        for _ in range(2):
            of._answers.put([endpoint("10.0.0.1")])
        # Both answers are there before the loop looks: one wakeup hands on both.
        _wait_without_turning(lambda: len(answers) == 2)
        for _ in range(3):
            of.at.turn()
        seen = len(of.at.faults), len(same.answers), len(other.answers)
        of.at.faults.clear()
        assert seen == (1, 1, 1)


def _wait_without_turning(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "no answer"


def refuse(*_: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def refuse_to_start(_: object) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("appliance.net.resolve.os.eventfd", refuse),
        ("appliance.net.reactor.Reactor.watch", refuse),
        ("Ending.start", refuse_to_start),
    ],
    ids=["eventfd", "epoll", "thread"],
)
def test_a_failed_start_is_not_for_ever(what: str, how: Callable[..., object]) -> None:
    """Where no fd, watch or thread can be had, that asker has no answer; the next one starts anew."""
    with names() as of:
        with pytest.MonkeyPatch.context() as patch:
            if what == "Ending.start":
                patch.setattr(Ending, "start", how)
            else:
                patch.setattr(what, how)
            assert of.ask()[0] == ()
            assert len(of.failures) == 1
        known, asker = of.ask()
        assert known is None
        of._answers.put([endpoint("10.0.0.1")])
        for _ in range(200):
            if asker.answers:
                break
            of.at.reactor.turn(0.01)
        assert asker.answers == [(endpoint("10.0.0.1"),)]


def test_the_system_is_asked() -> None:
    """A numeric host is resolved by getaddrinfo without a network, in its family; an invalid one raises."""
    assert [one.text for one in look_up("127.0.0.1", 80)] == ["127.0.0.1:80"]
    with pytest.raises((OSError, UnicodeError)):
        look_up("a" * 64 + ".invalid", 80)
