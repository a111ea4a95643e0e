"""Which endpoint a session tries first, and which ones after it."""

from collections.abc import Sequence
from typing import Generic, TypeVar

Target = TypeVar("Target")


class RoundRobin(Generic[Target]):
    """Each session starts one endpoint further on, and tries the others in turn when a dial fails."""

    __slots__ = ("_next", "_orders")

    def __init__(self, targets: Sequence[Target]) -> None:
        if not targets:
            raise ValueError("an upstream has at least one endpoint")
        self._next = 0
        self._orders = tuple((*targets[i:], *targets[:i]) for i in range(len(targets)))

    def order(self) -> tuple[Target, ...]:
        """Return every endpoint once, in the order in which the next session tries them."""
        orders = self._orders
        chosen = self._next
        self._next = (chosen + 1) % len(orders)
        return orders[chosen]
