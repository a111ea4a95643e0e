"""The master: binds every listener, keeps a worker on each index, and ends them in order.

It forwards nothing, so nothing a client does can hurt it. Workers are forked from it (they share its memory,
and start in a millisecond); it runs no thread, because fork copies only the one that calls it. It reaps
whatever child there is, also such as it never started: as PID 1 of a container it inherits orphans.

A worker that dies is started again at once; one that keeps dying, after a pause that doubles. Its sockets
stay open here meanwhile, so its share of the clients waits in their queues.

SIGHUP, or `portway reload`, puts a new ruleset in force: a new generation of workers is started on it, with
the sockets of the addresses that both rulesets have, and once all of them accept, the former one drains. A
ruleset that has problems, or an address that cannot be bound, changes nothing.
"""

import errno
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, NoReturn

from appliance import __version__
from appliance.net.reactor import IN, Reactor
from appliance.observe.log import make_log
from appliance.observe.names import Event
from appliance.ruleset import Ruleset
from appliance.supervisor.admin import Admin, Answer
from appliance.supervisor.binding import Binder
from appliance.supervisor.census import Census
from appliance.supervisor.generation import Generation, Reload, Reread, cannot_reload
from appliance.supervisor.journal import Journal
from appliance.supervisor.notify import ALIVE, notify, watchdog_pause
from appliance.supervisor.orders import Cut, Drain, Line, Links, Load, Order, Ready, line_pair, packed
from appliance.supervisor.place import Place
from appliance.supervisor.repeated import Repeated
from appliance.supervisor.roll import Roll
from appliance.supervisor.status import Failure, Reloaded, RulesetStatus, State
from appliance.supervisor.tunnels import Plan, gateway_plan
from appliance.supervisor.worker import Worker

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
"""The first one drains, the second one cuts."""

UNUSED_SIGNALS: Final = (signal.SIGUSR1, signal.SIGUSR2)
"""What log rotation and habit send to a server: no reason to die."""

