"""`portway uninstall`: takes back what `portway install` made."""

from pathlib import Path

import click

from appliance.cli.install import (
    alone,
    check_rights,
    dry_option,
    json_option,
    perform,
    refuse_obstacles,
    rehearse,
    root_option,
)
from appliance.cli.problems import complain
from appliance.cli.recap import Recap, Status
from appliance.host import facts, service
from appliance.host.commands import CommandError
from appliance.host.layout import CONFIGURATION, STATE, UNIT, OutsideError, Root
from appliance.host.plan import Change, plan
from appliance.host.wanted import Kept, absence


@click.command(short_help="Take back what install made.")
@click.option("--purge", is_flag=True, help="Take the ruleset and the state along, whatever is in them.")
@root_option
@dry_option
@json_option
def uninstall(*, purge: bool, root: Path, dry_run: bool, wants_json: bool) -> None:
    """Take back what `portway install` made, as root; a second run changes nothing.

    Stays: a ruleset that was edited, state, and the user they belong to; --purge takes them along.
    """
    where = Root(root)
    check_rights(dry_run=dry_run)
    recap = Recap(wants_json, dry_run)
    try:
        with alone(where, dry_run=dry_run):
            kept = facts.kept(where, purge=purge)
            items = absence(facts.programs(where), kept)
            changes = plan(items, facts.look(items, where))
            refuse_obstacles(changes)
            _tell(kept, recap)
            if dry_run:
                rehearse(changes, recap)
            else:
                _perform(changes, where, recap, has_service=not kept.unit)
    except (OutsideError, CommandError) as error:
        complain(str(error))
        raise SystemExit(1) from None
    raise SystemExit(recap.close())


def _tell(kept: Kept, recap: Recap) -> None:
    if kept.unit:
        recap.note(f"{UNIT} is kept: it was not made by `portway install`")
    for path, is_kept in ((CONFIGURATION, kept.rules), (STATE, kept.state)):
        if is_kept:
            recap.note(f"{path} is kept; --purge takes it along")


def _perform(changes: tuple[Change, ...], root: Root, recap: Recap, *, has_service: bool) -> None:
    has_systemd = has_service and root.is_host and service.has_systemd()
    if has_systemd:
        is_at_rest = service.look().is_at_rest
        if not is_at_rest:
            service.stop()
        recap.add(
            "service portway", Status.OK if is_at_rest else Status.CHANGED, "" if is_at_rest else "stop"
        )
    perform(changes, root, None, recap)
    if has_systemd and recap.count(Status.CHANGED):
        service.reload_units()
