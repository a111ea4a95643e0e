"""`portway run`: the gateway, in the foreground."""

import click

from appliance.cli.gateway import serve
from appliance.cli.ruleset_file import read_ruleset


@click.command(short_help="Forward as a ruleset says, until a signal ends it.")
@click.argument("ruleset")
def run(ruleset: str) -> None:
    """Forward as RULESET says, in the foreground, until SIGTERM or Ctrl-C.

    The log goes to stdout: JSON lines, or lines for people where stdout is a terminal.
    """
    raise SystemExit(serve(read_ruleset(ruleset)))
