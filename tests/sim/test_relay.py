"""The relay over a kernel of dice: whatever happens in whatever order, the shadow finds nothing wrong."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from appliance.net import relay
from appliance.outcome import Cause
from tests.sim.world import SMALL_COPY, SMALL_FROM, SMALL_LEAST, World

RUNS = 400
STEPS = 300


def seeds(runs: int) -> Iterator[int]:
    """Give the seeds of a simulation, or the one to replay."""
    if "SEED" in os.environ:
        yield int(os.environ["SEED"])
        return
    yield from range(runs)


def live_through(seed: int, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(seed)
    monkeypatch.setattr(relay, "os", world.kernel)
    for _ in range(STEPS):
        world.step()
    world.finish()
    for pair in world.pairs:
        world.check_end(pair)
    world.check_nothing_left()
    return world


def test_sessions_live_and_end_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes arrive in order, held ones are bounded and push back, each session ends once, nothing is left."""
    monkeypatch.setattr(relay, "COPY_BYTES", SMALL_COPY)
    monkeypatch.setattr(relay, "SPLICE_FROM", SMALL_FROM)
    monkeypatch.setattr(relay, "SPLICE_LEAST", SMALL_LEAST)
    causes: Counter[Cause | None] = Counter()
    for seed in seeds(RUNS):
        try:
            world = live_through(seed, monkeypatch)
        except BaseException:
            print(f"replay with SEED={seed}")
            raise
        causes.update(pair.cause for pair in world.pairs)
    if "SEED" not in os.environ:
        wanted = {Cause.CLIENT_EOF, Cause.ENDPOINT_EOF, Cause.CLIENT_RESET, Cause.ENDPOINT_RESET}
        assert set(causes) == wanted | {Cause.IDLE_TIMEOUT}, "the dice must reach every end"
