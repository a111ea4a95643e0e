"""Links whose agent is the test: real socket pairs, a clock moved by hand."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from appliance.net.reactor import IN
from appliance.net.sockets import Sealed
from appliance.ruleset import Encryption
from appliance.tunnel.crew import Crew
from appliance.tunnel.link import Link, proof_of
from appliance.tunnel.messages import Messages
from appliance.tunnel.pool import Ready
from appliance.wire.messages import VERSION, Attach, Hello, Limit, framed, length_of
from tests.unit.net.loop import Loop, loop, open_fds

HEARTBEAT = 2.0
SECRET = "ab" * 32


class Passing(Sealed, socket.socket):
    """A plain socket that passes for a sealed one, as a channel is that may serve several sessions."""

    is_pending = False

    def pending(self) -> bool:
        return self.is_pending

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        self.is_pending = False
        return super().recv(bufsize, flags)


@dataclass(eq=False)
class Taker:
    """A session that wants a channel, and keeps it."""

    crew: Crew
    got: list[Ready] = field(default_factory=list)
    tries: int = 0

    def take(self, channel: Ready) -> None:
        self.got.append(channel)

    def try_again(self) -> None:
        self.tries += 1
        self.crew.request(self)

    def close(self) -> None:
        for channel in self.got:
            channel.close()


@dataclass(eq=False)
class Agent:
    """The agent's end of one link, and of the data channels that it has made."""

    at: Loop
    control: socket.socket
    link: Link
    channels: list[socket.socket] = field(default_factory=list)
    number: int = 0

    def say(self, message: msgspec.Struct) -> None:
        self.control.sendall(framed(message))
        self.at.turn()

    def heard(self, kind: type | None = None) -> list[dict[str, object]]:
        """Give what the gateway has said since the last look."""
        found: list[dict[str, object]] = []
        self.control.setblocking(False)
        with suppress(BlockingIOError, ConnectionResetError):
            while header := self.control.recv(2):
                found.append(msgspec.json.decode(self.control.recv(length_of(header, Limit.GATEWAY))))
        if kind is None:
            return found
        tag = kind.__name__.lower()
        return [message for message in found if message["type"] == tag]

    def attach(self, *, is_new: bool = True, sealed: bool = False) -> socket.socket:
        """Make a data channel; give its agent's end."""
        self.number += 1
        assert self.link.admits(attach_of(self.link, self.number))
        ours, theirs = socket.socketpair()
        if sealed:
            theirs = Passing(fileno=theirs.detach())
        self.at.reactor.watch(theirs.fileno(), IN, self)
        self.link.attach(theirs, is_new=is_new)
        self.channels.append(ours)
        return ours

    def on_event(self, events: int) -> None:
        raise AssertionError(f"{events:#x} for a channel that was handed over")

    def on_fault(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self.control.close()
        for channel in self.channels:
            channel.close()


def attach_of(link: Link, number: int, secret: str = SECRET) -> Attach:
    """Make the Attach of a link's data channel."""
    return Attach(version=VERSION, link=link.name, number=number, proof=proof_of(secret, link.name, number))


@dataclass
class Gateway:
    """A crew, its links, and what was reported of them."""

    at: Loop
    crew: Crew
    agents: list[Agent] = field(default_factory=list)
    ended: list[tuple[Link, str, bool]] = field(default_factory=list)
    renewals: list[str] = field(default_factory=list)
    takers: list[Taker] = field(default_factory=list)

    def lost(self, link: Link, why: str, *, in_order: bool) -> None:
        self.ended.append((link, why, in_order))

    def renew(self, link: Link, request: str) -> None:
        del link
        self.renewals.append(request)

    def join(self) -> Agent:
        """Have another agent join."""
        ours, theirs = socket.socketpair()
        count = len(self.agents)
        hello = Hello(
            version=VERSION, instance=f"{count:032x}", generation=1, worker=0, workers=1, software=""
        )
        reactor = self.at.reactor
        link = Link(
            reactor,
            self.crew,
            hello,
            "1",
            "192.0.2.1:1",
            Messages(reactor, theirs, Limit.AGENT),
            HEARTBEAT,
            self,
            name=f"{count:016x}",
            secret=SECRET,
        )
        reactor.watch(theirs.fileno(), IN, link)
        self.crew.join(link)
        self.agents.append(Agent(self.at, ours, link))
        return self.agents[-1]

    def taker(self) -> Taker:
        self.takers.append(Taker(self.crew))
        return self.takers[-1]

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a turn for each quarter of a second."""
        for _ in range(round(seconds * 4)):
            self.at.clock.now += 0.25
            self.at.turn()

    def close(self) -> None:
        for agent in self.agents:
            agent.link.end("the test is over")
            agent.close()
        for taker in self.takers:
            taker.close()
        self.at.turn()


@contextmanager
def gateway() -> Iterator[Gateway]:
    """Make a gateway without agents; nothing of it is left."""
    before = open_fds()
    with loop() as at:
        made = Gateway(at, Crew(at.reactor, "office", None, Encryption.TLS))
        try:
            yield made
        finally:
            made.close()
    assert open_fds() == before
