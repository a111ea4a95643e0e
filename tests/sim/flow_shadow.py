"""What is known of flows from outside: what clients and endpoints said, what arrived, what was dropped.

A `Talk` is what one client and one listener say to each other, over all the flows that it takes.
"""

import errno
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from appliance.net.datagram import DatagramListener
from appliance.net.flow import Flow
from appliance.outcome import Cause, Drop, Stage
from tests.sim.datagram_kernel import Address, Connected, Listening, Parts

LOST: Final = {
    errno.ECONNREFUSED: Cause.ENDPOINT_REFUSED,
    errno.EHOSTUNREACH: Cause.ENDPOINT_UNREACHABLE,
    errno.ENETUNREACH: Cause.ENDPOINT_UNREACHABLE,
    errno.ENOPROTOOPT: Cause.ENDPOINT_UNREACHABLE,
}
"""What ICMP says of an endpoint."""

DROPS: Final = {
    errno.EAGAIN: Drop.SEND_FULL,
    errno.ENOBUFS: Drop.SEND_FULL,
    errno.EMSGSIZE: Drop.TOO_LONG,
    errno.EPERM: Drop.SEND_FAILED,
}

NO_TRAINS: Final = {errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT}
"""After which the datagrams of a train are sent one by one."""

EXACT: Final = (Drop.SEND_FULL, Drop.TOO_LONG)
"""Drops that have no other cause than what the kernel of dice did."""


@dataclass(eq=False)
class Place:
    """A listener, its socket, and who talks there."""

    port: Listening
    listener: DatagramListener
    locals: tuple[bytes, ...]
    """Addresses of this host that clients write to."""
    has_spare: bool
    """A flow may go on with another endpoint."""
    talks: "dict[tuple[Address, bytes], Talk]" = field(default_factory=dict)
    draining: bool = False

    def talk(self, client: Address, local: bytes) -> "Talk":
        """Give what a client says here; where there is one address only, that is no part of it."""
        key = client, local if self.port.is_wildcard else b""
        if key not in self.talks:
            self.talks[key] = Talk(self, *key)
        return self.talks[key]


@dataclass(eq=False)
class Way:
    """What passes over one socket of a flow."""

    talk: "Talk"
    flow: Flow
    port: Connected
    said: Parts = field(default_factory=list)
    """What the endpoint said, as far as it was read."""
    at: int = 0
    """So much of it was sent on, or passed over."""


@dataclass(eq=False)
class Talk:
    """A client at a listener."""

    place: Place
    client: Address
    local: bytes
    said: Parts = field(default_factory=list)
    """What the client said, as far as it was read."""
    at: int = 0
    """So much of it was sent on, or passed over."""
    count: int = 0
    """Datagrams read, both ways."""
    ignored: int = 0
    """Of these, such as came while draining, and belonged to no flow."""
    last: bytes | None = None
    """What was sent on last."""
    sent: int = 0
    """Datagrams that endpoints got."""
    again: int = 0
    """Of these, such as another endpoint had got before."""
    lost: int = 0
    """Endpoints that were lost, as the gateway was told: the last datagram of each was perhaps sent again."""
    answered: int = 0
    drops: Counter[Drop] = field(default_factory=Counter)
    """What the kernel did not send."""
    ended: list[Flow] = field(default_factory=list)
    live: Flow | None = None
    ways: list[Way] = field(default_factory=list)
    is_over: bool = False
    """Its last flow ended, while draining, over a datagram that no other one can take."""

    # -- what passes ----------------------------------------------------------------------------------

    def took(self, parts: Parts, *, cut: bool) -> None:
        self.count += len(parts)
        if self.place.draining and self.live is None:
            self.ignored += len(parts)
        if cut:
            self.drops[Drop.TRUNCATED] += 1
        else:
            self.said += parts

    def sent_on(self, port: Connected, parts: Parts) -> None:
        for number, part in enumerate(parts):
            self.sent += 1
            is_first = number == 0 and port.heard == len(parts)
            if is_first and self.place.has_spare and part == self.last:
                self.again += 1
            else:
                self.at = passed(part, self.said, self.at)
            self.last = part

    def read(self, way: Way, parts: Parts) -> None:
        way.said += parts
        self.count += len(parts)

    def sent_back(self, parts: Parts) -> None:
        way = self.ways[-1]
        for part in parts:
            self.answered += 1
            way.at = passed(part, way.said, way.at)

    def dropped(self, parts: Parts, number: int) -> None:
        """Note a failed send: each of the datagrams is a drop, unless something else is done about it."""
        if number not in LOST and not (len(parts) > 1 and number in NO_TRAINS):
            self.drops[DROPS[number]] += len(parts)

    # -- what is held of it ---------------------------------------------------------------------------

    def begins(self, flow: Flow) -> None:
        """Note the flow that a client has now."""
        assert self.live in {None, flow}, "two flows of one client"
        self.live = flow

    def ends(self, flow: Flow) -> None:
        """Note that it has ended; while draining, the datagram at hand begins no other one."""
        self.begins(flow)
        self.live = None
        self.ended.append(flow)
        if self.place.draining and flow.cause not in {Cause.DRAIN, Cause.IDLE_TIMEOUT, Cause.ANSWERED}:
            self.is_over = True

    def check(self) -> None:
        """Hold the counts of all its flows together: nothing is lost without one, or counted twice."""
        flows = [*self.ended, self.live] if self.live is not None else self.ended
        drops: Counter[Drop] = Counter()
        for flow in flows:
            drops.update(flow.drops or {})
        up, down = sum(flow.up for flow in flows), sum(flow.down for flow in flows)
        assert self.sent - self.lost <= up <= self.sent - self.again, (up, self.sent)
        assert down == self.answered
        assert {drop: drops[drop] for drop in EXACT} == {drop: self.drops[drop] for drop in EXACT}
        assert drops[Drop.SEND_FAILED] >= self.drops[Drop.SEND_FAILED]
        assert drops[Drop.TRUNCATED] <= self.drops[Drop.TRUNCATED]
        counted = up + down + drops.total() - drops[Drop.RECEIVE_FULL]
        expected = self.count - self.ignored
        if self.is_over or (self.live is not None and self.live.stage is Stage.DIAL):
            assert counted <= expected
        else:
            assert counted == expected, f"{expected} datagrams read, {up} + {down} sent, {drops}"


def passed(part: bytes, said: Parts, at: int) -> int:
    """Find a datagram after what was sent on before it; give where the next may be."""
    for index in range(at, len(said)):
        if said[index] == part:
            return index + 1
    raise AssertionError(f"{part!r} was not said, or before what was sent on already")
