"""The gateway's end of the tunnels, in one worker: doors, crews, links.

Theory of operation
-------------------
Each worker of a gateway has the control channels that are meant for it, and the data channels that belong to
those; workers share nothing but the state directory and the passages. An agent sees to it that every worker
of the gateway has a control channel of it, so a session is carried by the worker that accepted it.

What a session needs of a tunnel is a `net.dial.Dialer`: `ViaAgent`, which takes a ready data channel of the
rule's crew. From Opened on the channel is the session's connection like any other; with TLS it may come back.

Revoking takes effect within LOOK_AT_STATE seconds on what is connected, and at once on who connects.
"""

import secrets
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from appliance import __version__
from appliance.net.reactor import Reactor
from appliance.net.sockets import Sealed, Socket, peer_text
from appliance.observe.log import wall_clock
from appliance.outcome import Cause, Refusal
from appliance.ruleset import Agent, Encryption, Rule, Tunnel
from appliance.tunnel.authority import VALID, load_authority
from appliance.tunnel.carriage import ViaAgent
from appliance.tunnel.crew import Crew
from appliance.tunnel.door import Door, Stranger, Strangers
from appliance.tunnel.flow_carriage import FlowsViaAgent
from appliance.tunnel.link import Link
from appliance.tunnel.messages import Messages
from appliance.tunnel.passage import Passages
from appliance.tunnel.refusals import Refusals, Refused
from appliance.tunnel.state import REVOKED, State
from appliance.wire.messages import VERSION, Attach, Bye, Hello, Limit, MessageError, Renewed, Welcome

LOOK_AT_STATE: Final = 1.0
"""Seconds between two looks at what was revoked."""

MOST_LINKS: Final = 512
"""Control channels of one name: an agent of 256 workers has as many to a gateway of one."""

NOTE_SEEN: Final = 60.0
"""Seconds between two notes of who is here."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all workers of a generation have of the tunnels, made before they are forked."""

    tunnel: Tunnel
    agents: tuple[Agent, ...]
    context: ssl.SSLContext
    state: State
    passages: Passages


class Journal(Protocol):
    """Who writes down what happens to agents."""

    def agent_connected(self, link: Link) -> None:
        """An agent is here."""

    def agent_lost(self, link: Link, why: str, *, in_order: bool) -> None:
        """An agent's control channel has ended."""

    def tunnel_refused(self, refused: Refused) -> None:
        """A stranger, or many, were refused."""

    def certificate_renewed(self, agent: str, serial: str) -> None:
        """An agent has got a new certificate."""

    def trouble(self, message: str, error: str) -> None:
        """The state directory cannot be used for the moment."""


