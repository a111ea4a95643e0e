"""What a kernel must be told so that answers to clients' addresses come back (`source = "client"`). Pure.

An endpoint that sees a client's address answers to that address. Where the packet passes through this host it
is not for it, as far as routing knows, and would be sent on to the client, who knows nothing of it.

- An endpoint on another host: its packets come in, and those that belong to a transparent socket are marked
  and delivered here (Documentation/networking/tproxy.rst). Nobody else's packets are touched.
- An endpoint on this host: what its port sends to anybody who is not here stays on the loopback device. The
  sender's socket is all that the kernel can be asked for there, so it goes by address, protocol and port; an
  address such as 127.0.0.1 has no clients elsewhere.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.ruleset import Protocol
from appliance.values import TargetAddress

TABLE: Final = 5057
"""Of the routes, and where its rules stand among others: before those of the main table (32766)."""

MARK: Final = 0x2000
"""One bit, which Kubernetes (0x4000, 0x8000), Calico and Tailscale (bits 16 and up) leave alone."""

NFT_TABLE: Final = "portway_source"

_ROUTE: Final = {"type": "local", "dst": "default", "dev": "lo"}
_MANGLE: Final = -150
"""The number of the priority "mangle" (linux/netfilter_ipv4.h)."""

_NFT: Final = (
    f"nft 'add table inet {NFT_TABLE}; flush table inet {NFT_TABLE}; "
    f"add chain inet {NFT_TABLE} answers {{ type filter hook prerouting priority mangle; }}; "
    f"add rule inet {NFT_TABLE} answers socket transparent 1 meta mark set meta mark or {MARK:#x}'"
)

Entry = Mapping[str, object]
"""An object of what `ip -json` says."""


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint, and whether it is on this host. A name may be anywhere else."""

    address: TargetAddress
    protocol: Protocol
    is_here: bool

    @property
    def families(self) -> tuple[int, ...]:
        """Which versions of IP reach it."""
        if self.address.is_name:
            return 4, 6
        return (6,) if ":" in self.address.host else (4,)


@dataclass(frozen=True, slots=True)
class State:
    """What a host's kernel has been told: by version of IP, and what `nft -json` says of our table."""

    rules: Mapping[int, Sequence[Entry]]
    routes: Mapping[int, Sequence[Entry]]
    nft: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Line:
    """A command to run as root, and how what it does is found again."""

    command: str
    family: int = 0
    """Of IP; 0: nftables."""
    rule: tuple[tuple[str, object], ...] = ()
    """What `ip -json rule` says of it."""

    def is_in(self, state: State) -> bool:
        """Say whether what the command does is done."""
        if not self.family:
            return _marks(state.nft)
        if self.rule:
            return _has(state.rules[self.family], dict(self.rule))
        return _has(state.routes[self.family], _ROUTE)


def lines(places: Iterable[Place]) -> list[Line]:
    """Give what is to be run for these endpoints, each line once, those of a family together."""
    made: dict[Line, None] = {}
    there = sorted(places, key=lambda place: place.families)
    for place in there:
        for family in place.families:
            made[Line(f"{_ip(family)} route replace local default dev lo table {TABLE}", family)] = None
            for line in _here(place, family) if place.is_here else (_marked(family),):
                made[line] = None
    if not all(place.is_here for place in there):
        made[Line(_NFT)] = None
    return list(made)


def _ip(family: int) -> str:
    return "ip -6" if family == 6 else "ip"  # noqa: PLR2004  IPv6


def _marked(family: int) -> Line:
    command = f"{_ip(family)} rule add pref {TABLE} fwmark {MARK:#x}/{MARK:#x} lookup {TABLE}"
    return Line(command, family, _told({"fwmark": f"{MARK:#x}", "fwmask": f"{MARK:#x}"}))


def _here(place: Place, family: int) -> Iterator[Line]:
    address = place.address
    first, last = address.first_port, address.last_port
    ports = f"{first}" if first == last else f"{first}-{last}"
    told = {"sport": first} if first == last else {"sport_start": first, "sport_end": last}
    for protocol in ("tcp", "udp"):
        if place.protocol.shared(Protocol(protocol)) is not None:
            command = (
                f"{_ip(family)} rule add pref {TABLE} from {address.host} iif lo ipproto {protocol} "
                f"sport {ports} lookup {TABLE}"
            )
            rule = {"src": address.host, "iif": "lo", "ipproto": protocol, **told}
            yield Line(command, family, _told(rule))


def _told(rule: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    return tuple({"priority": TABLE, **rule, "table": f"{TABLE}"}.items())


def undo(state: State) -> list[str]:
    """Give what is to be run so that nothing of it is left, whichever endpoints it was for."""
    commands = []
    for family in (4, 6):
        ours = [rule for rule in state.rules[family] if _has([rule], dict(_told({})))]
        commands += [f"{_ip(family)} rule del pref {TABLE} lookup {TABLE}"] * len(ours)
        if state.routes[family]:
            commands.append(f"{_ip(family)} route flush table {TABLE}")
    if state.nft:
        commands.append(f"nft delete table inet {NFT_TABLE}")
    return commands


def _has(entries: Iterable[Entry], wanted: Entry) -> bool:
    return any(wanted.items() <= entry.items() for entry in entries)


def _marks(told: Iterable[Entry]) -> bool:
    """Say whether the table has a chain that sees what comes in, and in it the rule that marks."""
    entries = list(told)
    chains = [_inner(entry, "chain") for entry in entries]
    names = {
        chain.get("name")
        for chain in chains
        if chain.get("hook") == "prerouting" and chain.get("prio") == _MANGLE
    }
    rules = [_inner(entry, "rule") for entry in entries]
    return any(rule.get("chain") in names and _is_ours(rule.get("expr")) for rule in rules)


def _inner(entry: Entry, kind: str) -> Entry:
    inner = entry.get(kind)
    return inner if isinstance(inner, dict) else {}


def _is_ours(expressions: object) -> bool:
    mark = {"meta": {"key": "mark"}}
    return expressions == [
        {"match": {"op": "==", "left": {"socket": {"key": "transparent"}}, "right": 1}},
        {"mangle": {"key": mark, "value": {"|": [mark, MARK]}}},
    ]
