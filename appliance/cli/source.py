"""`portway source`: what has answers to clients' addresses come back to this host."""

from collections.abc import Iterator
from typing import Final

import click

from appliance.cli.problems import complain
from appliance.cli.ruleset_file import WRONG_INPUT, read_ruleset
from appliance.host import answers, routing
from appliance.host.answers import Line, Place
from appliance.host.commands import CommandError
from appliance.ruleset import Protocol, Rule
from appliance.values import TargetAddress
from appliance.values.misread import Misread

_EXAMPLES: Final = """\b
portway source /etc/portway/rules.toml | sudo sh
portway source --to 10.0.0.5:80 --to 127.0.0.1:8080
sudo portway source --check --to 10.0.0.5:80
sudo portway source --undo | sudo sh
"""


def _targets(_ctx: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> list[TargetAddress]:
    try:
        return [TargetAddress.parse(text) for text in texts]
    except Misread as misread:
        raise click.BadParameter(f"{misread.what}; {misread.hint}") from None


@click.command(
    short_help='Print, check, take back what source = "client" needs of this host.', epilog=_EXAMPLES
)
@click.argument("ruleset", required=False)
@click.option(
    "--to",
    "to",
    metavar="ADDR",
    multiple=True,
    callback=_targets,
    help="An endpoint, where there is no RULESET.",
)
@click.option("--udp", is_flag=True, help="The endpoints of --to carry UDP; without it, TCP.")
@click.option(
    "--check", "wants_check", is_flag=True, help="Say which lines are in place; exit with 1 unless all."
)
@click.option("--undo", "wants_undo", is_flag=True, help="Print what takes all of it back.")
def source(
    *, ruleset: str | None, to: list[TargetAddress], udp: bool, wants_check: bool, wants_undo: bool
) -> None:
    """Print the commands that have answers to clients' addresses come back to this host.

    For a rule with source = "client" of RULESET on a gateway, or, on an agent's host, for the endpoints that
    --to names. Nothing is changed: run them as root, at each boot.
    """
    try:
        if wants_undo:
            for command in answers.undo(routing.state()):
                click.echo(command)
            return
        lines = answers.lines(_places(ruleset, to, Protocol.UDP if udp else Protocol.TCP))
        if wants_check:
            raise SystemExit(_check(lines))
    except CommandError as error:
        complain(str(error), "run it as root" if "permitted" in str(error) else None)
        raise SystemExit(1) from None
    for line in lines:
        click.echo(line.command)


def _check(lines: list[Line]) -> int:
    state = routing.state()
    missing = False
    for line in lines:
        is_there = line.is_in(state)
        missing = missing or not is_there
        click.echo(f"{'ok' if is_there else 'missing':8} {line.command}")
    return int(missing)


def _places(ruleset: str | None, to: list[TargetAddress], protocol: Protocol) -> list[Place]:
    """Give the endpoints that are meant; end the program where there are none."""
    if (ruleset is None) == (not to):
        raise click.UsageError("name a RULESET, or endpoints with --to")
    if ruleset is None:
        return [_place(target, protocol) for target in to if not target.is_unix]
    rules, _ = read_ruleset(ruleset)
    places = [_place(target, rule.protocol) for rule in rules.rules for target in _seen_from_here(rule)]
    if not places:
        complain(
            f'{ruleset}: no rule has source = "client" and is served by this host itself',
            "for a rule that goes via an agent, run this on the agent's host, with --to",
        )
        raise SystemExit(WRONG_INPUT)
    return places


def _seen_from_here(rule: Rule) -> Iterator[TargetAddress]:
    if rule.is_transparent and rule.via is None:
        yield from (target for target in rule.to if not target.is_unix)


def _place(target: TargetAddress, protocol: Protocol) -> Place:
    return Place(target, protocol, not target.is_name and routing.is_here(target.host))
