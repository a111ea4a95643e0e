"""What an agent may reach: `192.168.1.0/24:22`, `[2001:db8::]/64:1-1024`, `db.internal:5432`, a path."""

import ipaddress
from dataclasses import dataclass
from typing import Self

from appliance.problem import quoted
from appliance.values.address import MAX_PORT, TargetAddress
from appliance.values.misread import Misread

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class AllowedTarget:
    """A network, a host name or a unix socket's path, and a range of ports, both ends included."""

    network: Network | None = None
    name: str = ""
    path: str = ""
    first_port: int = 0
    last_port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = self.name or str(self.network)
        if self.network is not None and self.network.version == 6:  # noqa: PLR2004  the protocol's version
            host = f"[{self.network.network_address}]/{self.network.prefixlen}"
        last = "" if self.last_port == self.first_port else f"-{self.last_port}"
        return f"{host}:{self.first_port}{last}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one of the forms above; a port may be `*`, which is all of them."""
        host, slash, rest = text.partition("/") if not text.startswith("unix:") else (text, "", "")
        length, _, ports = rest.partition(":") if slash else ("", "", "")
        address = f"{host}:{ports}" if slash else text
        if address.endswith(":*"):
            address = f"{address[:-1]}1-{MAX_PORT}"
        target = TargetAddress.parse(address)
        if target.path:
            return cls(path=target.path)
        if target.is_name:
            if slash:
                raise Misread(f"{quoted(text)} is a network of a name", "write an address before the /")
            return cls(name=target.host, first_port=target.first_port, last_port=target.last_port)
        try:
            network = ipaddress.ip_network(f"{target.host}/{length}" if slash else target.host)
        except ValueError as error:
            raise Misread(
                f"{quoted(text)} is no network: {error}", 'write it as in "192.168.1.0/24:22"'
            ) from None
        return cls(network=network, first_port=target.first_port, last_port=target.last_port)

    def allows(self, target: TargetAddress) -> bool:
        """Say whether a target, one port of it, is this or within it. A name is within no network."""
        if target.path or self.path:
            return target.path == self.path
        if not self.first_port <= target.first_port <= target.last_port <= self.last_port:
            return False
        if target.is_name or self.network is None:
            return target.is_name and target.host == self.name
        address = ipaddress.ip_address(target.host.partition("%")[0])
        return address.version == self.network.version and address in self.network
