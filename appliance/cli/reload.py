"""`portway reload`: a running gateway reads its ruleset again."""

from typing import Final

import click
import msgspec

from appliance.cli.admin_option import admin_option
from appliance.cli.asking import NoAnswerError, ask_gateway, complain_briefly
from appliance.supervisor.status import Reloaded
from appliance.values.admin import DEFAULT_ADMIN

_REQUEST: Final = b'{"verb":"reload"}'


@click.command(short_help="Have a running gateway read its ruleset again.")
@click.argument("ruleset", required=False)
@admin_option(f"The gateway's admin socket: a path, or @. [default: {DEFAULT_ADMIN}]")
@click.option("--json", "wants_json", is_flag=True, help="Print what the gateway replied.")
@click.pass_context
def reload(ctx: click.Context, ruleset: str | None, admin: str | None, *, wants_json: bool) -> None:
    """Have a running gateway read its ruleset again, and put it in force.

    Live sessions go on as they are, for drain_timeout at most; a UDP flow begins anew with its next datagram.
    A ruleset with problems, or an address that cannot be bound, changes nothing: exit status 1. Else this
    ends once the new workers accept clients. With RULESET, its file, all its problems are told, and it says
    itself where to ask ([gateway] admin).
    """
    if ruleset is not None:
        from appliance.cli.ruleset_file import read_ruleset  # noqa: PLC0415  20 ms, for this alone

        rules, _ = read_ruleset(ruleset)
        admin = rules.gateway.admin or admin
    try:
        line, told = ask_gateway(admin or DEFAULT_ADMIN, _REQUEST, Reloaded)
    except NoAnswerError as failed:
        complain_briefly(failed.what, failed.hint)
        ctx.exit(1)
    if wants_json:
        click.echo(msgspec.json.format(line))
    else:
        listeners = f"kept={told.kept} opened={told.opened} closed={told.closed}"
        click.echo(f"rules={told.rules} listeners: {listeners}")
