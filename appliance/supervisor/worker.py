"""A worker: one thread, one loop, and the sessions it accepted. Everything is put together here.

It lives until it is told to drain and its sessions have ended, or until its master is gone, which is the same
to it: what it has accepted it serves.
"""

import resource
import secrets
import socket
from collections.abc import Iterable
from typing import Final

from appliance.net.contact import DatagramUpstream, Ways
from appliance.net.datagram import DatagramListener
from appliance.net.dial import Dialer, Upstream
from appliance.net.flow import Flow
from appliance.net.flow_route import Datagrams, FlowRoute
from appliance.net.introduction import introduction
from appliance.net.listener import Listener
from appliance.net.pipes import PipePool
from appliance.net.reactor import IN, Reactor
from appliance.net.relay import Relay
from appliance.net.resolve import Resolver
from appliance.net.session import Route, Session, Sessions
from appliance.net.transparency import Transparency
from appliance.observe.ids import WORKER_BITS, Ids
from appliance.observe.log import Log, wall_clock
from appliance.observe.names import Event
from appliance.observe.record import SessionRecord
from appliance.outcome import Cause
from appliance.policy.flow_table import FlowTable
from appliance.policy.tally import Tally
from appliance.ruleset import Protocol, Rule
from appliance.supervisor.binding import Bound
from appliance.supervisor.journal import Journal
from appliance.supervisor.limits import limits
from appliance.supervisor.orders import Ask, AskLinks, Cut, Drain, Line, Links, Load, Ready, unpacked
from appliance.supervisor.process import local_ports
from appliance.supervisor.records import flow_record, session_record
from appliance.supervisor.repeated import Repeated
from appliance.supervisor.tunnel_log import told_links
from appliance.supervisor.tunnels import TUNNEL, Plan

LOOK_AT_DROPS: Final = 10.0
"""Seconds between two looks at what the kernel dropped at UDP listeners."""

QUIET: Final = 2.0
"""While draining, a flow in which nothing has passed for so many seconds is over: UDP tells no other end."""

LOOK_FOR_QUIET: Final = 0.25


