"""Host names to endpoints, without ever blocking the loop.

getaddrinfo(3) is what knows /etc/hosts, search domains and whatever else the host's administrator set up,
and it blocks, for 10 s when a DNS server is gone. So it runs in a few threads of its own, which exist only
where a rule names a host; they hand their answers over through an eventfd. An answer is used for FRESH
seconds; after that it is still used, while a new one is being fetched, and kept when none comes: a DNS
server that is down must not take down what it once resolved.
"""

import os
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from appliance.net.reactor import IN, Reactor
from appliance.net.sockets import Endpoint, endpoint_named

FRESH: Final = 10.0
"""Seconds before an answer is asked for again; getaddrinfo tells no TTL."""

THREADS: Final = 4

MOST_NAMES: Final = 4096
"""Answers that are kept: an agent is told by its gateway what to look up."""

Name = tuple[str, int]
"""Host name and port."""

Lookup = Callable[[str, int], list[Endpoint]]


class Asker(Protocol):
    """Who waits for a name."""

    def resolved(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Take the endpoints; none when the name does not resolve."""


@dataclass(slots=True)
class _Entry:
    endpoints: tuple[Endpoint, ...]
    fetched: float


def look_up(host: str, port: int) -> list[Endpoint]:
    """Ask the system (blocking); endpoints in its order of preference (RFC 6724). Raises OSError."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [endpoint_named(family, sockaddr) for family, _, _, _, sockaddr in answers]


class Resolver:
    """The names of one worker's rules."""

    __slots__ = (
        "_answers",
        "_asked",
        "_entries",
        "_lookup",
        "_on_failure",
        "_questions",
        "_reactor",
        "_wakeup",
    )

    def __init__(
        self, reactor: Reactor, on_failure: Callable[[str, str], None], lookup: Lookup = look_up
    ) -> None:
        self._reactor = reactor
        self._on_failure = on_failure
        self._lookup = lookup
        self._entries: dict[Name, _Entry] = {}
        self._asked: dict[Name, list[Asker]] = {}
        self._questions: queue.SimpleQueue[Name] | None = None
        self._answers: deque[tuple[Name, list[Endpoint], str]] = deque()
        self._wakeup = -1

    def resolve(self, name: Name, asker: Asker) -> tuple[Endpoint, ...] | None:
        """Return the endpoints known for a name, or None: then the asker is told later."""
        entry = self._entries.get(name)
        is_stale = entry is None or self._reactor.now - entry.fetched > FRESH
        try:
            asked = self._ask(name) if is_stale else None
        except (OSError, RuntimeError) as refused:  # no fd, or no thread (pids.max): another time
            self._on_failure(name[0], str(refused))
            return entry.endpoints if entry is not None else ()
        if entry is not None:
            return entry.endpoints
        assert asked is not None
        asked.append(asker)
        return None

    def refresh(self, name: Name) -> None:
        """Ask for a name although its answer may be fresh; that one is used until there is a new one."""
        try:
            self._ask(name)
        except (OSError, RuntimeError) as refused:  # as above
            self._on_failure(name[0], str(refused))

    def withdraw(self, name: Name, asker: Asker) -> None:
        """Forget an asker whose session ended."""
        askers = self._asked.get(name, [])
        if asker in askers:
            askers.remove(asker)

    def _ask(self, name: Name) -> list[Asker]:
        if name not in self._asked:
            self._start().put(name)  # first: where no thread can be started, nothing is asked
            self._asked[name] = []
        return self._asked[name]

    def _start(self) -> "queue.SimpleQueue[Name]":
        if self._questions is None:
            if self._wakeup < 0:
                self._wakeup = self._watched_eventfd()
            questions: queue.SimpleQueue[Name] = queue.SimpleQueue()
            for number in range(THREADS):
                # Daemons: a process that ends does not wait for a DNS server that does not answer.
                threading.Thread(
                    target=self._serve, args=(questions,), name=f"resolve-{number}", daemon=True
                ).start()
                self._questions = questions  # one thread is enough to go on with
        assert self._questions is not None
        return self._questions

    def _watched_eventfd(self) -> int:
        wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._reactor.watch(wakeup, IN, self)
        except OSError:
            os.close(wakeup)
            raise
        return wakeup

    def _serve(self, questions: "queue.SimpleQueue[Name]") -> None:
        """Answer questions, in a thread of its own: touches nothing but the two queues and the eventfd."""
        while True:
            name = questions.get()
            try:
                found, error = self._lookup(*name), ""
            except Exception as refused:  # noqa: BLE001  a thread that dies takes its share of the names along
                found, error = [], str(refused)
            self._answers.append((name, found, error))
            os.eventfd_write(self._wakeup, 1)

    def on_event(self, events: int) -> None:  # noqa: ARG002  the eventfd knows one event
        """Hand the answers to those who asked."""
        os.eventfd_read(self._wakeup)
        while self._answers:
            name, found, error = self._answers.popleft()
            self._settle(name, tuple(found), error)

    def _settle(self, name: Name, found: tuple[Endpoint, ...], error: str) -> None:
        known = self._entries.get(name)
        if found:
            if known is None and len(self._entries) >= MOST_NAMES:
                del self._entries[next(iter(self._entries))]
            self._entries[name] = _Entry(found, self._reactor.now)
        else:
            self._on_failure(name[0], error)
            if known is not None:  # keep the last good answer, and ask again in FRESH seconds
                known.fetched = self._reactor.now
                found = known.endpoints
        askers = self._asked.pop(name, [])
        try:
            while askers:
                askers.pop(0).resolved(found)
        finally:
            if askers:  # one raised: the others have their answer in the next turn, and may still withdraw
                self._asked.setdefault(name, []).extend(askers)
                self._answers.append((name, list(found), error))
                os.eventfd_write(self._wakeup, 1)

    def on_fault(self) -> None:
        """Nothing ends: an asker that raised has been reported."""
