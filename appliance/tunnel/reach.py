"""What an agent may reach: by the gateway's list for it, and by its own. Both must agree."""

from collections.abc import Sequence

from appliance.net.sockets import Endpoint
from appliance.values import AllowedTarget, TargetAddress


class Reach:
    """One target, as two lists see it. Each list is None where its side sets no bounds."""

    __slots__ = ("_by_address", "is_denied")

    def __init__(self, target: TargetAddress, lists: Sequence[Sequence[AllowedTarget] | None]) -> None:
        self._by_address: list[Sequence[AllowedTarget]] = []
        """Lists that do not have the target's name: they must have each address that it resolves to."""
        self.is_denied = False
        for allowed in lists:
            if allowed is None or any(one.allows(target) for one in allowed):
                continue
            if target.is_name:
                self._by_address.append(allowed)
            else:
                self.is_denied = True

    @property
    def is_settled(self) -> bool:
        """Whether addresses need no further look."""
        return not self._by_address

    def permits(self, endpoint: Endpoint) -> bool:
        """Say whether an address that the target's name resolved to may be dialled."""
        host, port = str(endpoint.sockaddr[0]), int(endpoint.sockaddr[1])
        resolved = TargetAddress(host, port, port)
        return all(any(one.allows(resolved) for one in allowed) for allowed in self._by_address)
