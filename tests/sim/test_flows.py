"""UDP flows over a kernel of dice: whatever happens in whatever order, the shadow finds nothing wrong."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from appliance.net import contact, eagerness, flow, trains
from appliance.outcome import LEGAL, Cause, Drop, Stage
from tests.sim.flow_world import MOST_HELD, World

RUNS = 300
STEPS = 200

OF_SESSIONS = {Cause.CLIENT_EOF, Cause.ENDPOINT_EOF, Cause.CLIENT_RESET, Cause.ENDPOINT_RESET}
OF_CONNECTIONS = {Cause.DIAL_REFUSED, Cause.DIAL_TIMEOUT}
OF_TUNNELS = {Cause.AGENT_OFFLINE, Cause.AGENT_DENIED}
"""Causes that no flow has, those of connections that are opened, and those of agents."""


def seeds(runs: int) -> Iterator[int]:
    """Give the seeds of a simulation, or the one to replay."""
    if "SEED" in os.environ:
        yield int(os.environ["SEED"])
        return
    yield from range(runs)


def live_through(seed: int, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(seed)
    monkeypatch.setattr(contact, "Socket", world.kernel.socket)
    for _ in range(STEPS):
        world.step()
    world.finish()
    world.check_nothing_left()
    return world


def check_reached(ends: Counter[tuple[Stage, Cause]], drops: Counter[Drop]) -> None:
    """Hold that the dice come to every end, and to every drop."""
    wanted = {(stage, cause) for stage in (Stage.DIAL, Stage.RELAY) for cause in LEGAL[stage]}
    wanted -= {(stage, cause) for stage in Stage for cause in OF_SESSIONS | OF_CONNECTIONS | OF_TUNNELS}
    wanted -= {(Stage.DIAL, Cause.INTERNAL), (Stage.DIAL, Cause.SOURCE_UNAVAILABLE)}
    assert set(ends) == wanted
    assert set(drops) == set(Drop)


def test_flows_live_and_end_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datagrams arrive whole, in order, once, or are counted; flows end once, in time, and leave nothing."""
    monkeypatch.setattr(eagerness, "EVERY", 3)
    monkeypatch.setattr(trains, "PATIENCE", 5)
    monkeypatch.setattr(flow, "MOST_HELD_DATAGRAMS", MOST_HELD)
    ends: Counter[tuple[Stage, Cause]] = Counter()
    drops: Counter[Drop] = Counter()
    for seed in seeds(RUNS):
        try:
            world = live_through(seed, monkeypatch)
        except BaseException:
            print(f"replay with SEED={seed}")
            raise
        ends += world.ends
        drops += world.drops
    if "SEED" not in os.environ:
        check_reached(ends, drops)
