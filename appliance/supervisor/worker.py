"""A worker: one thread, one loop, and the sessions it accepted. Everything is put together here.

It lives until it is told to drain and its sessions have ended, or until its master is gone, which is the same
to it: what it has accepted it serves.
"""

import resource
import secrets
from collections.abc import Callable, Iterable
from typing import Final

from appliance.net.dial import Upstream
from appliance.net.listener import Listener
from appliance.net.pipes import PipePool
from appliance.net.reactor import IN, Reactor
from appliance.net.relay import Relay
from appliance.net.resolve import Resolver
from appliance.net.session import Route, Session, Sessions
from appliance.observe.ids import WORKER_BITS, Ids
from appliance.observe.log import Log, wall_clock
from appliance.observe.names import Event
from appliance.outcome import Cause
from appliance.ruleset import Rule
from appliance.supervisor.binding import Bound
from appliance.supervisor.orders import Cut, Drain, Line, Ready

SPARE_FDS: Final = 64
"""Fds that are neither a listener's nor a session's: standard streams, epoll, line, log, resolver."""

MOST_PIPES: Final = 256
"""Pipes a worker holds at the most, two fds each; a direction that gets none copies."""

BATCH: Final = 0.05
"""Records wait so many seconds for others before they are written, while there are many: a write for each
turn costs 3 us a session at 10,000 a second. A record that comes alone is written in its turn."""

STALLED_RETRY: Final = 0.05
"""Seconds after which a log whose reader stalled is tried again."""


def session_limit(fds: int, listeners: int) -> int:
    """How many sessions a worker takes: two fds each, of what is left.

    Pipes are not counted: they are lent to sessions whose sink is slow, and given up for new sessions.
    """
    return max(1, (fds - SPARE_FDS - listeners) // 2)


class Worker:
    """One worker process."""

    def __init__(
        self, index: int, bound: Iterable[Bound], line: Line, log: Log, drain_timeout: float
    ) -> None:
        self._index = index
        self._line = line
        self._log = log
        self._drain_timeout = drain_timeout
        self._draining = False
        self._flush_due = False
        self._flushed = 0.0
        self._flusher = _Flusher(self._flush)
        self._drain_slot = -1
        self.reactor = Reactor(self._report_fault)
        listening = tuple(bound)
        fds, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        ids = Ids(secrets.randbits(WORKER_BITS))
        self.sessions = Sessions(
            session_limit(fds, len(listening)), lambda: ids.next(wall_clock()), self._session_ended
        )
        self.relay = Relay(self.reactor, PipePool(min(MOST_PIPES, fds // 16)))
        self._resolver = Resolver(self.reactor, self._resolve_failed)
        self._upstreams: dict[tuple[str, int], Upstream] = {}
        self.listeners = [self._listener(one) for one in listening]
        self.reactor.watch(line.fileno(), IN, self)

    def _listener(self, bound: Bound) -> Listener:
        rule = bound.rule
        route = Route(
            rule.name,
            bound.address,
            self._upstream(rule, bound.offset),
            rule.idle_timeout,
            self.relay,
            self.sessions,
        )
        return Listener(self.reactor, bound.socket_for(self._index), route, self, shared=bound.shared)

    def _upstream(self, rule: Rule, offset: int) -> Upstream:
        """Give the dialer of a rule: one for all its listeners, unless each has an endpoint of its own."""
        key = (rule.name, offset if any(to.port_count > 1 for to in rule.to) else 0)
        if key not in self._upstreams:
            targets = [to.at(offset) for to in rule.to]
            self._upstreams[key] = Upstream(self.reactor, self._resolver, targets, rule.connect_timeout)
        return self._upstreams[key]

    # -- life -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until drained."""
        self._line.say(Ready())
        self.reactor.run()
        self.reactor.close()
        self._log.close()

    def on_event(self, events: int) -> None:  # noqa: ARG002  the line knows one event
        """Hear the master: an order, or its end."""
        try:
            order = self._line.hear()
        except BlockingIOError:
            return
        match order:
            case Drain(within=within):
                self.drain(within)
            case Cut():
                self.cut()
            case None:
                self.reactor.forget(self._line.fileno(), self._line.close)
                self.drain(self._drain_timeout)
            case Ready():
                pass

    def drain(self, within: float) -> None:
        """Accept no more, and end once the last session has; cut what is left after `within` seconds."""
        if self._draining:
            return
        self._draining = True
        for listener in self.listeners:
            listener.close()
        self.reactor.arm(self.reactor.now + within, self)
        self._end_when_empty()

    def cut(self) -> None:
        """End every session now."""
        self.drain(0.0)
        self.sessions.cut(Cause.DRAIN)
        self._end_when_empty()

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  the drain deadline is the only one
        """The drain deadline has passed."""
        self.cut()

    def on_fault(self) -> None:
        """A fault in an order has been reported; the sessions go on."""

    def _end_when_empty(self) -> None:
        if self._draining and not self.sessions.live:
            self.reactor.stop()

    # -- reports --------------------------------------------------------------------------------------

    def _session_ended(self, session: Session) -> None:
        """Write the record."""
        assert session.cause is not None
        up, down, route = session.up, session.down, session.route
        connect, first_byte = session.connect_seconds, session.first_byte
        accepted = session.accepted
        self._log.session(
            session.id,
            route.rule,
            "tcp",
            session.peer,
            route.listener,
            session.endpoint.text if session.endpoint is not None else None,
            session.stage,
            session.cause,
            up.moved if up is not None else 0,
            down.moved if down is not None else 0,
            connect * 1000 if connect is not None else None,
            (first_byte - accepted) * 1000 if first_byte is not None else None,
            (self.reactor.now - accepted) * 1000,
            session.attempts,
        )
        self._flush_soon()
        if self._draining:
            self._end_when_empty()

    def listener_paused(self, listener: Listener, error: str) -> None:
        """Report that a listener does not accept for now."""
        self._log.warning(
            Event.LISTENER_PAUSED, rule=listener.route.rule, listener=listener.route.listener, error=error
        )
        self._flush_soon()

    def listener_resumed(self, listener: Listener) -> None:
        """Report that a listener accepts again."""
        self._log.info(Event.LISTENER_RESUMED, rule=listener.route.rule, listener=listener.route.listener)
        self._flush_soon()

    def _resolve_failed(self, name: str, error: str) -> None:
        self._log.warning(Event.RESOLVE_FAILED, name=name, error=error)
        self._flush_soon()

    def _report_fault(self, fault: BaseException) -> None:
        self._log.error(Event.INTERNAL_ERROR, exc_info=fault)
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Have the log written at the end of this turn, or with others when the last write was just now."""
        if not self._flush_due:
            self._flush_due = True
            if self.reactor.now - self._flushed >= BATCH:
                self.reactor.defer(self._flush)
            else:
                self.reactor.arm(self._flushed + BATCH, self._flusher)

    def _flush(self) -> None:
        self._flushed = self.reactor.now
        self._flush_due = not self._log.flush()
        if self._flush_due:
            self.reactor.arm(self.reactor.now + STALLED_RETRY, self._flusher)


class _Flusher:
    """A write of the log that was put off, as the timers call it."""

    __slots__ = ("_task",)

    def __init__(self, task: Callable[[], None]) -> None:
        self._task = task

    def on_deadline(self, now: float) -> None:  # noqa: ARG002
        """Write."""
        self._task()

    def on_fault(self) -> None:
        """Nothing ends."""
