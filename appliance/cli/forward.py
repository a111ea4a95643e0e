"""`portway forward`: one rule, with no file."""

import json
import sys

import click

from appliance.cli.gateway import serve
from appliance.ruleset import Ruleset, read


@click.command()
@click.argument("listen")
@click.argument("to", nargs=-1, required=True)
def forward(listen: str, to: tuple[str, ...]) -> None:
    r"""Forward what comes in at LISTEN to TO, in the foreground.

    \b
    portway forward :8080 10.0.0.5:80
    portway forward 127.0.0.1:5432 db1.internal:5432 db2.internal:5432
    portway forward unix:/run/web.sock 10.0.0.5:80

    With several TO, sessions go to each in turn, and to the next one when a dial fails.
    """
    rule = f'[[rule]]\nname = "forward"\nlisten = {json.dumps(listen)}\nto = {json.dumps(to)}\n'
    result = read(rule.encode(), "command line")
    if isinstance(result, Ruleset):
        raise SystemExit(serve(result))
    for problem in result:
        sys.stderr.write(f"portway: {problem.what}\n")
        if problem.hint:
            sys.stderr.write(f"  hint: {problem.hint}\n")
    raise SystemExit(2)
