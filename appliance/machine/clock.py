"""The process that sets the clock: user 65532 with CAP_SYS_TIME and nothing else.

A process of its own, so that a name that does not resolve holds nothing up, and what servers send is read
without rights. A clock that is off by more than half a second is stepped, by less it is slewed.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

from appliance.machine.sntp import PORT, Sample, ask, read
from appliance.machine.syscalls import slew_clock
from appliance.observe.log import Log, wall_clock
from appliance.observe.names import Event

STEP: Final = 0.5
"""Seconds: what is more is stepped, what is less is slewed, which takes 2000 times as long."""
ANSWER_WITHIN: Final = 2.0
FIRST_PAUSE: Final = 2.0
SHORTEST: Final = 64.0
LONGEST: Final = 1024.0
"""Seconds between two questions: 2^6 at first, doubling to 2^10 while the clock keeps (RFC 5905).
Servers that do not answer are asked after 2 s, then ever later."""
GOOD: Final = 0.05
"""Seconds: a clock that is off by less keeps well enough to ask more seldom."""


class Discipline:
    """How the clock is brought to the time, and when to ask next. Pure."""

    def __init__(self) -> None:
        self.pause = FIRST_PAUSE
        self.is_set = False

    def failed(self) -> float:
        """No server answered; give the pause until the next question."""
        pause = self.pause
        self.pause = min(self.pause * 2, LONGEST if self.is_set else SHORTEST)
        return pause

    def take(self, offset: float) -> tuple[bool, float]:
        """The clock is off by `offset` seconds; say whether to step (or slew) it, and the next pause."""
        steps = abs(offset) > STEP
        is_first, self.is_set = not self.is_set, True
        if is_first or abs(offset) > GOOD:
            self.pause = SHORTEST
        else:
            self.pause = min(self.pause * 2, LONGEST)
        return steps, self.pause


def keep(servers: tuple[str, ...], log: Log, sleep: Callable[[float], None] = time.sleep) -> None:
    """Keep the clock as these servers say, for ever."""
    discipline = Discipline()
    is_failing = False
    while True:
        answer = first_answer(servers)
        if isinstance(answer, list):
            if not is_failing:
                log.warning(Event.WARNING, message=f"no time server answers: {'; '.join(answer)}")
                is_failing = True
            log.flush()
            sleep(discipline.failed())
            continue
        server, sample = answer
        is_first = not discipline.is_set
        steps, pause = discipline.take(sample.offset)
        _correct(sample.offset, steps=steps)
        if steps or is_first or is_failing:
            log.info(
                Event.CLOCK_SET,
                server=server,
                offset_ms=round(sample.offset * 1000, 3),
                action="step" if steps else "slew",
            )
            log.flush()
        is_failing = False
        sleep(pause)


def _correct(offset: float, *, steps: bool) -> None:
    if steps:
        time.clock_settime(time.CLOCK_REALTIME, wall_clock() + offset)
    else:
        slew_clock(offset)


def first_answer(servers: Iterable[str], port: int = PORT) -> tuple[str, Sample] | list[str]:
    """Ask one server after the other; give the first good answer, or why there was none, for each."""
    failures = []
    for server in servers:
        try:
            for family, address in _addresses(server, port):
                sample = _ask(family, address)
                if isinstance(sample, Sample):
                    return server, sample
                failures.append(f"{server} {sample}")
        except OSError as error:
            failures.append(f"{server}: {error.strerror or error}")
    return failures


def _addresses(server: str, port: int) -> Iterator[tuple[int, tuple[object, ...]]]:
    found = socket.getaddrinfo(server, port, type=socket.SOCK_DGRAM)
    for family, _, _, _, address in found[:4]:
        yield family, address


def _ask(family: int, address: tuple[object, ...]) -> Sample | str:
    """Ask one address; raises OSError where the network says no."""
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        asking.connect(address)  # answers of others do not come through
        cookie = os.urandom(8)
        sent, begun = wall_clock(), time.monotonic()
        asking.send(ask(cookie))
        while (left := begun + ANSWER_WITHIN - time.monotonic()) > 0:
            if not select.select([asking], [], [], left)[0]:
                break
            with suppress(BlockingIOError):
                answer = read(asking.recv(1024), cookie, sent, sent + (time.monotonic() - begun))
                if answer != "is no answer to the question":
                    return answer
    return "does not answer"
