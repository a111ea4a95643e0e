"""`portway revoke`: take back what `portway enroll` made."""

import re

import click
import msgspec

from appliance.cli.enrolment import SHORT, refuse, told, tunnel_of, unknown_agent
from appliance.problem import printable, quoted
from appliance.tunnel.state import Enrolled, State


def _serial(_ctx: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is None:
        return None
    serial = text.replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{1,32}", serial):
        raise click.BadParameter(f"{quoted(text)} is no serial; portway agents lists them")
    return serial


@click.command(short_help="Take back what an agent was enrolled with.")
@click.argument("ruleset")
@click.argument("name")
@click.option(
    "--serial", metavar="HEX", callback=_serial, help="Only this certificate: its serial, or how it begins."
)
@click.option("--json", "wants_json", is_flag=True, help="Print what was taken back as JSON.")
def revoke(ruleset: str, name: str, serial: str | None, *, wants_json: bool) -> None:
    """Take back all certificates of the agent NAME of RULESET, or one of them.

    The gateways of this [tunnel] state refuse them from then on; no gateway need run. To do it again changes
    nothing. An agent that is to go on is enrolled anew.
    """
    rules, tunnel = tunnel_of(ruleset)
    state = State(tunnel.state)
    with told(state):
        before = [one for one in state.enrolled() if one.name == name]
        if not before and name not in {agent.name for agent in rules.agents}:
            known = {one.name for one in state.enrolled()} | {agent.name for agent in rules.agents}
            unknown_agent(ruleset, name, known)
        _only_one(name, serial, before)
        taken = state.revoke(name=name, serial=serial)
    serials = [one.serial for one in taken]
    if wants_json:
        earlier = [one.serial for one in before if one.revoked]
        shown = {"agent": name, "revoked": serials, "revoked_before": earlier}
        click.echo(msgspec.json.format(msgspec.json.encode(shown)))
    else:
        click.echo(printable(_sentence(name, serials, before)))


def _only_one(name: str, serial: str | None, known: list[Enrolled]) -> None:
    """Refuse a serial that is none, or the beginning of several."""
    if serial is None:
        return
    meant = [one for one in known if one.serial.startswith(serial)]
    if not meant:
        has = ", ".join(one.serial[:SHORT] for one in known[-10:]) or "none"
        refuse(f"{quoted(name)} has no certificate {serial}", f"it has {has}")
    if len(meant) > 1:
        refuse(f"{len(meant)} certificates of {quoted(name)} begin with {serial}", "give more of its digits")


def _sentence(name: str, serials: list[str], before: list[Enrolled]) -> str:
    if serials:
        count = "1 certificate" if len(serials) == 1 else f"{len(serials)} certificates"
        return f"took back {count} of {name}: {', '.join(serial[:SHORT] for serial in serials)}"
    return f"nothing to take back: {name} {'has no other' if before else 'was never enrolled'}"
