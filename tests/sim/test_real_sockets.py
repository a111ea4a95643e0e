"""The relay over the real kernel: TCP and unix pairs with small buffers, and peers that dawdle by dice."""

import os
import random
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from appliance.net.dial import Caller, Dialling
from appliance.net.pipes import PipePool
from appliance.net.reactor import Reactor
from appliance.net.relay import Relay
from appliance.net.session import Route, Session, Sessions
from appliance.net.sockets import Endpoint
from appliance.outcome import Cause, Stage
from tests.unit.net.loop import open_fds

RUNS = 24
SMALL = 20_000
TURNS = 100_000
"""More than any run needs; a stuck one ends here."""


def seeds() -> Iterator[int]:
    if "SEED" in os.environ:
        yield int(os.environ["SEED"])
    else:
        yield from range(RUNS)


@dataclass
class Peer:
    """One end: what it has to say, how lazily it speaks and reads, and what it heard."""

    dice: random.Random
    wire: socket.socket
    left: bytes
    heard: bytearray = field(default_factory=bytearray)
    done: bool = False

    def act(self) -> None:
        """Speak a bit, or read a bit, or do nothing."""
        act = self.dice.random()
        if act < 0.4 and self.left:
            most = self.dice.choice((1, 5000, 60_000, 500_000))
            self.left = self.left[self._said(self.left[:most]) :]
            if not self.left:
                self.wire.shutdown(socket.SHUT_WR)
        elif act < 0.8 and not self.done:
            self._hear(self.dice.choice((10, 5000, 200_000)))

    def _said(self, data: bytes) -> int:
        try:
            return self.wire.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def _hear(self, most: int) -> None:
        try:
            data = self.wire.recv(most, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self.heard += data
        self.done = not data


@dataclass
class At:
    """A dialer whose connection is open already."""

    connection: socket.socket

    def dial(self, caller: Caller) -> Dialling:
        return Here(caller, self.connection)


@dataclass
class Here:
    caller: Caller
    connection: socket.socket
    attempts: int = 1
    endpoint: Endpoint | None = None
    started: float = 0.0
    deadline: float = 0.0

    def go(self) -> None:
        family = int(self.connection.family)
        self.caller.dialled(self.connection, Endpoint(family, "/e", "unix:/e"), watched=False)

    def timed_out(self) -> None:
        raise AssertionError

    def abandon(self) -> None:
        raise AssertionError


def connected(family: socket.AddressFamily, dice: random.Random) -> tuple[socket.socket, socket.socket]:
    """Make a pair of sockets; with dice, their buffers are small."""
    if family == socket.AF_UNIX:
        pair = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            # Loopback's segments of 64 KiB do not fit small buffers: each would wait for a timer of 0.2 s.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
            one = socket.create_connection(listener.getsockname())
            pair = one, listener.accept()[0]
        for end in pair:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for end in pair:
        if dice.random() < 0.5:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    return pair


def await_events(reactor: Reactor, peers: tuple[Peer, Peer]) -> None:
    """Wait until a peer or the loop has something to do."""
    poll = select.poll()
    poll.register(reactor._epoll.fileno(), select.POLLIN)
    for peer in peers:
        wanted = (0 if peer.done else select.POLLIN) | (select.POLLOUT if peer.left else 0)
        if wanted:
            poll.register(peer.wire, wanted)
    assert poll.poll(20_000), "nobody can go on: bytes are held and nobody is woken for them"


def carry(seed: int, most_pipes: int) -> None:
    dice = random.Random(seed)
    family = dice.choice((socket.AF_INET, socket.AF_UNIX))
    faults: list[BaseException] = []
    ends: list[tuple[Stage, Cause | None, int, int]] = []

    def ended(session: Session) -> None:
        ends.append((session.stage, session.cause, session.bytes_up, session.bytes_down))

    reactor = Reactor(faults.append)
    pipes = PipePool(most_pipes)
    sessions = Sessions(1, ended)
    near, client = connected(family, dice)
    connection, far = connected(family, dice)
    route = Route("rule", "listener", At(connection), 3600.0, Relay(reactor, pipes), sessions)
    sizes = dice.choices((1, 3000, 300_000, 2_000_000), k=2)
    said = dice.randbytes(sizes[0]), dice.randbytes(sizes[1])
    with near, far:
        peers = Peer(dice, near, said[0]), Peer(dice, far, said[1])
        Session(route, client, "client").start()
        for _ in range(TURNS):
            if ends and all(peer.done for peer in peers):
                break
            await_events(reactor, peers)
            reactor.turn(0.0)
            for peer in peers:
                peer.act()
    assert not faults
    assert (bytes(peers[1].heard), bytes(peers[0].heard)) == said
    ((stage, cause, up, down),) = ends
    assert stage is Stage.RELAY
    assert cause in {Cause.CLIENT_EOF, Cause.ENDPOINT_EOF}
    assert (up, down) == tuple(sizes)
    assert not len(reactor)
    assert not len(reactor.timers)
    pipes.trim()
    assert not len(pipes)
    assert client.fileno() == connection.fileno() == -1
    reactor.close()


@pytest.mark.parametrize("most_pipes", [0, 8])
def test_bytes_arrive_as_they_were_sent(most_pipes: int) -> None:
    """Whatever the buffers and the pace: every byte both ways, then the end, once, and nothing is left."""
    before = open_fds()
    for seed in seeds():
        try:
            carry(seed, most_pipes)
        except BaseException:
            print(f"replay with SEED={seed}")
            raise
    assert open_fds() <= before
