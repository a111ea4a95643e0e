"""`portway agents`: who may serve a tunnel, and who does."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

import click
import msgspec

from appliance.cli.admin_option import admin_option
from appliance.cli.asking import NoAnswerError, ask_gateway
from appliance.cli.enrolment import SHORT, told, tunnel_of
from appliance.cli.status import columns
from appliance.observe.log import wall_clock
from appliance.problem import printable
from appliance.ruleset import Ruleset
from appliance.supervisor.status import AgentLink, Agents
from appliance.tunnel.join import time_of
from appliance.tunnel.state import Enrolled, State
from appliance.values.admin import DEFAULT_ADMIN

_REQUEST: Final = b'{"verb":"agents"}'


class SeenShown(msgspec.Struct, frozen=True, rename={"peer": "from"}):
    """When and from where a certificate was shown last."""

    at: str
    peer: str
    version: str


class CertificateShown(msgspec.Struct, frozen=True):
    """A certificate, as --json has it. Times are RFC 3339, UTC."""

    serial: str
    issued: str
    expires: str
    expired: bool
    revoked: bool
    replaces: str | None
    seen: SeenShown | None


class AgentShown(msgspec.Struct, frozen=True):
    """An agent, as --json has it."""

    name: str
    in_ruleset: bool
    certificates: list[CertificateShown]


class Shown(msgspec.Struct, frozen=True):
    """All of it. `links` is null where no gateway could be asked, and `trouble` says why."""

    agents: list[AgentShown]
    links: tuple[AgentLink, ...] | None
    trouble: str | None


@click.command(short_help="List who may serve a tunnel, and who does.")
@click.argument("ruleset")
@admin_option("The running gateway's admin socket, if RULESET names no [gateway] admin: a path, or @.")
@click.option("--json", "wants_json", is_flag=True, help="Print all of it as JSON.")
def agents(ruleset: str, admin: str | None, *, wants_json: bool) -> None:
    """List the agents of RULESET: what they were enrolled with, when each was seen last, who is connected.

    Certificates that have expired or were renewed are left out; --json has them.
    """
    rules, tunnel = tunnel_of(ruleset)
    state = State(tunnel.state)
    with told(state):
        enrolled = state.enrolled()
    links, trouble = _links(rules.gateway.admin or admin or DEFAULT_ADMIN)
    now = wall_clock()
    if wants_json:
        shown = Shown(_shown(rules, enrolled, now), links, trouble)
        click.echo(msgspec.json.format(msgspec.json.encode(shown)))
        return
    for line in _screen(rules, enrolled, links, trouble, now):
        click.echo(printable(line))


def _links(address: str) -> tuple[tuple[AgentLink, ...] | None, str | None]:
    """Ask who is connected; or give why that is not known."""
    try:
        _, told_of = ask_gateway(address, _REQUEST, Agents)
    except NoAnswerError as failed:
        return None, failed.what
    return told_of.links, None


def _screen(
    rules: Ruleset,
    enrolled: list[Enrolled],
    links: tuple[AgentLink, ...] | None,
    trouble: str | None,
    now: float,
) -> Iterator[str]:
    names = {agent.name for agent in rules.agents}
    yield from columns([*_rows(names, enrolled, now)])
    yield ""
    if links is None:
        yield f"who is connected is not known: {trouble}"
    elif not links:
        yield "nobody is connected"
    else:
        yield from columns([*_connected(links)])


def _rows(names: set[str], enrolled: list[Enrolled], now: float) -> Iterator[tuple[str, ...]]:
    for name in sorted(names | {one.name for one in enrolled}):
        extra = "" if name in names else "not in the ruleset"
        own = _current([one for one in enrolled if one.name == name], now)
        if not own:
            yield name, "never enrolled", "", "", "", extra
        for one in own:
            yield name, one.serial[:SHORT], f"issued {_day(one.issued)}", _until(one, now), _seen(one), extra


def _current(own: list[Enrolled], now: float) -> list[Enrolled]:
    """Leave out what nobody will show any more, but never all of an agent's."""
    renewed = {one.replaces for one in own if one.seen}
    current = [one for one in own if one.expires > now and (one.revoked or one.serial not in renewed)]
    return current or own[-1:]


def _until(one: Enrolled, now: float) -> str:
    if one.revoked:
        return "taken back"
    return f"{'until' if one.expires > now else 'expired'} {_day(one.expires)}"


def _seen(one: Enrolled) -> str:
    return f"seen {time_of(one.seen.at)} from {one.seen.peer}" if one.seen else "never seen"


def _connected(links: Iterable[AgentLink]) -> Iterator[tuple[str, ...]]:
    """Give a row for each process that is connected: its workers have a link each."""
    for (agent, serial, host, version), group in groupby(sorted(links, key=_process), key=_process):
        own = list(group)
        trips = [link.rtt_ms for link in own if link.rtt_ms is not None]
        yield (
            agent,
            serial[:SHORT],
            f"from {host}",
            f"since {min(link.since for link in own)}",
            _count(len(own), "link"),
            _count(sum(link.sessions for link in own), "session"),
            f"{sum(link.ready for link in own)} ready",
            f"rtt {min(trips):.1f} ms" if trips else "",
            version,
        )


def _process(link: AgentLink) -> tuple[str, str, str, str]:
    return link.agent, link.serial, link.peer.rpartition(":")[0], link.version


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _day(seconds: float) -> str:
    return time_of(seconds)[:10]


def _shown(rules: Ruleset, enrolled: list[Enrolled], now: float) -> list[AgentShown]:
    names = {agent.name for agent in rules.agents}
    return [
        AgentShown(name, name in names, [_certificate(one, now) for one in enrolled if one.name == name])
        for name in sorted(names | {one.name for one in enrolled})
    ]


def _certificate(one: Enrolled, now: float) -> CertificateShown:
    seen = SeenShown(time_of(one.seen.at), one.seen.peer, one.seen.version) if one.seen else None
    return CertificateShown(
        serial=one.serial,
        issued=time_of(one.issued),
        expires=time_of(one.expires),
        expired=one.expires <= now,
        revoked=one.revoked,
        replaces=one.replaces or None,
        seen=seen,
    )
