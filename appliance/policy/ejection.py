"""Endpoints that have failed lately: what goes to others meanwhile, as long as there are others."""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

EJECTED_FOR: Final = 10.0
"""Seconds, as nginx's fail_timeout."""


class Ejection(Generic[T]):
    """The endpoints of one rule that are out of rotation. Times are the caller's monotonic seconds."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[T, float] = {}

    def eject(self, endpoint: T, now: float) -> None:
        """Take an endpoint out: it has failed."""
        self._until[endpoint] = now + EJECTED_FOR

    def restore(self, endpoint: T) -> None:
        """Take it back: it has answered."""
        self._until.pop(endpoint, None)

    def order(self, endpoints: tuple[T, ...], now: float) -> tuple[T, ...]:
        """Put those that are out after those that are not: where all are out, each is tried all the same."""
        until = self._until
        if not until:
            return endpoints
        for endpoint in [endpoint for endpoint, end in until.items() if end <= now]:
            del until[endpoint]
        well = tuple(endpoint for endpoint in endpoints if endpoint not in until)
        return (*well, *(endpoint for endpoint in endpoints if endpoint in until)) if until else endpoints
