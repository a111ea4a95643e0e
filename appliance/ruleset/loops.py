"""Loops: targets that lead back to where a session came in, by one rule or by way of others.

Each session of a loop opens the next one, until no file descriptor is left. Sessions and flows stay what they
are: what comes in over TCP never gets to a listener of UDP. What goes `via` an agent is dialled elsewhere, so
it leads back to nothing here as far as this file tells.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from appliance.problem import quoted
from appliance.ruleset.finding import Finding, Path
from appliance.ruleset.rules import Protocol
from appliance.ruleset.seen import TUNNEL, Seen
from appliance.values import ListenAddress, TargetAddress

EVERY: Final = ("0.0.0.0", "::")

_NAMED: Final = 5
"""How many rules of a loop a message names."""

_UNIX_PORT: Final = -1
"""What stands for the port of a unix socket, so that it is found as any other."""


def loops(rules: list[Seen]) -> Iterator[Finding]:
    """Give every target that leads back to its own rule, and one target of every loop over several."""
    rules = [rule if rule.via is None else replace(rule, to=()) for rule in rules]
    for rule in rules:
        yield from _own(rule)
    told: frozenset[Path] = frozenset()
    for protocol in (Protocol.TCP, Protocol.UDP):
        # Whoever mends a target that closes a loop of one protocol has mended it for the other one as well.
        carrying = [rule for rule in rules if rule.protocol in {protocol, Protocol.BOTH}]
        findings = list(_Walk(carrying, protocol, told).loops())
        told = frozenset(finding.path for finding in findings)
        yield from findings


def hosts(address: ListenAddress) -> tuple[str, ...]:
    """Give what the kernel tells apart: the addresses of either family, or a path. Port 0 never clashes."""
    if address.path:
        return (f"unix:{address.path}",)
    if not address.first_port:
        return ()
    return (address.host,) if address.host else EVERY


def carried(rule: Seen, address: ListenAddress) -> Iterator[Protocol]:
    """Give what comes in at a listener of a rule, as far as that is known and can be: TCP, UDP or both."""
    if rule.protocol is not None:
        if rule.protocol.carries_tcp:
            yield Protocol.TCP
        if rule.protocol.carries_udp and not address.path:
            yield Protocol.UDP


def called(rule: Seen) -> str:
    """Name a rule in a message, or [tunnel], where its listeners are among theirs."""
    if rule.path == TUNNEL:
        return "[tunnel]"
    return f"rule {quoted(rule.name)}" if rule.name is not None else "a rule"


def _own(rule: Seen) -> Iterator[Finding]:
    for path, to in rule.to:
        for listen_path, listen in rule.listen:
            if _reaches(to, listen):
                what = f"{to} leads back to this rule's own listener {listen}"
                one = "flow" if rule.protocol is Protocol.UDP else "session"
                hint = f"every {one} would open another one, without end: name the server that is meant"
                yield Finding(path, what, hint, others=(listen_path,))
                break


def _reaches(to: TargetAddress, listen: ListenAddress) -> bool:
    """Say whether what is sent to `to` arrives at `listen`, as far as that can be told without the host."""
    if not to.path and (to.first_port > listen.last_port or to.last_port < listen.first_port):
        return False
    return not set(hosts(listen)).isdisjoint(_arrives(to))


def _arrives(to: TargetAddress) -> set[str]:
    """Give the listen hosts (see `hosts`) at which a dial of `to` ends up on this machine."""
    if to.path:
        return {f"unix:{to.path}"}
    if to.host in {"localhost", "localhost."}:
        return {"127.0.0.1", "::1", *EVERY}
    if to.host == "::1":
        return {to.host, "::"}
    return {to.host, "0.0.0.0"} if to.host.startswith("127.") else {to.host}


def _ports(address: ListenAddress | TargetAddress) -> tuple[int, int]:
    return (_UNIX_PORT, _UNIX_PORT) if address.path else (address.first_port, address.last_port)


@dataclass(slots=True)
class _Ports:
    """The listeners of one host in the order of their ports, none over another: to be searched by halves."""

    last: list[int] = field(default_factory=list)
    """The last port of each."""
    first: list[int] = field(default_factory=list)
    rule: list[int] = field(default_factory=list)

    def add(self, first: int, last: int, rule: int) -> None:
        """Add the next one; what overlaps is a problem by itself, and left out here."""
        if not self.last or first > self.last[-1]:
            self.first.append(first)
            self.last.append(last)
            self.rule.append(rule)

    def between(self, first: int, last: int) -> Iterator[int]:
        """Give the rules that listen on one of these ports."""
        at = bisect_left(self.last, first)
        while at < len(self.first) and self.first[at] <= last:
            yield self.rule[at]
            at += 1


def _index(rules: list[Seen], protocol: Protocol) -> dict[str, _Ports]:
    listeners = sorted(
        (host, *_ports(address), number)
        for number, rule in enumerate(rules)
        for _, address in rule.listen
        if protocol in carried(rule, address)
        for host in hosts(address)
    )
    index = defaultdict[str, _Ports](_Ports)
    for host, first, last, number in listeners:
        index[host].add(first, last, number)
    return dict(index)


@dataclass(slots=True)
class _Step:
    """A rule on the way, and the targets by which the way goes on."""

    rule: int
    onward: Iterator[tuple[Path, TargetAddress, int]]
    path: Path = ()
    """The target taken from here."""
    closing: Path = ()
    """The target that was last found to close a loop: a range of ports may close several."""


class _Walk:
    """A walk from rule to rule, depth first, along each target once: O(targets x log listeners).

    It finds a target for each loop that is closed on the way, and without these targets there is no loop.
    """

    def __init__(self, rules: list[Seen], protocol: Protocol, mended: frozenset[Path]) -> None:
        self._rules = rules
        self._protocol = protocol
        self._mended = mended
        """The targets to leave out."""
        self._index = _index(rules, protocol)
        self._depth: dict[int, int] = {}
        """Where the rules of the way stand on it; -1 for those that are done."""

    def loops(self) -> Iterator[Finding]:
        """Give one finding for each loop over several rules."""
        for number in range(len(self._rules)):
            if number not in self._depth:
                yield from self._from(number)

    def _from(self, number: int) -> Iterator[Finding]:
        way = [self._enter(number, 0)]
        while way:
            step = way[-1]
            for path, to, reached in step.onward:
                depth = self._depth.get(reached)
                if depth is None:
                    step.path = path
                    way.append(self._enter(reached, len(way)))
                    break
                if 0 <= depth < len(way) - 1 and path != step.closing:
                    step.closing = path
                    yield self._closed(path, to, way, depth)
            else:
                self._depth[step.rule] = -1
                way.pop()

    def _enter(self, number: int, depth: int) -> _Step:
        self._depth[number] = depth
        return _Step(number, self._onward(number))

    def _onward(self, number: int) -> Iterator[tuple[Path, TargetAddress, int]]:
        """Give the rules that the targets of a rule lead to, each once for each target."""
        for path, to in self._rules[number].to:
            if path in self._mended:
                continue
            reached = {
                rule
                for host in _arrives(to)
                if host in self._index
                for rule in self._index[host].between(*_ports(to))
            }
            yield from ((path, to, rule) for rule in sorted(reached))

    def _closed(self, path: Path, to: TargetAddress, way: list[_Step], depth: int) -> Finding:
        """Tell the loop that the last rule of `way` closes by going back to the one at `depth`."""
        told = way[depth : min(depth + _NAMED, len(way)) - 1]
        names = [called(self._rules[step.rule]) for step in (way[-1], *told)]
        if more := len(way) - depth - len(names):
            names.append(f"{more} more")
        what = f"{to} closes a loop: {' to '.join((*names, names[0]))}"
        one = "flow" if self._protocol is Protocol.UDP else "session"
        hint = f"every {one} would go round without end: one of them has to name the server that is meant"
        return Finding(path, what, hint, others=tuple(step.path for step in told))