GRACE: Final = 2.0
"""Seconds that a worker has to do as it was told; then it is killed."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0
STEADY: Final = 10.0
"""A worker that lived so many seconds has started well: its pause begins anew."""

RELOAD_PAUSE: Final = 0.2
"""Seconds between two reloads by SIGHUP. A new worker is ready in a tenth of that."""

READY_WITHIN: Final = 3.0
"""Seconds after which one who asked for a reload is told that it takes longer (`admin_wire.PATIENCE`)."""

NOT_READY: Final = Failure(
    "the new workers are not ready yet, the former ones serve meanwhile: the log says more"
)
STOPPING: Final = Failure("the gateway is draining")

STDOUT: Final = 1


class Master:
    """The gateway's first process."""

    def __init__(
        self,
        ruleset: Ruleset,
        binder: Binder,
        workers: int,
        origin: RulesetStatus,
        admin: socket.socket | None = None,
        reread: Reread = cannot_reload,
        plan: Plan | None = None,
    ) -> None:
        """`binder` has bound every address of the ruleset for `workers` workers, `admin` listens.

        `reread` gives the ruleset as it is by now, or why it cannot be had. `plan` is what tunnels are made
        of, of a gateway that has some, or of an agent.
        """
        self._generation = Generation(ruleset, origin, binder, workers, plan)
        self._former: list[Generation] = []
        """Those that a reload has replaced, and that still serve or drain; the latest first."""
        self._asked: list[Callable[[], None]] = []
        """Tell those who asked for a reload that it is in force; too late, it is unheard."""
        self._reloaded = -RELOAD_PAUSE
        self._is_reload_due = False
        self._reread = reread
        self._log = make_log(STDOUT)
        self._reactor = Reactor(self._report_fault)
        self._journal = Journal(self._reactor, self._log)
        self._census = Census(self._reactor, self._generation, self._state)
        self._roll = Roll(self._reactor, lambda: self._generation)
        verbs = {
            "status": self._census.status,
            "reload": self._asked_to_reload,
            "agents": self._roll.agents,
        }
        self._admin = None if admin is None else Admin(self._reactor, admin, verbs)
        self._stops = 0
        self._is_announced = False

    # -- life -----------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until a signal ends it; return the exit status."""
        self._watch_signals()
        self._report_listeners(self._generation)
        self._journal.flush()
        self._watch_over()
        self._fill_all()
        try:
            self._reactor.run()
        finally:
            for generation in self._generations:
                generation.binder.close()
        # The interpreter gives signals their defaults back as it ends: one more would be what ended us.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._log.info(Event.STOPPED)
        self._journal.close()
        return 0

    def _watch_over(self) -> None:
        """Tell a service manager that wants to hear it that this loop turns, from now on."""
        if (pause := watchdog_pause()) is not None:
            notify(ALIVE)
            Repeated(self._reactor, pause, partial(notify, ALIVE))

    def _report_listeners(self, generation: Generation) -> None:
        """Tell what is listened on, but for what was before a reload."""
        binder = generation.binder
        for bound in binder.bound:
            if not binder.took_over(bound):
                self._log.info(
                    Event.LISTENING, rule=bound.rule.name, protocol=bound.protocol, listener=bound.address
                )
        for address in binder.without_ipv6:
            self._log.warning(
                Event.WARNING, message="this host has no IPv6: listening on IPv4 only", listener=address
            )
        for rule in generation.ruleset.rules:
            if (granted := binder.small_buffers.get(rule.name)) is not None:
                self._log.warning(
                    Event.RECEIVE_BUFFER_LIMITED,
                    rule=rule.name,
                    wanted=rule.receive_buffer,
                    granted=granted,
                )

    @property
    def _generations(self) -> tuple[Generation, ...]:
        return (self._generation, *self._former)

    @property
    def _places(self) -> Iterator[Place]:
        """Every worker there is, those that drain after a reload, too."""
        return (place for generation in self._generations for place in generation.places)

    def _watch_signals(self) -> None:
        """Turn signals into events: a handler alone is not seen before epoll_wait ends (PEP 475)."""
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, *UNUSED_SIGNALS, signal.SIGCHLD):
            signal.signal(number, _heard)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup(1) leaves it
            signal.signal(signal.SIGHUP, _heard)
        self._hangup_stops = os.isatty(0) or os.isatty(STDOUT)
        self._wakeup, self._signals = theirs, mine
        self._reactor.watch(mine.fileno(), IN, _Signals(mine, self._signalled))

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGCHLD:
                self._reap()
            elif number in STOP_SIGNALS or (number == signal.SIGHUP and self._hangup_stops):
                self._stop(signal.Signals(number))
            elif number == signal.SIGHUP:
                self._hung_up()
            elif number in UNUSED_SIGNALS:
                name = signal.Signals(number).name
                self._log.warning(Event.WARNING, message=f"{name} does nothing")
                self._journal.flush()

    def _stop(self, why: signal.Signals) -> None:
        """First time: drain. Second time: cut."""
        self._stops += 1
        if self._stops > 1:
            self._order(Cut())
            self._kill_after(GRACE)
            return
        within = self._generation.ruleset.gateway.drain_timeout
        # The service manager must not cut what drain_timeout allows; its own patience counts from here.
        notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round((within + 2 * GRACE) * 1e6)}")
        self._log.info(Event.DRAINING, signal=why.name, deadline_ms=within * 1000)
        self._journal.flush()
        # Close here first: a worker takes who is in the queue, then closes the last copy.
        for generation in self._generations:
            generation.binder.close()
        self._order(Drain(within))
        self._kill_after(within + GRACE)
        self._end_when_alone()

    def _kill_after(self, pause: float) -> None:
        self._reactor.arm(self._reactor.now + pause, _Later(self._kill))

    def _kill(self) -> None:
        _kill(self._places)

    def _order(self, order: Order) -> None:
        for place in self._places:
            if place.line is not None:
                place.line.say(order)

    def _end_when_alone(self) -> None:
        if self._stops and not any(place.pid for place in self._places):
            self._reactor.stop()

    # -- reload ---------------------------------------------------------------------------------------

    def _hung_up(self) -> None:
        """Reload, soon. Each reload starts workers, so many signals are not to be as many reloads."""
        if self._is_reload_due:
            return
        self._is_reload_due = True
        at = max(self._reactor.now, self._reloaded + RELOAD_PAUSE)
        self._reactor.arm(at, _Later(self._reload_by_signal))

    def _reload_by_signal(self) -> None:
        self._is_reload_due = False
        if self._stops:
            self._log.error(Event.RELOAD_FAILED, message=STOPPING.error)
            self._journal.flush()
        else:
            self._reload()

    def _reload(self) -> Reload:
        """Put the ruleset in force as it is by now; or change nothing, and say why."""
        if self._stops:
            return STOPPING
        self._reloaded = self._reactor.now
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            reloaded = self._replace()
        except MemoryError:
            reloaded = Failure("there is no memory for it")
        except OSError as error:  # a folder on the way that may not be looked into any more
            reloaded = Failure(f"{error.filename or 'the ruleset'}: {error.strerror or error}")
        if isinstance(reloaded, Failure):
            self._log.error(Event.RELOAD_FAILED, message=reloaded.error)
        else:
            self._log.info(
                Event.RELOADED,
                rules=reloaded.rules,
                kept=reloaded.kept,
                opened=reloaded.opened,
                closed=reloaded.closed,
            )
            self._fill_all()
        self._journal.flush()
        if self._is_announced:
            notify("READY=1")
        return reloaded

    def _replace(self) -> Reload:
        """Begin a new generation."""
        former, loaded = self._generation, self._reread()
        if isinstance(loaded, str):
            return Failure(loaded)
        ruleset, origin, workers = loaded
        binders = [each.binder for each in self._generations]
        binder = Binder(workers, former=binders)
        binder.bind(ruleset)
        refused = binder.refused[0].what if binder.refused else ""
        begun, plan = None, None
        try:
            if not refused:
                plan = gateway_plan(ruleset, workers)
                begun = Generation(ruleset, origin, binder, workers, plan)
        except ValueError as error:
            refused = str(error)
        except OSError as error:
            what = "tunnels" if plan is None else "workers"
            refused = f"cannot prepare {what}: {error.strerror or error}"
        if begun is None:
            if plan is not None:
                plan.close()
            binder.release(bound for each in binders for bound in each.bound)
            return Failure(refused)
        before = {bound.sockets[0] for bound in former.binder.bound}
        kept = sum(bound.sockets[0] in before for bound in binder.bound)
        self._generation = begun
        self._former.insert(0, former)
        self._report_listeners(self._generation)
        return Reloaded(
            rules=len(ruleset.rules),
            kept=kept,
            opened=len(binder.bound) - kept,
            closed=len(former.binder.bound) - kept,
        )

    def _asked_to_reload(self, request: bytes, answer: Answer) -> None:  # noqa: ARG002  it has no keys
        """Answer once the new workers accept: what comes after the verb finds its ruleset in force."""
        reloaded = self._reload()
        if isinstance(reloaded, Failure):
            answer(reloaded)
            return
        self._asked.append(partial(answer, reloaded))
        self._reactor.arm(self._reactor.now + READY_WITHIN, _Later(partial(answer, NOT_READY)))

    def _retire_former(self) -> None:
        """Every worker of the new generation accepts clients: those of the former ones may drain."""
        self._census.turn_to(self._generation)
        for tell in self._asked:
            tell()
        self._asked.clear()
        for former in self._former:
            if not former.is_retired:
                former.is_retired = True
                within = former.ruleset.gateway.drain_timeout
                replaced = self._replaced(former)
                former.binder.release(self._generation.binder.bound)
                for place in former.places:
                    if place.line is not None:
                        place.line.say(Drain(within, replaced))
                self._reactor.arm(self._reactor.now + within + GRACE, _Later(partial(_kill, former.places)))
        self._forget_former()

    def _replaced(self, former: Generation) -> bytes:
        """Say of each of its addresses whether the workers of today listen on the same sockets."""
        sockets = self._generation.binder.sockets()
        return packed(bound.sockets[0] in sockets for bound in former.binder.bound)

    def _forget_former(self) -> None:
        for each in self._former:
            if each.is_retired and not each.is_alive and each.plan is not None:
                each.plan.close()
        self._former = [each for each in self._former if not each.is_retired or each.is_alive]

    # -- workers --------------------------------------------------------------------------------------

    def _fill_all(self) -> None:
        for place in self._generation.places:
            self._fill(self._generation, place)

    def _fill(self, generation: Generation, place: Place) -> None:
        """Start a worker in its place, or try again later: memory, processes or fds may be short for now."""
        if self._stops or generation.is_retired or place.pid:
            return
        try:
            self._start(generation, place)
        except OSError as error:
            pause = max(self._next_pause(place), FIRST_PAUSE)
            place.started = self._reactor.now
            name = errno.errorcode.get(error.errno or 0, str(error))
            self._log.warning(
                Event.WARNING, message="cannot start a worker yet", worker=place.index, error=name
            )
            self._journal.flush()
            self._reactor.arm(self._reactor.now + pause, _Later(partial(self._fill, generation, place)))

    def _start(self, generation: Generation, place: Place) -> None:
        """Fork a worker into its place. Raises OSError."""
        mine, theirs = line_pair()
        self._log.flush()  # or the worker would inherit the lines
        # Until the child has let go of the wakeup fd, a signal to it would be one to this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid = os.fork()
            if not pid:
                mine.close()
                self._become_worker(generation, place, theirs, before)
        except OSError:
            mine.close()
            theirs.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        place.pid, place.line, place.started = pid, mine, self._reactor.now
        self._reactor.watch(mine.fileno(), IN, _Replies(mine, place, self._replied))
        self._log.info(Event.WORKER_STARTED, worker=place.index, pid=pid)
        self._journal.flush()

    def _become_worker(
        self, generation: Generation, place: Place, line: Line, mask: set[int | signal.Signals]
    ) -> NoReturn:
        """Let go of all that is the master's, and never come back."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            # A terminal and a service manager signal the whole group; the master is the one who decides. A
            # worker that drained on its own would leave its queue to nobody until it has ended.
            for number in (*STOP_SIGNALS, *UNUSED_SIGNALS, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._wakeup.close()
            self._signals.close()
            for other in self._places:
                if other.line is not None:
                    other.line.close()
            if self._admin is not None:
                self._admin.abandon()
            self._reactor.abandon()
            bound = generation.binder.bound
            mine = {each for one in bound for each in one.sockets_for(place.index)}
            for each in self._generations:
                for listening in each.binder.sockets() - mine:
                    listening.close()
                if each is not generation and each.plan is not None:
                    each.plan.close()
            # What exists by now lives as long as the process: no collection need look at it again, nor
            # write into pages that are shared with the master.
            gc.freeze()
            Worker(
                place.index,
                len(generation.places),
                bound,
                line,
                make_log(STDOUT),
                generation.ruleset.gateway.drain_timeout,
                memoryview(generation.tally),
                generation.plan,
            ).run()
            status = 0
        except BaseException:  # noqa: BLE001  whatever it is, the master's stack is not ours to unwind
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _replied(self, place: Place, message: object) -> None:
        """A worker has reported that it is ready or how it is, or has hung up."""
        if message is None:
            if place.line is not None:
                self._reactor.unwatch(place.line.fileno())  # a worker that is being forked may hold a copy
                self._reactor.forget(place.line.fileno(), place.line.close)
                place.line = None
                place.is_ready = place.is_asked = False
                place.sessions = place.flows = 0
                self._census.lost(place)
                self._roll.lost(place)
            return
        if isinstance(message, Load):
            self._census.heard(place, message)
            return
        if isinstance(message, Links):
            self._roll.heard(place, message)
            return
        assert isinstance(message, Ready)
        place.is_ready = True
        place.sessions_max, place.flows_max = message.sessions_max, message.flows_max
        places = self._generation.places
        if not all(each.is_ready for each in places):
            return
        self._retire_former()
        if not self._is_announced:
            self._is_announced = True
            flows = [each.flows_max for each in places if each.flows_max]
            self._log.info(
                Event.READY,
                workers=len(places),
                sessions_max=min(each.sessions_max for each in places),
                **({"flows_max": min(flows)} if flows else {}),
                pid=os.getpid(),
                version=__version__,
            )
            self._journal.flush()
            notify("READY=1")

    def _state(self) -> State:
        if self._stops:
            return State.DRAINING
        return State.READY if self._is_announced else State.STARTING

    def _reap(self) -> None:
        """Take the status of every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            for generation in self._generations:
                for place in generation.places:
                    if place.pid == pid:
                        self._lost(generation, place, status)
        self._forget_former()
        self._end_when_alone()

    def _lost(self, generation: Generation, place: Place, status: int) -> None:
        """A worker has ended: asked to, or not; then it is started again."""
        pid, place.pid = place.pid, 0
        self._replied(place, None)
        code = os.waitstatus_to_exitcode(status)
        how: dict[str, object] = {"exit_status": code} if code >= 0 else {"signal": _signal_name(-code)}
        if code < 0:
            self._log.mend()
        if self._stops or generation.is_retired:
            self._log.info(Event.WORKER_ENDED, worker=place.index, pid=pid, **how)
        else:
            pause = self._next_pause(place)
            self._log.warning(Event.WORKER_ENDED, worker=place.index, pid=pid, **how, restart_ms=pause * 1000)
            self._reactor.arm(self._reactor.now + pause, _Later(partial(self._fill, generation, place)))
        self._journal.flush()

    def _next_pause(self, place: Place) -> float:
        if self._reactor.now - place.started >= STEADY:
            place.pause = 0.0
        pause = place.pause
        place.pause = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        return pause

    def _report_fault(self, fault: BaseException) -> None:
        self._log.error(Event.INTERNAL_ERROR, exc_info=fault)
        self._journal.flush()


