"""A listener's datagrams: each to the flow of the client that sent it.

One socket receives what all clients send; the sender's address finds the flow, and a new one begins a flow.
Where the socket has every address (0.0.0.0, [::]), the one that a datagram was sent to is told beside it
(IP_PKTINFO) and belongs to the flow: answers must leave from there, and a client may write to two of them.

Up is the way of most datagrams through this file, so it is written out in one loop: a datagram of 100 bytes
costs 4.5 us, of which the two system calls are 3.3, and a method call would be 0.1 more.
"""

import errno
import socket
import sys
from collections.abc import Hashable
from socket import AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO, MSG_TRUNC, SOL_UDP
from typing import Final

from appliance.net.burst import Burst
from appliance.net.datagram_sockets import IP_PKTINFO, is_drained, is_wildcard, kernel_drops
from appliance.net.eagerness import Eagerness
from appliance.net.flow import ClientAddress, Flow
from appliance.net.flow_route import FlowRoute
from appliance.net.flow_trains import CONTROL_BYTES, forward_train
from appliance.net.reactor import IN
from appliance.net.source import Sources
from appliance.net.trains import RUN, UDP_GRO, Controls, Sense, segments
from appliance.outcome import Drop

MOST_ROUNDS: Final = 64
"""Bursts taken at the most before no flow is begun any more."""

_WRITTEN: Final = {AF_INET: slice(8, 12), AF_INET6: slice(16)}
"""Where it has the address that was written to: another one than above where that is a broadcast's."""

_BROKEN: Final = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EFAULT, errno.EINVAL})
"""Errors of recv(2) that come again: a fault of ours."""

_WHERE: Final = {AF_INET: slice(4, 8), AF_INET6: slice(16)}
"""Where a control message has the address that an answer is to leave from. struct in_pktinfo has the
interface before it, and behind it the one written to, which may be that of a broadcast. struct in6_pktinfo
has the interface behind it; an answer to a link-local client has that in the client's address."""


