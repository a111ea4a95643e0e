"""The DHCP client of one interface (RFC 2131, 4.4): what it does when a message or a moment comes.

Time and randomness are arguments. Addresses are not probed by ARP before use (4.4.1: SHOULD): no DECLINE.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Final

from appliance.machine.dhcp_message import Lease, MessageType, Question, Reply, build, read

BROADCAST: Final = "255.255.255.255"
CLIENT_PORT: Final = 68
SERVER_PORT: Final = 67

FIRST_WAIT: Final = 1.0
"""Seconds before a message is sent again; doubled each time. RFC 2131 says 4: a machine that starts, or whose
switch port does (spanning tree), would be without an address for 4 or 12 s where 1 or 3 will do."""
LONGEST_WAIT: Final = 64.0
REQUESTS: Final = 4
"""How often an offer is asked for, before it all begins anew."""
SHORTEST_RENEWAL: Final = 60.0
"""Seconds between two requests to renew (4.4.5)."""
AGAIN: Final = 10.0
"""Seconds of rest after a server said no, against a server that always does (4.4.5 has none)."""


class State(Enum):
    """Where the client stands (RFC 2131, figure 5)."""

    SELECTING = auto()
    REQUESTING = auto()
    BOUND = auto()
    RENEWING = auto()
    REBINDING = auto()


@dataclass(frozen=True, slots=True)
class Actions:
    """What the client does to the world: `send` a message to an address, `bound` to a lease, `lost` it."""

    send: Callable[[bytes, str], None]
    bound: Callable[[Lease], None]
    lost: Callable[[Lease], None]


class Client:
    """One interface's client. Call `start`, then `take` for what arrives and `tick` when `due` has come."""

    def __init__(self, mac: bytes, actions: Actions, random: Random, host_name: str = "") -> None:
        """`mac` has 6 octets; `random` gives transaction ids and jitter."""
        self._mac = mac
        self._host_name = host_name
        self._actions = actions
        self._random = random
        self._question = Question(mac, 0, host_name)
        self._offer: Lease | None = None
        self._begun = self._sent = self._bound_at = 0.0
        self._tries = 0
        self.lease: Lease | None = None
        self.state = State.SELECTING
        self.due = 0.0
        """The moment at which `tick` has something to do."""

    def start(self, now: float) -> None:
        """Look for a server, from the beginning."""
        self._begin(State.SELECTING, now)
        self.tick(now)

    def _begin(self, state: State, now: float) -> None:
        self.state = state
        self._tries = 0
        if state is not State.REQUESTING:  # which goes on with the offer's transaction
            self._question = Question(self._mac, self._random.getrandbits(32), self._host_name)
            self._begun = now

    # -- moments --------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Send what is to be sent now, and say when the next moment is."""
        match self.state:
            case State.SELECTING:
                self._send(now, MessageType.DISCOVER, BROADCAST)
                self._wait(now)
            case State.REQUESTING:
                self._request(now)
            case State.BOUND:
                self._begin(State.RENEWING, now)
                self.tick(now)
            case State.RENEWING | State.REBINDING:
                self._prolong(now)

    def _request(self, now: float) -> None:
        if self._offer is None or self._tries >= REQUESTS:
            self.start(now)
            return
        offer = self._offer
        self._send(now, MessageType.REQUEST, BROADCAST, requested=str(offer.address.ip), server=offer.server)
        self._wait(now)

    def _prolong(self, now: float) -> None:
        """Ask the server for more time; later, any server; at the end, give the address up."""
        lease = self.lease
        assert lease is not None
        assert lease.seconds is not None
        end = self._bound_at + lease.seconds
        rebind = self._bound_at + lease.rebind
        if now >= end:
            self._lose()
            self.start(now)
            return
        if self.state is State.RENEWING and now >= rebind:
            self._begin(State.REBINDING, now)
        renews = self.state is State.RENEWING
        to, until = (lease.server, rebind) if renews else (BROADCAST, end)
        self._send(now, MessageType.REQUEST, to, own=str(lease.address.ip))
        self.due = min(until, now + max((until - now) / 2, SHORTEST_RENEWAL))

    def _send(
        self,
        now: float,
        kind: MessageType,
        to: str,
        own: str = "0.0.0.0",
        requested: str | None = None,
        server: str | None = None,
    ) -> None:
        self._sent = now
        self._tries += 1
        elapsed = now - self._begun
        message = build(self._question, kind, elapsed=elapsed, own=own, requested=requested, server=server)
        self._actions.send(message, to)

    def _wait(self, now: float) -> None:
        """Wait longer each time, and never in step with other machines that started with this one."""
        pause = min(FIRST_WAIT * 2 ** (self._tries - 1), LONGEST_WAIT)
        self.due = now + pause * self._random.uniform(0.75, 1.25)

    # -- messages -------------------------------------------------------------------------------------

    def take(self, data: bytes, now: float) -> None:
        """Take a datagram from port 68; what is not for this exchange is dropped."""
        reply = read(data, self._mac)
        if reply is None or reply.xid != self._question.xid:
            return
        if self.state is State.SELECTING:
            if reply.type is MessageType.OFFER and reply.lease:
                self._offer = reply.lease
                self._begin(State.REQUESTING, now)
                self.tick(now)
        elif self.state is not State.BOUND:
            self._answered(reply, now)

    def _answered(self, reply: Reply, now: float) -> None:
        if reply.type is MessageType.NAK:
            self._lose()
            self._begin(State.SELECTING, now)
            self.due = now + AGAIN * self._random.uniform(0.75, 1.25)
        elif reply.type is MessageType.ACK and reply.lease:
            self._bind(reply.lease, now)

    def _bind(self, lease: Lease, now: float) -> None:
        if self.lease is not None and self.lease.address != lease.address:
            self._lose()
        self.lease, self.state, self._bound_at = lease, State.BOUND, self._sent
        self.due = float("inf") if lease.seconds is None else self._sent + lease.renew
        self.due = max(self.due, now)
        self._actions.bound(lease)

    def _lose(self) -> None:
        if self.lease is not None:
            lease, self.lease = self.lease, None
            self._actions.lost(lease)