def _kill(places: Iterable[Place]) -> None:
    """Kill the workers that did not do as they were told: stopped, or held up by a disk."""
    for place in places:
        if place.pid:
            os.kill(place.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"


def _heard(number: int, frame: object) -> None:
    """Do nothing: the wakeup fd has told the loop."""


class _Signals:
    """The read end of the wakeup fd: one byte for each signal."""

    __slots__ = ("_take", "_wakeup")

    def __init__(self, wakeup: socket.socket, take: Callable[[bytes], None]) -> None:
        self._wakeup = wakeup
        self._take = take

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all it is watched for
        """Hand on which signals came."""
        self._take(self._wakeup.recv(4096))

    def on_fault(self) -> None:
        """Nothing ends."""


class _Replies:
    """A worker's line."""

    __slots__ = ("_line", "_place", "_take")

    def __init__(self, line: Line, place: Place, take: Callable[[Place, object], None]) -> None:
        self._line = line
        self._place = place
        self._take = take

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all it is watched for
        """Hand on what the worker says."""
        try:
            message = self._line.hear()
        except BlockingIOError:
            return
        self._take(self._place, message)

    def on_fault(self) -> None:
        """Nothing ends."""


class _Later:
    """A task for later, as the timers call it."""

    __slots__ = ("_task",)

    def __init__(self, task: Callable[[], None]) -> None:
        self._task = task

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  as the timers call it
        """Do it."""
        self._task()

    def on_fault(self) -> None:
        """Nothing ends."""
