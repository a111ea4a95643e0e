"""The short screen for people: what this machine is, where it is reached, what it forwards, what is wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance import __version__
from appliance.problem import printable
from appliance.ruleset import Ruleset

MOST: Final = 12
"""Rules, listeners or lines of one kind that are shown; the rest is counted."""

_WIDTH: Final = 72


@dataclass(frozen=True, slots=True)
class InterfaceLine:
    """What is shown of one interface."""

    name: str
    addresses: Sequence[str]
    how: str
    has_carrier: bool


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the screen shows."""

    host_name: str
    interfaces: Sequence[InterfaceLine]
    name_servers: Sequence[str]
    rules_from: str
    ruleset: Ruleset | None
    health: str
    config: str
    state: str
    problems: Sequence[str] = ()
    history: str = ""
    notes: Sequence[str] = field(default_factory=tuple)


def render(view: View) -> str:
    """Write the screen: plain lines."""
    line = "-" * _WIDTH
    return "".join(f"{text}\n" for text in (line, *_lines(view), line))


def _lines(view: View) -> Iterator[str]:
    yield f" Portway {__version__} on {printable(view.host_name) or 'portway'}"
    yield from _some([_interface(each) for each in view.interfaces] or ["no network interface"], "network")
    if view.name_servers:
        yield _row("dns", ", ".join(view.name_servers))
    yield _row("rules", printable(view.rules_from))
    if view.ruleset:
        yield from _some(_rules(view.ruleset), "")
    yield _row("health", printable(view.health))
    yield _row("config", printable(view.config))
    yield _row("state", printable(view.state))
    if view.history:
        yield _row("before", printable(view.history))
    for note in view.notes:
        yield _row("note", printable(note))
    for problem in view.problems[:MOST]:
        first, *others = problem.splitlines() or [""]
        yield _row("WRONG", printable(first))
        yield from (_row("", printable(other)) for other in others)
    if len(view.problems) > MOST:
        yield _row("", f"and {len(view.problems) - MOST} problems more")


def _interface(each: InterfaceLine) -> str:
    where = ", ".join(each.addresses) or "no address yet"
    carrier = "" if each.has_carrier else ", no carrier"
    return f"{each.name}: {where}{carrier}{f' ({each.how})' if each.how else ''}"


def _rules(ruleset: Ruleset) -> list[str]:
    return [f"{rule.name}  {rule.protocol}  {_few(rule.listen)} -> {_few(rule.to)}" for rule in ruleset.rules]


def _few(addresses: Sequence[object]) -> str:
    shown = ", ".join(str(address) for address in addresses[:3])
    return f"{shown} and {len(addresses) - 3} more" if len(addresses) > 3 else shown  # noqa: PLR2004  the format's own


def _some(texts: list[str], name: str) -> Iterator[str]:
    for index, text in enumerate(texts[:MOST]):
        yield _row("" if index else name, printable(text))
    if len(texts) > MOST:
        yield _row("", f"and {len(texts) - MOST} more")


def _row(name: str, text: str) -> str:
    return f" {name:8} {text}"
