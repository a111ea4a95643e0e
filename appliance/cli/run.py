"""`portway run`: the gateway, in the foreground."""

import click

from appliance.cli.admin_option import admin_option
from appliance.cli.gateway import reread_of, ruleset_status, serve
from appliance.cli.ruleset_file import read_ruleset
from appliance.values import Misread, TargetAddress


def _target(_ctx: click.Context, _option: click.Parameter, text: str | None) -> TargetAddress | None:
    try:
        return None if text is None else TargetAddress.parse(text)
    except Misread as misread:
        raise click.BadParameter(f"{misread.what}; {misread.hint}") from None


@click.command(short_help="Forward as a ruleset says, until a signal ends it.")
@click.argument("ruleset")
@admin_option("Where `portway status` may ask, if RULESET names no [gateway] admin: a path, or @.")
@click.option("--welcome", "page", metavar="ADDR", envvar="PORTWAY_WELCOME", hidden=True, callback=_target)
def run(ruleset: str, admin: str | None, page: TargetAddress | None) -> None:
    """Forward as RULESET says, in the foreground, until SIGTERM or Ctrl-C.

    SIGHUP or `portway reload` reads RULESET again: live sessions go on, and problems change nothing.
    The log goes to stdout: JSON lines, or lines for people where stdout is a terminal.
    """
    rules, text = read_ruleset(ruleset)
    if page is not None:
        from appliance.cli.welcome import welcome  # noqa: PLC0415  a container that has its ruleset needs none

        welcome(rules, page)
    raise SystemExit(serve(rules, ruleset_status(ruleset, text, rules), admin, reread_of(ruleset)))
