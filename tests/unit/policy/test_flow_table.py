"""The flow table: which flow ends for a new one, against a model that looks at all of them each time."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.policy import flow_table
from appliance.policy.flow_table import FlowTable, LeastRecent, RuleFlows
from appliance.policy.tally import Tally, tally_bytes

NAMES = ("dns", "sip", "game")


@dataclass(eq=False)
class Flow:
    """What the table sees of one, and whose it is."""

    client: str
    active: float


def tally(workers: int = 1, worker: int = 0, memory: bytearray | None = None) -> Tally:
    return Tally(memoryview(memory or bytearray(tally_bytes(workers, 256))), workers, worker)


@dataclass
class World:
    """A table, a clock that stands still now and then, and who was ended for whom."""

    table: FlowTable[Flow]
    now: float = 0.0
    ended: list[Flow] = field(default_factory=list)

    def admit(self, rule: RuleFlows[Flow], client: str) -> Flow:
        flow = Flow(client, self.now)
        rule.admit(flow, client, self.end)
        return flow

    def end(self, flow: Flow) -> None:
        self.rule_of(flow).remove(flow, flow.client)
        self.ended.append(flow)

    def rule_of(self, flow: Flow) -> RuleFlows[Flow]:
        return next(rule for rule in self.table.rules.values() if flow in rule.live)

    def flows(self) -> list[Flow]:
        return [flow for rule in self.table.rules.values() for flow in rule.live]


def test_without_caps_nothing_ends() -> None:
    """A rule that names none has as many flows as the worker may have."""
    world = World(FlowTable(100, tally()))
    for number in range(100):
        world.admit(world.table.rule("dns"), str(number))
    assert not world.ended
    assert world.table.count == len(world.table.rule("dns").live) == 100


def test_a_rule_is_one_object_for_all_its_listeners() -> None:
    """Two listeners of a rule count together."""
    table: FlowTable[Flow] = FlowTable(100, tally())
    assert table.rule("dns", 3, 1) is table.rule("dns", 3, 1)
    assert table.rule("dns") is not table.rule("sip")


def test_the_cap_of_a_rule_ends_its_least_recently_used() -> None:
    """Not the oldest one: the one in which nothing has passed for longest."""
    world = World(FlowTable(100, tally()))
    rule = world.table.rule("dns", 3)
    flows = [world.admit(rule, str(number)) for number in range(3)]
    for when, flow in enumerate((flows[1], flows[0], flows[2]), 1):
        flow.active = when
    world.now = 9.0
    world.admit(rule, "new")
    assert world.ended == [flows[1]]
    world.admit(rule, "newer")
    assert world.ended == [flows[1], flows[0]]


def test_the_cap_of_a_client_ends_one_of_its_own() -> None:
    """Whoever opens many flows loses his own, although others have rested for longer."""
    world = World(FlowTable(100, tally()))
    rule = world.table.rule("dns", 100, 2)
    world.admit(rule, "quiet")
    world.now = 1.0
    first, second = (world.admit(rule, "loud") for _ in range(2))
    first.active = 2.0
    world.admit(rule, "loud")
    assert world.ended == [second]
    assert Counter(flow.client for flow in rule.live) == {"quiet": 1, "loud": 2}


def test_the_cap_of_the_worker_takes_from_the_largest_rule() -> None:
    """A flood at one rule costs the others none of theirs, even if these have rested for longest."""
    world = World(FlowTable(10, tally()))
    quiet = [world.admit(world.table.rule("sip"), str(number)) for number in range(3)]
    for number in range(50):
        world.now += 1
        world.admit(world.table.rule("dns"), str(number))
    assert [flow.client for flow in world.ended] == [str(number) for number in range(43)]
    assert list(world.table.rule("sip").live) == quiet
    assert world.table.count == 10


def test_a_small_rule_that_grows_takes_from_the_large_one() -> None:
    """The new flow's own rule gives one up only once it is the largest."""
    world = World(FlowTable(4, tally()))
    for name in ("dns", "dns", "dns", "sip"):
        world.admit(world.table.rule(name), "client")
    world.admit(world.table.rule("sip"), "client")
    assert {name: len(rule.live) for name, rule in world.table.rules.items()} == {"dns": 2, "sip": 2}


def test_caps_count_over_workers() -> None:
    """Two workers have together what the rule allows; one ends no flows but its own."""
    memory = bytearray(tally_bytes(2, 256))
    one, other = (World(FlowTable(100, tally(2, worker, memory))) for worker in range(2))
    rules = [world.table.rule("dns", 4, 3) for world in (one, other)]
    mine = [one.admit(rules[0], client) for client in "aab"]
    other.admit(rules[1], "c")
    other.admit(rules[1], "d")
    assert [flow.client for flow in other.ended] == ["c"]
    one.admit(rules[0], "e")
    assert one.ended == [mine[0]]
    assert one.table.count + other.table.count == 4


