"""`portway forward`: one rule, with no file."""

import json
from typing import Final

import click

from appliance.cli.admin_option import admin_option
from appliance.cli.gateway import ruleset_status, serve
from appliance.cli.problems import complain
from appliance.cli.ruleset_file import WRONG_INPUT
from appliance.ruleset import Protocol, Ruleset, read

_EXAMPLES: Final = """\b
portway forward :8080 10.0.0.5:80
portway forward 127.0.0.1:5432 db1.internal:5432 db2.internal:5432
portway forward unix:/run/web.sock 10.0.0.5:80
portway forward --udp :53 10.0.0.2:53
"""


@click.command(short_help="Forward one address, without a ruleset.", epilog=_EXAMPLES)
@click.argument("listen")
@click.argument("to", nargs=-1, required=True)
@click.option("--udp", is_flag=True, help="Forward UDP flows; without it, TCP sessions.")
@admin_option("Where `portway status` may ask: a path, or @.")
def forward(listen: str, to: tuple[str, ...], admin: str | None, *, udp: bool) -> None:
    """Forward what comes in at LISTEN to TO, in the foreground.

    With several TO, sessions and flows go to each in turn, and sessions to the next one when a dial fails.
    """
    protocol = Protocol.UDP if udp else Protocol.TCP
    rule = f'[[rule]]\nname = "forward"\nlisten = {json.dumps(listen)}\nto = {json.dumps(to)}\n'
    text = f'{rule}protocol = "{protocol}"\n'.encode()
    result = read(text, "command line")
    if isinstance(result, Ruleset):
        raise SystemExit(serve(result, ruleset_status("command line", text, result), admin))
    for problem in result:
        complain(problem.what, problem.hint)
    raise SystemExit(WRONG_INPUT)
