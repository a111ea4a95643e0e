"""Which UDP flows a worker may have, and which one ends when there is no room for a new one.

Three caps, each of which ends the *least recently used* flow that counts under it: that of a rule, that of
one client of a rule, and that of the worker, whose file descriptors all rules share. At the last one it is
the rule with the most flows that gives one up: a flood of invented clients at one rule costs another one
nothing, as long as that has no more flows than the flooded one. (Which of two is flooded cannot be told from
their numbers; a rule of many quiet clients wants `max_flows` on the others.)

What was used last is known from each flow's `active`, which every datagram sets. Keeping the flows in that
order would cost a datagram 0.1 us, and is needed only at a cap. So the order is taken then: the flows are
sorted once, and given up from the front, passing over those that have ended or moved since. A flow that has
not moved since the sorting is older than all that have, so each is the least recently used one indeed; when
none is left, they are sorted anew. Each sorting costs n log n and serves as many evictions as there are flows
that rest, so an eviction costs log n.

Pure: what a flow is beyond `active` is not known here, and time comes with it.
"""

from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

from appliance.policy.tally import Tally


class Used(Protocol):
    """A flow, as the table sees it; compared by identity."""

    active: float
    """When a datagram last passed either way, monotonic seconds."""


F = TypeVar("F", bound=Used)

NO_CAP: Final = 1 << 62


class LeastRecent(Generic[F]):
    """The members of a set, the least recently used first."""

    __slots__ = ("_members", "_order")

    def __init__(self, members: dict[F, None]) -> None:
        """`members` is shared with the owner, who adds and takes away; of equals the older one is first."""
        self._members = members
        self._order: list[tuple[float, F]] = []
        """As sorted last, the first at the end."""

    def shrank(self) -> None:
        """Let go of members that have left, once they are the most of those sorted."""
        if len(self._order) > 2 * len(self._members):
            self._order.clear()

    def first(self) -> F | None:
        """Give the least recently used member; None of an empty set."""
        if not self._members:
            self._order.clear()
            return None
        while True:
            while self._order:
                active, member = self._order[-1]
                if member in self._members and member.active == active:
                    return member
                self._order.pop()
            by_use = sorted(self._members, key=_active)
            self._order = [(member.active, member) for member in reversed(by_use)]


def _active(flow: Used) -> float:
    return flow.active


class RuleFlows(Generic[F]):
    """One rule's flows in this worker."""

    __slots__ = (
        "_clients",
        "_key",
        "_oldest",
        "_table",
        "is_capped",
        "live",
        "most",
        "most_per_client",
        "name",
    )

    def __init__(
        self, table: "FlowTable[F]", name: str, most: int | None, most_per_client: int | None
    ) -> None:
        self._table = table
        self._clients: dict[Hashable, tuple[dict[F, None], LeastRecent[F]]] = {}
        """The flows of each client, where there is a cap on them."""
        self._key = hash(("rule", name))
        self.name = name
        self.most = NO_CAP if most is None else most
        self.most_per_client = NO_CAP if most_per_client is None else most_per_client
        self.is_capped = most is not None or most_per_client is not None
        self.live: dict[F, None] = {}
        """A set that keeps its order."""
        self._oldest = LeastRecent(self.live)

    def admit(self, flow: F, client: Hashable, end: Callable[[F], None]) -> None:
        """Count a new flow, having others ended until it is within every cap.

        `client` is its address without the port. `end` must `remove` the flow it is given. With several
        workers a cap counts what all of them have, but this one can end no flows but its own: where the
        others have them all, the new flow is one too many, and they end one of theirs at their next.
        """
        table = self._table
        if self.is_capped:
            self._make_room_within_rule(client, end)
        while table.count >= table.most and (oldest := table.largest().oldest()) is not None:
            end(oldest)
        self.live[flow] = None
        table.count += 1
        if self.is_capped:
            self._count(flow, client)

    def _make_room_within_rule(self, client: Hashable, end: Callable[[F], None]) -> None:
        tally = self._table.tally
        while (mine := self._clients.get(client)) and (
            tally.total(self._client_key(client)) >= self.most_per_client
        ):
            oldest_of_client = mine[1].first()
            assert oldest_of_client is not None
            end(oldest_of_client)
        while tally.total(self._key) >= self.most and (oldest := self.oldest()) is not None:
            end(oldest)

    def oldest(self) -> F | None:
        """Give the least recently used flow."""
        return self._oldest.first()

    def _client_key(self, client: Hashable) -> int:
        return hash(("client", self.name, client))

    def _count(self, flow: F, client: Hashable) -> None:
        self._table.tally.add(self._key, 1)
        if self.most_per_client < NO_CAP:
            if client not in self._clients:
                members: dict[F, None] = {}
                self._clients[client] = members, LeastRecent(members)
            self._clients[client][0][flow] = None
            self._table.tally.add(self._client_key(client), 1)

    def remove(self, flow: F, client: Hashable) -> None:
        """Count a flow no longer: it has ended."""
        del self.live[flow]
        self._oldest.shrank()
        self._table.count -= 1
        if self.is_capped:
            self._table.tally.add(self._key, -1)
            if self.most_per_client < NO_CAP:
                self._table.tally.add(self._client_key(client), -1)
                mine, oldest = self._clients[client]
                del mine[flow]
                oldest.shrank()
                if not mine:
                    del self._clients[client]


class FlowTable(Generic[F]):
    """All flows of a worker."""

    __slots__ = ("count", "most", "rules", "tally")

    def __init__(self, most: int, tally: Tally) -> None:
        """`most`: how many the worker has file descriptors for. `tally`: what the caps count by."""
        self.count = 0
        self.most = most
        self.tally = tally
        self.rules: dict[str, RuleFlows[F]] = {}

    def rule(self, name: str, most: int | None = None, most_per_client: int | None = None) -> RuleFlows[F]:
        """Give the rule's flows, one object for all its listeners; None is no cap but the worker's."""
        if name not in self.rules:
            self.rules[name] = RuleFlows(self, name, most, most_per_client)
        return self.rules[name]

    def largest(self) -> RuleFlows[F]:
        """Give the rule that has the most flows."""
        return max(self.rules.values(), key=_size)


def _size(rule: RuleFlows[F]) -> int:
    return len(rule.live)