class DatagramListener:
    """Takes the datagrams of one bound socket, for one route."""

    __slots__ = (
        "_burst",
        "_draining",
        "_eagerness",
        "_fresh",
        "_is_first",
        "_lost",
        "_receive",
        "_sense",
        "_socket",
        "_sources",
        "_taking",
        "_where",
        "_wildcard",
        "_written",
        "flows",
        "is_watched",
        "route",
    )

    def __init__(self, bound: socket.socket, route: FlowRoute, *, is_first: bool = True) -> None:
        """`bound` is O_NONBLOCK; one of every address is told which one it was (`datagram_sockets`).

        `is_first`: of the workers that share the port, this one takes what the kernel gives to all of them.
        """
        self._socket = bound
        self._receive = bound.recvfrom_into
        self._wildcard = is_wildcard(bound)
        self._where = _WHERE[AF_INET if bound.family == AF_INET else AF_INET6]
        self._written = _WRITTEN[AF_INET if bound.family == AF_INET else AF_INET6]
        self._is_first = is_first
        self._sense = Sense(bound)
        self._burst = Burst(route.datagrams.most_reads)
        self._draining = False
        self._taking = False
        self._fresh: list[Flow] = []
        """Flows that are to look for an answer when the burst is out."""
        self._eagerness = Eagerness()
        self._lost = kernel_drops(bound)  # a predecessor's are reported
        self._sources = Sources(bound)
        self.route = route
        self.flows: dict[Hashable, Flow] = {}
        self.is_watched = True
        route.datagrams.reactor.watch(bound.fileno(), IN, self)

    # -- up -------------------------------------------------------------------------------------------

    def on_event(self, events: int) -> None:  # noqa: ARG002  an error is told by reading, too
        """Take what clients have sent, up to a burst."""
        datagrams = self.route.datagrams
        if datagrams.crowded_at == datagrams.reactor.now:
            return  # what waits is an event in the next turn as well
        self._taking = True
        try:
            taken = self._take_messages() if self._wildcard or self._sense.asks else self._take()
        except OSError as error:
            # What is not about a client is about a datagram sent earlier, and the call has cleared it.
            if error.errno in _BROKEN:
                raise
            return
        finally:
            self._taking = False
            if self._fresh:
                self._look()
        burst = self._burst
        if taken < burst.size:
            burst.emptied(taken)
        elif burst.credit > 1:
            burst.credit -= 1
        else:
            burst.filled()

    def _take(self) -> int:
        """Receive and send on, each datagram with two system calls; give how many there were."""
        datagrams, flows = self.route.datagrams, self.flows
        receive, buffer, view, now = self._receive, datagrams.buffer, datagrams.view, datagrams.reactor.now
        most = self._burst.size
        run = size = 0
        last: Flow | None = None
        for taken in range(most):
            try:
                count, client = receive(buffer)
            except BlockingIOError:
                most = taken
                break
            flow = flows.get(client) or self._opened(client, client, b"", 1)
            if flow is None:
                continue
            send = flow.send
            if send is None:
                flow.hold(view[:count])
                continue
            try:
                send(view[:count])
            except OSError as error:
                flow.not_sent(error, view[:count])
            else:
                flow.up += 1
                flow.bytes_up += count
                flow.active = now
            if flow is last and count == size:
                run += 1
            else:
                last, size, run = flow, count, 1
        if run >= RUN:
            self._sense.run_came()
        return most

    def _take_messages(self) -> int:  # noqa: C901, PLR0912  hot: a call costs 0.1 us of 5
        """As `_take`, with what recvmsg(2) tells beside a datagram."""
        datagrams, flows, sense = self.route.datagrams, self.flows, self._sense
        receive, buffers, view, now = (
            self._socket.recvmsg_into,
            datagrams.buffers,
            datagrams.view,
            datagrams.reactor.now,
        )
        most, usual, where, written = self._burst.size, not sense.asks, self._where, self._written
        run = size = 0
        last: Flow | None = None
        for taken in range(most):
            try:
                count, controls, flags, client = receive(buffers, CONTROL_BYTES)
            except BlockingIOError:
                most = taken
                break
            train = 0
            if usual and len(controls) == 1:
                told = controls[0][2]
                local = told[where]
                if local != told[written] and not self._is_first:
                    continue  # a broadcast: the kernel gives it to each worker
            else:
                train, local, is_broadcast = _told(controls)
                if is_broadcast and not self._is_first:
                    continue
            key = (client, local) if local else client
            flow = flows.get(key) or self._opened(key, client, local, segments(count, train))
            if flow is None:
                continue
            send = flow.send
            if train or flags or send is None:
                self._take_unusual(flow, view[:count], train, flags)
                continue
            try:
                send(view[:count])
            except OSError as error:
                flow.not_sent(error, view[:count])
            else:
                flow.up += 1
                flow.bytes_up += count
                flow.active = now
            if flow is last and count == size:
                run += 1
            else:
                last, size, run = flow, count, 1
            if not usual:
                sense.single_came()
        if run >= RUN and usual:
            sense.run_came()
        return most

    def _take_unusual(self, flow: Flow, datagram: memoryview, train: int, flags: int) -> None:
        """Take a train of segments of `train` bytes, what was cut, or what comes while dialling."""
        if flags & MSG_TRUNC:
            flow.dropped(Drop.TRUNCATED)
        elif 0 < train < len(datagram):
            self._sense.train_came()
            forward_train(flow, datagram, train)
        else:
            flow.forward(datagram)

    # -- flows ----------------------------------------------------------------------------------------

    def _opened(self, key: Hashable, client: ClientAddress, local: bytes, at_hand: int) -> Flow | None:
        """Begin a flow; None when it came to nothing, which its record tells.

        `local` is the address that the client wrote to, where the socket has several; `at_hand`: how many
        datagrams came with it.
        """
        if self._draining:
            return None
        return self._begun(Flow(self, key, client, self._sources.of(local)), at_hand)

    def _begun(self, flow: Flow, at_hand: int) -> Flow | None:
        key, client = flow.key, flow.client
        self.flows[key] = flow
        self.route.flows.admit(flow, client[0], self.route.datagrams.evict)
        flow.start(at_hand)
        return flow if flow.cause is None else None

    def looks_for(self, flow: Flow) -> bool:
        """Have the flow look for its answer at the end of this burst; False: it is to wait for it."""
        if not self._taking or not self._eagerness.tries():
            return False
        self._fresh.append(flow)
        return True

    def _look(self) -> None:
        fresh, self._fresh = self._fresh, []
        for flow in fresh:
            if flow.look():
                self._eagerness.found()
            else:
                self._eagerness.missed()

    def again(self, flow: Flow, datagram: bytes) -> None:
        """Take a datagram of a client whose flow has ended over it as the first of a new one."""
        if self._draining:
            return
        begun = self._begun(Flow(self, flow.key, flow.client, flow.source), 1)
        if begun is not None:
            begun.forward(memoryview(datagram))

    def on_fault(self) -> None:
        """A bug in taking datagrams has been reported; the other clients still want theirs taken."""

    # -- state ----------------------------------------------------------------------------------------

    def newly_lost(self) -> int:
        """Count the datagrams that the kernel dropped since this was asked last: the buffer was full."""
        lost = kernel_drops(self._socket)
        newly, self._lost = lost - self._lost, lost
        return newly

    def drain(self) -> None:
        """Take what has come so far, and begin no flows any more; those there are go on."""
        for _ in range(MOST_ROUNDS):
            if is_drained(self._socket):
                break
            self.on_event(IN)
        self._draining = True

    def unwatch(self) -> None:
        """Receive no more; answers leave from here all the same."""
        if self.is_watched:
            self.is_watched = False
            self.route.datagrams.reactor.unwatch(self._socket.fileno())

    def close(self) -> None:
        """Receive no more, and answer no more."""
        # Others hold the same open file: close(2) alone would leave it in the epoll set.
        self.unwatch()
        reactor = self.route.datagrams.reactor
        reactor.forget(self._socket.fileno(), self._socket.close)


def _told(controls: Controls) -> tuple[int, bytes, bool]:
    """Give a train's segment size (0: none), the address to answer from, and whether it was a broadcast."""
    train, local, is_broadcast = 0, b"", False
    for level, kind, data in controls:
        if level == SOL_UDP:
            if kind == UDP_GRO:
                train = int.from_bytes(data, sys.byteorder)
        elif level == IPPROTO_IP and kind == IP_PKTINFO:
            local = data[_WHERE[AF_INET]]
            is_broadcast = local != data[_WRITTEN[AF_INET]]
        elif level == IPPROTO_IPV6 and kind == IPV6_PKTINFO and not local:
            local = data[_WHERE[AF_INET6]]
    return train, local, is_broadcast