class Worker:
    """One worker process."""

    def __init__(
        self,
        index: int,
        workers: int,
        bound: Iterable[Bound],
        line: Line,
        log: Log,
        drain_timeout: float,
        tally: memoryview,
        plan: Plan | None = None,
    ) -> None:
        """`tally` is the memory in which `workers` workers count flows together (`policy.tally`).

        `plan` is what tunnels are made of, of a gateway that has some, or of an agent.
        """
        self.index = index
        self.workers = workers
        self._line = line
        self._drain_timeout = drain_timeout
        self._draining = False
        self.reactor = Reactor(self._report_fault)
        self.journal = Journal(self.reactor, log, self._write_records)
        self._ended: list[Session | Flow] = []
        """Those whose record is still to be written."""
        self._ids = Ids(secrets.randbits(WORKER_BITS))
        self._log = log
        numbered = [
            (one, mine, position) for position, one in enumerate(bound) for mine in one.sockets_for(index)
        ]
        listening = [(one, mine) for one, mine, _ in numbered]
        protocols = {one.protocol for one, _ in listening}
        fds, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.limits = limits(
            fds,
            len(listening),
            local_ports() // workers,
            tcp=Protocol.TCP in protocols or plan is not None,
            udp=Protocol.UDP in protocols or (plan is not None and plan.is_agent),
            tunnels=plan is not None,
        )
        self.sessions = Sessions(self.limits.sessions, self._has_ended, self._next_id)
        self.relay = Relay(self.reactor, PipePool(self.limits.pipes))
        self.flows: FlowTable[Flow] = FlowTable(self.limits.flows, Tally(tally, workers, index))
        self.datagrams = Datagrams(self.reactor, self.flows, self._has_ended, self.limits.spare_flows)
        self.resolver = Resolver(self.reactor, self._resolve_failed)
        self.transparency = Transparency(self._warn)
        self.gateway = None if plan is None else plan.gateway(self)
        self.agent = None if plan is None else plan.agent(self)
        self._upstreams: dict[tuple[str, int], Upstream] = {}
        self._datagram_upstreams: dict[tuple[str, int], DatagramUpstream] = {}
        if self.gateway is not None:
            for one, mine in listening:
                if one.rule.name == TUNNEL:
                    self.gateway.listen(mine)
        self.listeners = [
            self._listener(one, mine)
            for one, mine in listening
            if one.protocol is Protocol.TCP and one.rule.name != TUNNEL
        ]
        self.datagram_listeners = [
            self._datagram_listener(one, mine) for one, mine in listening if one.protocol is Protocol.UDP
        ]
        self._positions = [at for one, _, at in numbered if one.protocol is Protocol.UDP]
        """Of each UDP listener: which of the `bound` it belongs to."""
        self.reactor.watch(line.fileno(), IN, self)

    def _listener(self, bound: Bound, mine: socket.socket) -> Listener:
        rule = bound.rule
        route = Route(
            rule.name,
            bound.address,
            self._dialer(rule, bound.offset),
            rule.idle_timeout,
            self.relay,
            self.sessions,
            rule.via or "",
            introduction(rule.proxy_protocol) if rule.via is None else None,  # or else the agent says it
        )
        return Listener(self.reactor, mine, route, self, shared=bound.shared)

    def _datagram_listener(self, bound: Bound, mine: socket.socket) -> DatagramListener:
        rule = bound.rule
        route = FlowRoute(
            rule.name,
            bound.address,
            self._flows_way(rule, bound.offset),
            rule.flow_idle_timeout,
            rule.responses or 0,
            rule.receive_buffer,
            self.flows.rule(rule.name, rule.max_flows, rule.max_flows_per_client),
            self.datagrams,
            rule.via or "",
        )
        return DatagramListener(mine, route, is_first=mine is bound.sockets[0])

    def _dialer(self, rule: Rule, offset: int) -> Dialer:
        """Give the way to a rule's endpoints: from here, or through an agent."""
        if rule.via is None:
            return self._upstream(rule, offset)
        assert self.gateway is not None  # the checks have seen to it
        return self.gateway.dialer(rule, offset)

    def _upstream(self, rule: Rule, offset: int) -> Upstream:
        """Give the dialer of a rule: one for all its listeners, unless each has an endpoint of its own."""
        key = _upstream_key(rule, offset)
        if key not in self._upstreams:
            targets = [to.at(offset) for to in rule.to]
            self._upstreams[key] = Upstream(
                self.reactor, self.resolver, targets, rule.connect_timeout, self._transparency_of(rule)
            )
        return self._upstreams[key]

    def _flows_way(self, rule: Rule, offset: int) -> Ways:
        """Give the way of a rule's flows: from here, or through an agent."""
        if rule.via is None:
            return self._datagram_upstream(rule, offset)
        assert self.gateway is not None  # the checks have seen to it
        return self.gateway.flows(rule, offset, self._next_id, self.relay.view)

    def _datagram_upstream(self, rule: Rule, offset: int) -> DatagramUpstream:
        key = _upstream_key(rule, offset)
        if key not in self._datagram_upstreams:
            targets = [to.at(offset) for to in rule.to]
            self._datagram_upstreams[key] = DatagramUpstream(
                self.reactor, self.resolver, targets, rule.connect_timeout, self._transparency_of(rule)
            )
        return self._datagram_upstreams[key]

    def _transparency_of(self, rule: Rule) -> Transparency | None:
        if not rule.is_transparent:
            return None
        self.transparency.probe()
        return self.transparency

    # -- life -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until drained."""
        self._line.say(Ready(self.limits.sessions, self.limits.flows))
        if self.datagram_listeners:
            Repeated(self.reactor, LOOK_AT_DROPS, self._report_drops)
        if self.agent is not None:
            self.agent.start()
        self.reactor.run()
        self._report_drops()
        for receiver in self.datagram_listeners:
            receiver.close()
        self.journal.close()
        self.reactor.close()

    def on_event(self, events: int) -> None:  # noqa: ARG002  the line knows one event
        """Hear the master: an order, or its end."""
        try:
            order = self._line.hear()
        except BlockingIOError:
            return
        match order:
            case Drain(within=within, replaced=replaced):
                self.drain(within, replaced)
            case Cut():
                self.cut()
            case None:
                self.reactor.forget(self._line.fileno(), self._line.close)
                self.drain(self._drain_timeout)
            case Ask():
                self._line.say(Load(len(self.sessions.live), self.flows.count))
            case AskLinks(number=number):
                for message in told_links(self.gateway, number, self.index):
                    self._line.say(message)
            case Load() | Links() | Ready():
                pass

    def drain(self, within: float, replaced: bytes | None = None) -> None:
        """Accept no more, and end once the last session has; cut what is left after `within` seconds.

        `replaced`: others serve now, after a reload; of each address, whether on the same sockets. Nothing
        more of UDP is read then, since two readers of a socket would get a datagram each: a flow that goes
        on, goes on as one of theirs. A UDP socket that they do not have is closed, and its flows end: it
        would take what is meant for another one, such as that of all addresses, and keep its address taken.
        """
        if self._draining:
            return
        self._draining = True
        for listener in self.listeners:
            listener.close()
        for receiver in self.datagram_listeners:
            receiver.drain()
        if replaced is not None:
            self._report_drops()  # the next ones are the others' to report
            self._leave_datagrams(replaced)
        if self.gateway is not None:
            self.gateway.drain()
        if self.agent is not None:
            self.agent.drain()
        self.reactor.arm(self.reactor.now + within, self)
        if self.flows.count:
            Repeated(self.reactor, LOOK_FOR_QUIET, self._cut_quiet)
        self._end_when_empty()

    def _leave_datagrams(self, replaced: bytes) -> None:
        """Read nothing more of UDP, and close what others do not have."""
        mine = zip(self.datagram_listeners, self._positions, strict=True)
        self.datagram_listeners = []
        for receiver, position in mine:
            if unpacked(replaced, position):
                receiver.unwatch()
                self.datagram_listeners.append(receiver)
                continue
            for flow in tuple(receiver.flows.values()):
                flow.end(Cause.DRAIN)
            receiver.close()

    def cut(self) -> None:
        """End every session now."""
        self.drain(0.0)
        self.sessions.cut(Cause.DRAIN)
        self.datagrams.cut(Cause.DRAIN)
        self._end_when_empty()

    def _cut_quiet(self) -> None:
        self.datagrams.cut(Cause.DRAIN, quiet_since=self.reactor.now - QUIET)

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  the drain deadline is the only one
        """The drain deadline has passed."""
        self.cut()

    def on_fault(self) -> None:
        """A fault in an order has been reported; the sessions go on."""

    def _end_when_empty(self) -> None:
        if self._draining and not self.sessions.live and not self.flows.count:
            self.reactor.stop()

    # -- reports --------------------------------------------------------------------------------------

    def _has_ended(self, ended: Session | Flow) -> None:
        """Note down that there is a record to write."""
        self._ended.append(ended)
        self.journal.wrote()
        if self._draining:
            self._end_when_empty()

    def _write_records(self) -> None:
        """Log what has ended since the last time.

        Not one by one as they end: between two system calls this code is cold in the processor's caches,
        and costs two to three times what it does in a row.
        """
        wall, now = wall_clock(), self.reactor.now
        ended, self._ended = self._ended, []
        records = []
        for one in ended:
            try:
                records.append(self._record(one, wall, now))
            except Exception as fault:  # noqa: BLE001  a record that cannot be made costs no other one
                self._report_fault(fault)
        self._log.sessions(records)

    def _record(self, ended: Session | Flow, wall: float, now: float) -> SessionRecord:
        if isinstance(ended, Flow):
            ended.id = ended.id or self._ids.next(wall - now + ended.opened)
            return flow_record(ended, now - ended.ended)
        ended.id = ended.id or self._ids.next(wall - now + ended.accepted)
        return session_record(ended, now - ended.ended)

    def _next_id(self, since: float) -> str:
        """Make the id of a session that was accepted at that moment of the loop's clock."""
        return self._ids.next(wall_clock() - self.reactor.now + since)

    def _report_drops(self) -> None:
        """Report what the kernel dropped at the UDP listeners since the last time."""
        for listener in self.datagram_listeners:
            if listener.is_watched and (count := listener.newly_lost()):
                self._log.warning(
                    Event.DATAGRAMS_DROPPED,
                    rule=listener.route.rule,
                    listener=listener.route.listener,
                    worker=self.index,
                    count=count,
                )
                self.journal.wrote()

    def listener_paused(self, listener: Listener, error: str) -> None:
        """Report that a listener does not accept for now."""
        self._log.warning(
            Event.LISTENER_PAUSED,
            rule=listener.route.rule,
            listener=listener.route.listener,
            error=error,
            worker=self.index,
        )
        self.journal.wrote()

    def listener_resumed(self, listener: Listener) -> None:
        """Report that a listener accepts again."""
        self._log.info(
            Event.LISTENER_RESUMED,
            rule=listener.route.rule,
            listener=listener.route.listener,
            worker=self.index,
        )
        self.journal.wrote()

    def _resolve_failed(self, name: str, error: str) -> None:
        self._log.warning(Event.RESOLVE_FAILED, name=name, error=error, worker=self.index)
        self.journal.wrote()

    def _warn(self, message: str) -> None:
        self._log.warning(Event.WARNING, message=message, worker=self.index)
        self.journal.wrote()

    def _report_fault(self, fault: BaseException) -> None:
        self._log.error(Event.INTERNAL_ERROR, exc_info=fault, worker=self.index)
        self.journal.wrote()


def _upstream_key(rule: Rule, offset: int) -> tuple[str, int]:
    return rule.name, offset if any(to.port_count > 1 for to in rule.to) else 0
