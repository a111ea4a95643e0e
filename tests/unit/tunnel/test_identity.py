"""An agent's identity: when its certificate is renewed, and what becomes of the answer."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from appliance.tunnel import identity
from appliance.tunnel.authority import Authority, open_authority
from appliance.tunnel.identity import LOOK, Identity
from appliance.tunnel.join import Join
from appliance.tunnel.state import State
from appliance.wire.messages import Renew, Renewed
from tests.unit.net.loop import Loop, loop

if TYPE_CHECKING:
    from appliance.tunnel.agent import Agent
    from appliance.tunnel.home import Home

LIFE = 90 * 86400.0


@dataclass
class Wall:
    """The wall clock, moved by hand."""

    now: float = 1.8e9

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class World:
    """The identity's agent, its home, and the channel of it; what was said and told."""

    at: Loop
    wall: Wall
    authority: Authority
    identity: Identity
    said: list[Renew] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    is_up: bool = True

    def __post_init__(self) -> None:
        self.reactor = self.at.reactor
        self.journal = self
        self.identity.serve(cast("Agent", self), [cast("Home", self)])

    @property
    def channel(self) -> "World | None":
        return self if self.is_up else None

    def say(self, message: Renew) -> None:
        self.said.append(message)

    def certificate_renewed(self, name: str, serial: str) -> None:
        del serial
        self.told.append(f"renewed {name}")

    def trouble(self, message: str, error: str) -> None:
        self.told.append(f"{message}: {error}")

    def at_wall(self, now: float) -> None:
        """Have it look at a moment of the wall clock."""
        self.wall.now = now
        self.at.clock.now += LOOK + 0.1
        self.at.turn()

    def answer(self, request: Renew) -> Renewed:
        """Make the gateway's answer."""
        issued = self.authority.renew("office", "1", request.request, self.wall.now, LIFE)
        return Renewed(issued.certificate, issued.record.expires)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    wall = Wall()
    monkeypatch.setattr(identity, "wall_clock", wall)
    authority = open_authority(State(f"{tmp_path}/state"))
    issued = authority.enrol("office", wall.now, LIFE)
    join = Join(
        name="office",
        gateways=("127.0.0.1:7443",),
        ca=authority.certificate,
        certificate=issued.certificate,
        key=issued.key,
        expires=issued.record.expires,
    )
    with loop() as at:
        yield World(at, wall, authority, Identity(join, None, None))


def test_nothing_is_asked_for_while_there_is_time(world: World) -> None:
    """Until a third of its life is left the certificate stays."""
    start = world.wall.now
    world.at_wall(start + LIFE * 0.66)
    assert not world.said
    world.at_wall(start + LIFE * 0.67)
    assert len(world.said) == 1


def test_the_answer_is_used_and_told(world: World) -> None:
    """The new certificate serves the next connections, and its life begins anew."""
    before = world.identity.context
    world.at_wall(world.wall.now + LIFE * 0.7)
    world.identity.renewed(world.answer(world.said[0]))
    assert world.told == ["renewed office"]
    assert world.identity.context is not before
    world.at_wall(world.wall.now + LIFE * 0.6)
    assert len(world.said) == 1
    world.at_wall(world.wall.now + LIFE * 0.1)
    assert len(world.said) == 2


def test_without_a_channel_it_is_asked_for_later(world: World) -> None:
    """While no gateway can be asked nothing happens; it is asked once one is there, even after expiry."""
    world.is_up = False
    world.at_wall(world.wall.now + LIFE * 0.9)
    assert not world.said
    world.is_up = True
    world.at_wall(world.wall.now + LIFE * 0.2)
    assert len(world.said) == 1


def test_an_answer_that_nobody_asked_for_changes_nothing(world: World) -> None:
    """A gateway cannot push a certificate upon an agent."""
    before = world.identity.context
    world.identity.renewed(Renewed("", 0.0))
    assert world.identity.context is before
    assert not world.told


def test_an_answer_of_another_key_is_not_used(world: World) -> None:
    """A certificate that does not fit the key is told of, the old one stays, and it is asked for again."""
    before = world.identity.context
    world.at_wall(world.wall.now + LIFE * 0.7)
    other = world.authority.enrol("office", world.wall.now, LIFE)
    world.identity.renewed(Renewed(other.certificate, other.record.expires))
    assert [text.split(":")[0] for text in world.told] == ["the new certificate cannot be used"]
    assert world.identity.context is before
    world.at_wall(world.wall.now + 1.0)
    assert len(world.said) == 2
    assert world.said[0] != world.said[1]


def test_nonsense_is_not_used(world: World) -> None:
    """An answer that is no certificate is told of, and the old one stays."""
    before = world.identity.context
    world.at_wall(world.wall.now + LIFE * 0.7)
    world.identity.renewed(msgspec.structs.replace(world.answer(world.said[0]), certificate="nonsense"))
    assert len(world.told) == 1
    assert world.identity.context is before