def test_a_client_counts_over_workers() -> None:
    """His flows at another worker count too, and here his own are ended for a new one."""
    memory = bytearray(tally_bytes(2, 256))
    one, other = (World(FlowTable(100, tally(2, worker, memory))) for worker in range(2))
    rules = [world.table.rule("dns", None, 2) for world in (one, other)]
    one.admit(rules[0], "a")
    first = other.admit(rules[1], "a")
    other.admit(rules[1], "a")
    assert other.ended == [first]


def test_where_others_have_them_all_there_is_one_too_many() -> None:
    """A worker that has none to give up takes the new client all the same."""
    memory = bytearray(tally_bytes(2, 256))
    one, other = (World(FlowTable(100, tally(2, worker, memory))) for worker in range(2))
    for _ in range(2):
        one.admit(one.table.rule("dns", 2), "a")
    other.admit(other.table.rule("dns", 2), "b")
    assert not other.ended
    one.admit(one.table.rule("dns", 2), "c")
    assert len(one.ended) == 2, "at the next one it is put right"


# -- against a model ------------------------------------------------------------------------------


def expected(world: World, rule: RuleFlows[Flow], client: str) -> list[float]:
    """Say when those that end for a new flow were last used, by looking at all flows."""
    live = {name: list(each.live) for name, each in world.table.rules.items()}
    mine, ended = live[rule.name], []

    def end_one_of(flows: list[Flow], among: Callable[[Flow], bool] = lambda _: True) -> None:
        oldest = min(filter(among, flows), key=lambda flow: flow.active)
        flows.remove(oldest)
        ended.append(oldest.active)

    while sum(flow.client == client for flow in mine) >= rule.most_per_client:
        end_one_of(mine, lambda flow: flow.client == client)
    while len(mine) >= rule.most:
        end_one_of(mine)
    while sum(map(len, live.values())) >= world.table.most:
        end_one_of(max(live.values(), key=len))
    return ended


caps = st.one_of(st.none(), st.integers(1, 5))


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 12), st.lists(st.tuples(caps, caps), min_size=3, max_size=3))
def test_the_least_recently_used_ends_whatever_came_before(
    seed: int, most: int, limits: list[tuple[int | None, int | None]]
) -> None:
    """Flows come, are used and end in any order: each that is ended is one the model would end."""
    dice, world = random.Random(seed), World(FlowTable(most, tally()))
    rules = [world.table.rule(name, *limit) for name, limit in zip(NAMES, limits, strict=True)]
    for _ in range(60):
        world.now += dice.choice((0.0, 0.5))
        flows = world.flows()
        act = dice.random()
        if act < 0.3 and flows:
            dice.choice(flows).active = world.now
        elif act < 0.4 and flows:
            world.end(dice.choice(flows))
            world.ended.clear()
        else:
            rule, client = dice.choice(rules), dice.choice("abc")
            wanted = expected(world, rule, client)
            world.admit(rule, client)
            assert [flow.active for flow in world.ended] == wanted
            world.ended.clear()
        check(world, rules)


def check(world: World, rules: list[RuleFlows[Flow]]) -> None:
    assert world.table.count == len(world.flows()) <= world.table.most
    for rule in rules:
        assert len(rule.live) <= rule.most
        assert all(n <= rule.most_per_client for n in Counter(flow.client for flow in rule.live).values())


@given(st.integers(0, 2**32))
def test_all_that_was_counted_is_taken_back(seed: int) -> None:
    """When the last flow has ended, no cap counts anything any more."""
    dice, memory = random.Random(seed), bytearray(tally_bytes(1, 256))
    world = World(FlowTable(8, tally(memory=memory)))
    for _ in range(30):
        world.admit(world.table.rule(dice.choice(NAMES), 5, 2), dice.choice("abc"))
    for flow in world.flows():
        world.end(flow)
    assert not world.table.count
    counts = memoryview(memory).cast("Q")[1 + 256 :]
    assert not any(counts)


# -- the order -------------------------------------------------------------------------------------


def test_nobody_is_first_of_nobody() -> None:
    """An empty set has no first one, also when it had some."""
    members: dict[Flow, None] = {}
    order = LeastRecent(members)
    assert order.first() is None
    flow = Flow("a", 1.0)
    members[flow] = None
    assert order.first() is flow
    members.clear()
    assert order.first() is None


def test_of_equals_the_older_one_is_first() -> None:
    """Flows of one moment end in the order in which they came."""
    flows = [Flow(str(number), 1.0) for number in range(5)]
    members = dict.fromkeys(flows)
    order, came = LeastRecent(members), []
    while (first := order.first()) is not None:
        came.append(first)
        del members[first]
    assert came == flows


def test_many_evictions_take_one_sorting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sorted anew as long as there are flows that have not moved."""
    sorts = 0

    def counting(flow: Flow) -> float:
        nonlocal sorts
        sorts += 1
        return flow.active

    flows = [Flow(str(number), float(number)) for number in range(1000)]
    members = dict.fromkeys(flows)
    monkeypatch.setattr(flow_table, "_active", counting)
    order = LeastRecent(members)
    for now in range(1000, 1500):
        first = order.first()
        assert first is flows[now - 1000]
        del members[first]
        members[Flow("new", float(now))] = None
    assert sorts == 1000