class Gateway:
    """The tunnels of one worker."""

    def __init__(self, reactor: Reactor, setup: Setup, worker: int, workers: int, journal: Journal) -> None:
        self.reactor = reactor
        self.context = setup.context
        self.worker = worker
        self.workers = workers
        self.strangers = Strangers(self)
        self.crews = {
            agent.name: Crew(
                reactor,
                agent.name,
                None if agent.allow_to is None else [str(allowed) for allowed in agent.allow_to],
                agent.encryption,
            )
            for agent in setup.agents
        }
        self.links: dict[str, Link] = {}
        self._past: set[Link] = set()
        """Those that have ended, and still have sessions or flows."""
        self._setup = setup
        self._state = setup.state
        self._revoked = Path(self._state.path, REVOKED)
        self._journal = journal
        self._refusals = Refusals(reactor, journal.tunnel_refused)
        self._arrivals = setup.passages.receive(reactor, worker, self._arrived)
        self._doors: list[Door] = []
        self._revoked_at = self._state_time()
        self._has_changed = False
        self._noted_at = reactor.now
        self._is_draining = False
        reactor.arm(reactor.now + LOOK_AT_STATE, self)

    def listen(self, bound: socket.socket) -> None:
        """Accept at one of the tunnel's addresses."""
        self._doors.append(Door(self, bound))

    def dialer(self, rule: Rule, offset: int) -> ViaAgent:
        """Give the way to a rule's endpoints."""
        assert rule.via is not None
        return ViaAgent(self.reactor, self.crews[rule.via], rule, offset)

    def flows(
        self, rule: Rule, offset: int, next_id: Callable[[float], str], buffer: memoryview
    ) -> FlowsViaAgent:
        """Give the way of a rule's flows; channels read into `buffer`."""
        assert rule.via is not None
        return FlowsViaAgent(self.reactor, self.crews[rule.via], rule, offset, next_id, buffer)

    # -- as the door calls it -------------------------------------------------------------------------

    def pass_on(self, connection: Socket, worker: int) -> bool:
        """Give a connection to the worker it is meant for."""
        return self._setup.passages.give(worker, connection)

    def _arrived(self, connection: Socket) -> None:
        try:
            peer = peer_text(connection.getpeername())
        except OSError:  # it is gone already
            connection.close()
            return
        if self._is_draining:
            connection.close()
        else:
            self.strangers.admit(connection, peer, is_meant=True)

    def is_revoked(self, serial: str) -> bool:
        """Say whether a certificate was taken back."""
        return self._state.is_revoked(serial)

    def refused(self, peer: str, refusal: Refusal, agent: str = "", error: str = "") -> None:
        """Report a refusal, alone or with others."""
        self._refusals.add(Refused(peer, refusal, agent, error))

    def hello(self, stranger: Stranger, hello: Hello, messages: Messages, name: str, serial: str) -> None:
        """Make a link of a connection that has said Hello."""
        crew = self.crews[name]
        if self.is_revoked(serial):  # since it was shown: links are looked at only when a revocation comes
            stranger.refuse(Refusal.REVOKED, "this agent's certificate was revoked")
            return
        if hello.version != VERSION:
            stranger.refuse(Refusal.VERSION, f"this gateway speaks version {VERSION} of the protocol")
            return
        rival = crew.rival_of(hello)
        if rival is not None and rival.hello.generation >= hello.generation:
            stranger.refuse(Refusal.STALE, "a newer control channel of this agent is there", retry=True)
            return
        if rival is None and len(crew.links) >= MOST_LINKS:
            stranger.refuse(Refusal.FULL, "agents of this name have too many control channels", retry=True)
            return
        stranger.known()
        messages.limit = Limit.AGENT
        link = Link(
            self.reactor,
            crew,
            hello,
            serial,
            stranger.peer,
            messages,
            self._setup.tunnel.heartbeat,
            self,
            name=secrets.token_hex(8),
            secret=secrets.token_hex(32),
        )
        self.reactor.hand_over(messages.connection.fileno(), link)
        self.links[link.name] = link
        crew.join(link)
        self._welcome(link, crew, messages)
        if rival is not None:
            rival.say(Bye("replaced"))
            rival.end("replaced by a newer control channel", in_order=True)
        self._note_seen(link)
        self._journal.agent_connected(link)

    def _welcome(self, link: Link, crew: Crew, messages: Messages) -> None:
        try:
            messages.say(
                Welcome(
                    version=VERSION,
                    link=link.name,
                    secret=link.secret,
                    worker=self.worker,
                    workers=self.workers,
                    heartbeat=self._setup.tunnel.heartbeat,
                    encryption=crew.encryption.value,
                    ready=link.pool.want,
                    allow_to=crew.allow_to,
                    software=__version__,
                )
            )
        except (OSError, MessageError) as error:  # MessageError: thousands of targets
            link.end(str(error))

    def attach(self, attach: Attach, connection: Socket, name: str) -> Refusal | None:
        """Take a data channel; `name` is the agent's where it has shown a certificate on this connection."""
        link = self.links.get(attach.link)
        if link is None or not link.admits(attach):
            return Refusal.UNKNOWN_LINK
        if name != link.crew.name and (name or link.crew.encryption is not Encryption.NONE):
            return Refusal.PROTOCOL
        if isinstance(connection, Sealed) and connection.pending():  # what epoll would never tell of
            return Refusal.PROTOCOL
        if link.pool.is_full:
            return Refusal.FULL
        link.attach(connection)
        return None

    # -- as a link calls it ---------------------------------------------------------------------------

    def lost(self, link: Link, why: str, *, in_order: bool) -> None:
        """A link has ended."""
        self.links.pop(link.name, None)
        if link.load:
            self._past.add(link)
        self._note_seen(link)
        self._journal.agent_lost(link, why, in_order=in_order)

    def renew(self, link: Link, request: str) -> None:
        """Make an agent a new certificate."""
        if not link.crew.may_renew():
            self.refused(link.peer, Refusal.PROTOCOL, link.crew.name, "it asks for certificates all the time")
            return
        try:
            before = self._state.record_of(link.serial)
            valid = VALID if before is None else before.expires - before.issued
            authority = load_authority(self._state)
            made = authority.renew(link.crew.name, link.serial, request, wall_clock(), valid)
        except (OSError, ValueError) as error:
            self._journal.trouble(f"cannot renew the certificate of {link.crew.name}", str(error))
            return
        link.say(Renewed(made.certificate, made.record.expires))
        self._journal.certificate_renewed(link.crew.name, made.record.serial)

    # -- now and then ---------------------------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """Look at what was revoked, and note who is here."""
        self.reactor.arm(now + LOOK_AT_STATE, self)
        self._past = {link for link in self._past if link.load}
        changed = self._state_time()
        # A second change within a tick of the kernel's clock has the time of the first: look twice.
        if changed != self._revoked_at or self._has_changed:
            self._has_changed = changed != self._revoked_at
            self._revoked_at = changed
            self._cut_revoked()
        if now - self._noted_at >= NOTE_SEEN:
            self._noted_at = now
            for link in self.links.values():
                self._note_seen(link)

    def _state_time(self) -> int:
        try:
            return self._revoked.stat().st_mtime_ns
        except OSError:
            return 0

    def _cut_revoked(self) -> None:
        """End the links of agents that were revoked, with all that they carry."""
        for link in (*self.links.values(), *self._past):
            if self.is_revoked(link.serial):
                link.end("revoked")
                for carried in (*link.sessions, *link.flows):
                    carried.end(Cause.ENDPOINT_RESET)
                self.refused(link.peer, Refusal.REVOKED, link.crew.name)

    def _note_seen(self, link: Link) -> None:
        try:
            self._state.note_seen(link.serial, wall_clock(), link.peer, link.hello.software)
        except OSError as error:
            self._journal.trouble("cannot note who was here", str(error))

    def on_fault(self) -> None:
        """A fault in looking has been reported."""

    # -- its end --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Let no more in, and send the agents elsewhere; what they carry goes on."""
        self._is_draining = True
        for door in self._doors:
            door.close()
        self._doors.clear()
        self._arrivals.close()
        self.strangers.close()
        for link in tuple(self.links.values()):
            link.say(Bye("drain"))

    def live(self) -> Iterable[Link]:
        """Give the links there are."""
        return self.links.values()
