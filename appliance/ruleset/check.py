"""Checks across keys and rules: names taken twice, ports bound twice, ranges that do not match, loops.

And what does not go with a rule's protocol; `tunnels` has the checks of what goes with a tunnel. A rule whose
protocol could not be understood is left out of the checks that depend on it.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from appliance.problem import quoted
from appliance.ruleset.finding import Finding, Path
from appliance.ruleset.loops import called, carried, hosts, loops
from appliance.ruleset.rules import Protocol
from appliance.ruleset.seen import TUNNEL, Seen, SeenTunnel
from appliance.ruleset.tunnels import tunnels
from appliance.values import MAX_PORT, ListenAddress, TargetAddress


@dataclass(frozen=True, slots=True)
class _Bind:
    """One address that a rule listens on: `order` is its position in the file."""

    order: int
    path: Path
    rule: Seen
    address: ListenAddress


def check(rules: list[Seen], tunnel: SeenTunnel | None = None) -> list[Finding]:
    """Give everything that is wrong with rules, and a tunnel, which may each be right on their own."""
    tunnel = SeenTunnel() if tunnel is None else tunnel
    findings = list(_names(rules))
    findings.extend(_binds([*rules, Seen(TUNNEL, listen=tunnel.listen)]))
    for rule in rules:
        findings.extend(_ranges(rule))
        findings.extend(_not_for_udp(rule))
        findings.extend(_not_for_tcp(rule))
        findings.extend(_not_for_flows(rule))
    findings.extend(_caps(rules))
    findings.extend(loops(rules))
    findings.extend(tunnels(rules, tunnel))
    return findings


def _names(rules: list[Seen]) -> Iterator[Finding]:
    first: dict[str, Path] = {}
    for rule in rules:
        if rule.name is None:
            continue
        path = (*rule.path, "name")
        if rule.name in first:
            hint = "give each rule a name of its own: logs and metrics tell rules apart by it"
            yield Finding(
                path, f"{quoted(rule.name)} is already the name of a rule", hint, others=(first[rule.name],)
            )
        first.setdefault(rule.name, path)


def _binds(rules: list[Seen]) -> Iterator[Finding]:
    """Find addresses bound twice: per host in the order of their ports, so in O(n log n)."""
    by_host = defaultdict[tuple[Protocol, str], list[_Bind]](list)
    listeners = ((rule, path, address) for rule in rules for path, address in rule.listen)
    for position, (rule, path, address) in enumerate(listeners):
        bind = _Bind(position, path, rule, address)
        for protocol in carried(rule, address):
            for host in hosts(address):
                by_host[protocol, host].append(bind)
    clashes = {
        (clash[0].order, clash[1].order): clash for binds in by_host.values() for clash in _clashes(binds)
    }
    for order in sorted(clashes):
        yield _taken(*clashes[order])


def _clashes(binds: list[_Bind]) -> Iterator[tuple[_Bind, _Bind]]:
    """Give every bind that overlaps another, with one it overlaps; the earlier in the file comes first."""
    binds.sort(key=lambda bind: (bind.address.first_port, bind.order))
    if not binds:
        return
    reaching = binds[0]
    for bind in binds[1:]:
        if bind.address.first_port <= reaching.address.last_port:
            first, second = sorted((reaching, bind), key=lambda one: one.order)
            yield first, second
        if bind.address.last_port > reaching.address.last_port:
            reaching = bind


def _taken(first: _Bind, second: _Bind) -> Finding:
    is_own = first.rule is second.rule and first.rule.path != TUNNEL
    whose = "this rule" if is_own else called(first.rule)
    what = f"{second.address}{_contested(first, second)} is already taken by {whose}"
    if first.address != second.address:
        what += f" with {first.address}"
    hint = (
        "give one of them another path" if first.address.path else "give one of them another address or port"
    )
    return Finding(second.path, what, hint, others=(first.path,))


def _contested(first: _Bind, second: _Bind) -> str:
    """Name what two binds clash in, where one could think that they do not."""
    one, other = first.rule.protocol, second.rule.protocol
    if first.address.path or one is None or other is None or one is other is Protocol.TCP:
        return ""
    return f"/{one.shared(other)}"


def _not_for_udp(rule: Seen) -> Iterator[Finding]:
    if rule.protocol is None or not rule.protocol.carries_udp:
        return
    for path, address in (*rule.listen, *rule.to):
        if address.path:
            what = f"{address} is a unix socket, and this rule carries UDP"
            hint = "write an address and a port: unix sockets are for TCP alone"
            yield Finding(path, what, hint)


def _not_for_tcp(rule: Seen) -> Iterator[Finding]:
    if rule.protocol is Protocol.TCP:
        what = "is for UDP flows, and this rule carries TCP only"
        hint = 'write protocol = "udp" or "tcp+udp", or take it out'
        yield from (Finding((*rule.path, key), what, hint, at_key=True) for key in rule.flow_keys)


def _not_for_flows(rule: Seen) -> Iterator[Finding]:
    if rule.protocol is Protocol.UDP:
        what = "is for TCP sessions, and this rule carries UDP only"
        yield from (Finding((*rule.path, key), what, "take it out", at_key=True) for key in rule.session_keys)


def _caps(rules: list[Seen]) -> list[Finding]:
    """Find caps of one client that are above those of all; where both are of [defaults], once."""
    findings = {}
    for rule in rules:
        if rule.protocol is Protocol.TCP and rule.flow_keys:
            continue  # they are a problem by themselves
        if (finding := _cap(rule)) is not None:
            findings[finding.path] = finding
    return list(findings.values())


def _cap(rule: Seen) -> Finding | None:
    if rule.max_flows is None or rule.max_flows_per_client is None:
        return None
    (all_path, of_all), (one_path, of_one) = rule.max_flows, rule.max_flows_per_client
    if of_one <= of_all:
        return None
    if "max_flows" in rule.flow_keys and "max_flows_per_client" not in rule.flow_keys:
        what = f"max_flows = {of_all} is less than max_flows_per_client = {of_one}"
        hint = f"write max_flows_per_client in this rule too, {of_all} at most"
        return Finding(all_path, what, hint, others=(one_path,))
    what = f"max_flows_per_client = {of_one} is more than max_flows = {of_all}"
    hint = f"one client has no more flows than all of them together: write {of_all} at most, or take it out"
    return Finding(one_path, what, hint, others=(all_path,))


def _ranges(rule: Seen) -> Iterator[Finding]:
    ranges = [(path, to) for path, to in rule.to if to.port_count > 1]
    if not ranges or not rule.listen:
        return
    listen_path, listen = rule.listen[0]
    for other_path, other in rule.listen[1:]:
        if other.port_count != listen.port_count:
            # No range of targets fits both, so a hint about the targets would only send round in circles.
            what = f"the listeners differ: {other} has {_ports(other)}, {listen} has {_ports(listen)}"
            hint = "a range of targets goes with listeners of one length: give each length a rule of its own"
            yield Finding(other_path, what, hint, others=(listen_path,))
            return
    for path, to in ranges:
        if to.port_count != listen.port_count:
            what = f"{to} has {_ports(to)}, where {listen} has {_ports(listen)}"
            hint = f"each listen port goes to the target port at the same offset: {_as_long(to, listen)}"
            yield Finding(path, what, hint, others=(listen_path,))


def _ports(address: ListenAddress | TargetAddress) -> str:
    if address.path:
        return "none"
    return "1 port" if address.port_count == 1 else f"{address.port_count} ports"


def _as_long(to: TargetAddress, listen: ListenAddress) -> str:
    last = to.first_port + listen.port_count - 1
    if last > MAX_PORT:
        return "make them the same length"
    return f"write {quoted(str(replace(to, last_port=last)))}"
