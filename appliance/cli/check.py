"""`portway check`: every problem of a ruleset at once."""

import click

from appliance.cli.problems import as_json, report
from appliance.cli.ruleset_file import WRONG_INPUT, load
from appliance.problem import printable
from appliance.ruleset import Ruleset


@click.command(short_help="Say everything that is wrong with a ruleset.")
@click.argument("ruleset")
@click.option("--json", "wants_json", is_flag=True, help="Print the problems to stdout as a JSON array.")
@click.pass_context
def check(ctx: click.Context, ruleset: str, *, wants_json: bool) -> None:
    """Say everything that is wrong with RULESET, a file or - for standard input.

    Exits with 0 when nothing is, and with 2 when something is.
    """
    loaded = load(ruleset)
    is_good = isinstance(loaded, Ruleset)
    if wants_json:
        click.echo(as_json(() if isinstance(loaded, Ruleset) else loaded))
    elif isinstance(loaded, Ruleset):
        click.echo(f"{printable('<stdin>' if ruleset == '-' else ruleset)}: {_summary(loaded)}: no problems")
    else:
        report(loaded)
    ctx.exit(0 if is_good else WRONG_INPUT)


def _summary(ruleset: Ruleset) -> str:
    addresses = [address for rule in ruleset.rules for address in rule.listen]
    both_families = [address for address in addresses if not address.host and not address.is_unix]
    listeners = sum(address.port_count for address in (*addresses, *both_families))
    return f"{_count(len(ruleset.rules), 'rule')}, {_count(listeners, 'listener')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
