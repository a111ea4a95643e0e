"""A crew under dice: agents come, leave and fall silent, sessions are opened, and each has one outcome."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from socket import socket

import msgspec

from appliance.net.sockets import Endpoint, Socket
from appliance.outcome import Cause
from appliance.tunnel.link import Link
from appliance.tunnel.opening import SLACK, Opening
from appliance.tunnel.pool import MOST_READY
from appliance.wire.messages import Bye, Failed, Open, Opened, Ping, Pong, framed
from tests.unit.tunnel.links import HEARTBEAT, Agent, Gateway, gateway

RUNS = 100
STEPS = 120
CONNECT_TIMEOUT = 3.0
TARGETS = ("192.0.2.9:1", "192.0.2.9:2", "192.0.2.9:3")


def seeds() -> Iterator[int]:
    """Give the seeds, or the one to replay."""
    if "SEED" in os.environ:
        yield int(os.environ["SEED"])
        return
    yield from range(RUNS)


class Opener(Opening):
    """A session: it keeps its outcome, and must have one only."""

    def __init__(self, world: "World") -> None:
        reactor, crew = world.gateway.at.reactor, world.gateway.crew
        super().__init__(reactor, crew, CONNECT_TIMEOUT, TARGETS[: world.dice.randint(1, 3)])
        self.world = world
        self.outcomes: list[Endpoint | Cause] = []
        self.orders = 0
        self.begun = reactor.now

    def order(self, to: str) -> Open:
        self.orders += 1
        return Open("0" * 26, "rule", "tcp", to, "192.0.2.1:1", "192.0.2.2:1", CONNECT_TIMEOUT, 60.0)

    def opened(self, link: Link, connection: Socket, endpoint: Endpoint) -> None:
        assert not link.is_over
        self.outcomes.append(endpoint)
        self._reactor.forget(connection.fileno(), connection.close)

    def failed(self, cause: Cause) -> None:
        self.outcomes.append(cause)

    def on_fault(self) -> None:
        raise AssertionError


class World:
    """A gateway's crew and what the dice do to it."""

    def __init__(self, seed: int, made: Gateway) -> None:
        self.dice = random.Random(seed)
        self.gateway = made
        self.silent: set[Agent] = set()
        self.openers: list[Opener] = []
        self.abandoned: set[Opener] = set()
        self.answered: set[socket] = set()

    @property
    def agents(self) -> list[Agent]:
        return [agent for agent in self.gateway.agents if not agent.link.is_over]

    def step(self) -> None:
        weights = {
            self.come: 1,
            self.attach: 6,
            self.open: 5,
            self.answer: 8,
            self.pass_time: 5,
            self.abandon: 1,
            self.cut: 1,
            self.fall_silent: 0.5,
            self.leave: 0.5,
            self.drop_channel: 1,
        }
        (act,) = self.dice.choices(list(weights), list(weights.values()))
        act()
        if self.dice.random() < 0.7:
            self.gateway.at.turn()
            self.check()

    # -- what the dice do -----------------------------------------------------------------------------

    def come(self) -> None:
        if len(self.agents) < 4:
            self.gateway.join()

    def attach(self) -> None:
        for agent in self.agents:
            if agent not in self.silent and len(agent.link.pool) < agent.link.pool.want:
                agent.attach()

    def open(self) -> None:
        for _ in range(self.dice.choice((1, 1, 3, 12))):
            self.openers.append(Opener(self))
            self.openers[-1].go()

    def answer(self) -> None:
        for agent in self.agents:
            for channel in agent.channels:
                if channel.fileno() >= 0 and channel not in self.answered and self.dice.random() < 0.5:
                    self._answer(channel)

    def _answer(self, channel: socket) -> None:
        channel.setblocking(False)
        try:
            header = channel.recv(2)
        except (BlockingIOError, ConnectionResetError):
            return
        if not header:
            channel.close()
            return
        self.answered.add(channel)
        order = msgspec.json.decode(channel.recv(int.from_bytes(header, "big")))
        assert order["to"] in TARGETS
        try:
            channel.send(framed(self.dice.choice((Opened(order["to"]), Failed("dial_refused")))))
            assert not channel.recv(1), "a channel is used twice"
        except OSError:  # nothing more for now, or it was given up
            pass

    def pass_time(self) -> None:
        self.gateway.at.clock.now += self.dice.choice((0.1, 0.5, HEARTBEAT / 2))
        self.gateway.at.turn()
        for agent in self.agents:
            for ping in () if agent in self.silent else agent.heard(Ping):
                agent.say(Pong(int(str(ping["number"]))))
        for opener in self.openers:  # as the session's deadline does
            if opener.waits and self.gateway.at.clock.now >= opener.deadline:
                opener.timed_out()

    def abandon(self) -> None:
        waiting = [opener for opener in self.openers if opener.waits]
        if waiting:
            opener = self.dice.choice(waiting)
            opener.abandon()
            self.abandoned.add(opener)

    def cut(self) -> None:
        if self.agents:
            agent = self.dice.choice(self.agents)
            agent.close()

    def fall_silent(self) -> None:
        if self.agents:
            self.silent.add(self.dice.choice(self.agents))

    def leave(self) -> None:
        if self.agents:
            agent = self.dice.choice(self.agents)
            if agent.control.fileno() >= 0:
                agent.say(Bye("drain"))

    def drop_channel(self) -> None:
        channels = [channel for agent in self.agents for channel in agent.channels if channel.fileno() >= 0]
        if channels:
            self.dice.choice(channels).close()

    # -- what must hold -------------------------------------------------------------------------------

    def check(self) -> None:
        crew = self.gateway.crew
        waiting = set(crew.waiting)
        assert len(waiting) == len(crew.waiting)
        for opener in self.openers:
            outcomes = 0 if opener in self.abandoned else 1
            assert len(opener.outcomes) == (0 if opener.waits else outcomes)
            assert opener.waits == (opener in waiting or opener in crew.opening)
            assert not (opener in waiting and opener in crew.opening)
        for agent in self.agents:
            assert len(agent.link.pool) <= agent.link.pool.want <= MOST_READY
            assert agent.link.load == 0
        assert set(crew.links) == {agent.link for agent in self.agents}
        assert all(not link.is_over for link in crew.opening.values())
        if waiting:
            assert not any(link.pool for link in crew.links if link.is_fresh and not link.is_leaving)

    def finish(self) -> None:
        """Give everybody the time to come to an end."""
        self.silent.update(self.agents)
        for _ in range(round((CONNECT_TIMEOUT + SLACK) * 4 * len(TARGETS))):
            self.gateway.at.clock.now += 0.5
            self.gateway.at.turn()
            self.pass_time()
        assert not any(opener.waits for opener in self.openers)
        assert not self.agents
        self.check()


def test_every_session_has_one_outcome() -> None:
    """Whatever agents do, in whatever order: one outcome each, channels used once, none of them left."""
    seen: Counter[str] = Counter()
    for seed in seeds():
        try:
            with gateway() as made:
                world = World(seed, made)
                for _ in range(STEPS):
                    world.step()
                world.finish()
        except BaseException:
            print(f"replay with SEED={seed}")
            raise
        outcomes = [outcome for opener in world.openers for outcome in opener.outcomes]
        seen.update("opened" if isinstance(each, Endpoint) else each.value for each in outcomes)
    if "SEED" not in os.environ:
        assert set(seen) == {"opened", "agent_offline", "dial_refused", "dial_timeout"}, seen
