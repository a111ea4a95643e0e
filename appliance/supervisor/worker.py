"""A worker: one thread, one loop, and the sessions it accepted. Everything is put together here.

It lives until it is told to drain and its sessions have ended, or until its master is gone, which is the same
to it: what it has accepted it serves.
"""

import resource
import secrets
from collections.abc import Iterable
from typing import Final

from appliance.net.dial import Upstream
from appliance.net.listener import Listener
from appliance.net.pipes import PipePool
from appliance.net.reactor import IN, Reactor
from appliance.net.relay import Relay
from appliance.net.resolve import Resolver
from appliance.net.session import Route, Session, Sessions
from appliance.net.sockets import peer_text
from appliance.observe.ids import WORKER_BITS, Ids
from appliance.observe.log import Log, wall_clock
from appliance.observe.names import Event
from appliance.outcome import Cause
from appliance.ruleset import Rule
from appliance.supervisor.binding import Bound
from appliance.supervisor.journal import Journal
from appliance.supervisor.orders import Cut, Drain, Line, Ready

SPARE_FDS: Final = 24
"""Fds that are neither a listener's nor a session's: standard streams, epoll, line, log, resolver."""

MOST_PIPES: Final = 256
"""Pipes a worker holds at the most, two fds each; a direction that gets none copies."""


def pipe_limit(fds: int) -> int:
    """How many pipes a worker of so many fds may have: at most an eighth of them."""
    return min(MOST_PIPES, fds // 16)


def session_limit(fds: int, listeners: int) -> int:
    """How many sessions a worker of so many fds takes: two fds each, of what is left."""
    return max(1, (fds - SPARE_FDS - listeners - 2 * pipe_limit(fds)) // 2)


class Worker:
    """One worker process."""

    def __init__(
        self, index: int, bound: Iterable[Bound], line: Line, log: Log, drain_timeout: float
    ) -> None:
        self._index = index
        self._line = line
        self._drain_timeout = drain_timeout
        self._draining = False
        self.reactor = Reactor(self._report_fault)
        self._journal = Journal(self.reactor, log, self._write_records)
        self._ended: list[Session] = []
        """Sessions whose record is still to be written."""
        self._ids = Ids(secrets.randbits(WORKER_BITS))
        self._log = log
        listening = tuple(bound)
        fds, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.sessions = Sessions(session_limit(fds, len(listening)), self._session_ended)
        self.relay = Relay(self.reactor, PipePool(pipe_limit(fds)))
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
        self._line.say(Ready(self.sessions.most))
        self.reactor.run()
        self._journal.close()
        self.reactor.close()

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
        """Note down that there is a record to write."""
        self._ended.append(session)
        self._journal.wrote()
        if self._draining:
            self._end_when_empty()

    def _write_records(self) -> None:
        """Log the sessions that have ended since the last time.

        Not one by one as they end: between two system calls this code is cold in the processor's caches,
        and costs two to three times what it does in a row.
        """
        wall, now = wall_clock(), self.reactor.now
        ended, self._ended = self._ended, []
        for session in ended:
            session.id = session.id or self._ids.next(wall - now + session.accepted)
            try:
                self._write_record(session, now - session.ended)
            except Exception as fault:  # noqa: BLE001  a record that cannot be written costs no other one
                self._report_fault(fault)

    def _write_record(self, session: Session, ago: float) -> None:
        cause, endpoint, route = session.cause, session.endpoint, session.route
        connect, first_byte, accepted = session.connect_seconds, session.first_byte, session.accepted
        assert cause is not None
        self._log.session(
            session.id,
            route.rule,
            "tcp",
            peer_text(session.peer),
            route.listener,
            endpoint.text if endpoint is not None else None,
            session.stage,
            cause,
            session.bytes_up,
            session.bytes_down,
            connect * 1000 if connect is not None else None,
            (first_byte - accepted) * 1000 if first_byte is not None else None,
            (session.ended - accepted) * 1000,
            session.attempts,
            ago,
        )

    def listener_paused(self, listener: Listener, error: str) -> None:
        """Report that a listener does not accept for now."""
        self._log.warning(
            Event.LISTENER_PAUSED,
            rule=listener.route.rule,
            listener=listener.route.listener,
            error=error,
            worker=self._index,
        )
        self._journal.wrote()

    def listener_resumed(self, listener: Listener) -> None:
        """Report that a listener accepts again."""
        self._log.info(
            Event.LISTENER_RESUMED,
            rule=listener.route.rule,
            listener=listener.route.listener,
            worker=self._index,
        )
        self._journal.wrote()

    def _resolve_failed(self, name: str, error: str) -> None:
        self._log.warning(Event.RESOLVE_FAILED, name=name, error=error, worker=self._index)
        self._journal.wrote()

    def _report_fault(self, fault: BaseException) -> None:
        self._log.error(Event.INTERNAL_ERROR, exc_info=fault, worker=self._index)
        self._journal.wrote()
