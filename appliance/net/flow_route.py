"""What flows have in common: those of a worker, and those of a rule at one of its listeners."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from appliance.net.contact import Ways
from appliance.net.datagram_sockets import BUFFER_BYTES
from appliance.net.reactor import Reactor
from appliance.outcome import Cause

if TYPE_CHECKING:
    from appliance.net.flow import Flow
    from appliance.policy.flow_table import FlowTable, RuleFlows


MOST_READS: Final = 64
"""Datagrams taken at one listener in a turn at the most: flows and other listeners want their turn, too."""


class Datagrams:
    """What all flows of a worker share: the loop, the buffer, the table, and who hears of a flow's end."""

    __slots__ = (
        "_evicted",
        "_evicted_at",
        "_most_evicted",
        "buffer",
        "buffers",
        "crowded_at",
        "held",
        "most_reads",
        "on_end",
        "reactor",
        "table",
        "view",
    )

    def __init__(
        self,
        reactor: Reactor,
        table: "FlowTable[Flow]",
        on_end: Callable[["Flow"], None],
        spare_fds: int = 2 * MOST_READS,
    ) -> None:
        """`spare_fds`: how many there are beside the table's, for flows that ended in this turn."""
        self.reactor = reactor
        self.table = table
        self.on_end = on_end
        self.buffer = bytearray(BUFFER_BYTES)
        self.buffers = (self.buffer,)
        """As recvmsg_into takes it."""
        self.view = memoryview(self.buffer)
        self.most_reads = min(MOST_READS, max(1, spare_fds // 2))
        self.held = 0
        """Bytes that flows hold, which are being dialled."""
        self._most_evicted = spare_fds - self.most_reads
        self._evicted = 0
        self._evicted_at = self.crowded_at = -math.inf
        """`crowded_at` is the turn in which no listener is to begin another burst: the fds of those that
        had to make room come back at its end."""

    def evict(self, flow: "Flow") -> None:
        """End a flow to make room for another one."""
        now = self.reactor.now
        if self._evicted_at != now:
            self._evicted_at = now
            self._evicted = 0
        self._evicted += 1
        if self._evicted >= self._most_evicted:
            self.crowded_at = now
        flow.end(Cause.FLOW_LIMIT)

    def cut(self, cause: Cause, quiet_since: float | None = None) -> None:
        """End every flow, or those in which nothing has passed since then."""
        for rule in self.table.rules.values():
            for flow in tuple(rule.live):
                if quiet_since is None or flow.active <= quiet_since:
                    flow.end(cause)


class FlowRoute:
    """A rule at one of its UDP listeners."""

    __slots__ = (
        "agent",
        "datagrams",
        "flows",
        "idle_timeout",
        "listener",
        "receive_buffer",
        "responses",
        "rule",
        "upstream",
    )

    def __init__(
        self,
        rule: str,
        listener: str,
        upstream: Ways,
        idle_timeout: float,
        responses: int,
        receive_buffer: int,
        flows: "RuleFlows[Flow]",
        datagrams: Datagrams,
        agent: str = "",
    ) -> None:
        """`agent` is the name of the one that carries the flows, where one does."""
        self.rule = rule
        self.listener = listener
        self.upstream = upstream
        self.idle_timeout = idle_timeout
        self.responses = responses
        """After how many answers a flow ends; 0: no number of them ends one."""
        self.receive_buffer = receive_buffer
        self.flows = flows
        """Those of the rule, at all its listeners."""
        self.datagrams = datagrams
        self.agent = agent
