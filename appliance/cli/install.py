"""`portway install`: this program as a service of the host; run from a newer one, the upgrade."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from appliance.cli.problems import complain
from appliance.cli.recap import Recap, Status
from appliance.cli.ruleset_file import WRONG_INPUT
from appliance.host import facts, service
from appliance.host.apply import apply
from appliance.host.commands import CommandError
from appliance.host.items import Item, Link, Program
from appliance.host.layout import ENABLED, RULES, UNIT, OutsideError, Root
from appliance.host.plan import Change, plan
from appliance.host.release import NoFolderFormError, complaints, release_of
from appliance.host.rollout import UnhealthyError, admin_of, roll_out
from appliance.host.wanted import installation, outdated
from appliance.program import tree
from appliance.values.duration import parse_duration
from appliance.values.misread import Misread


def _seconds(_ctx: click.Context, _option: click.Parameter, text: str) -> float:
    try:
        return parse_duration(text)
    except Misread as misread:
        raise click.BadParameter(f"{misread.what}; {misread.hint}") from None


root_option = click.option(
    "--root",
    "root",
    metavar="DIR",
    default="/",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Take DIR for /: the root directory of an image.",
)
dry_option = click.option("--dry-run", is_flag=True, help="Say what would be changed, and change nothing.")
json_option = click.option("--json", "wants_json", is_flag=True, help="Print the recap as JSON.")


@click.command(short_help="Install this program as a service of the host, or upgrade it.")
@click.option("--now", is_flag=True, help="Start the service, or restart it where something changed.")
@click.option(
    "--within",
    metavar="TIME",
    default="30s",
    callback=_seconds,
    help="How long it may take to be healthy. [30s]",
)
@click.option(
    "--from",
    "source",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Install this folder form instead of the program that is running.",
)
@root_option
@dry_option
@json_option
def install(
    *, now: bool, within: float, source: Path | None, root: Path, dry_run: bool, wants_json: bool
) -> None:
    """Install this program as a systemd service of the host, as root.

    Makes the user, the directories, a first ruleset, the unit; a second run changes nothing. Run from another
    version, it is the upgrade: the ruleset is checked by the new one first, and with --now the earlier one
    comes back by itself when the new one is not healthy in time.
    """
    where = Root(root)
    if now and not where.is_host:
        raise click.UsageError("--now starts a service, and --root is for an image, which runs none")
    folder = source or tree()
    check_rights(dry_run=dry_run)
    if folder is None and not dry_run:
        complain("install needs a frozen form of the program, and this runs from source", "make binary")
        raise SystemExit(WRONG_INPUT)
    try:
        with alone(where, dry_run=dry_run):
            run = _Installation(where, folder, Recap(wants_json, dry_run))
            raise SystemExit(run.rehearse() if dry_run else run.perform(now=now, within=within))
    except (NoFolderFormError, OutsideError, CommandError) as error:
        complain(str(error))
        raise SystemExit(1) from None


def check_rights(*, dry_run: bool) -> None:
    """End the program where this user may not do what is asked."""
    if os.geteuid() and not dry_run:
        complain("only root may do this", "sudo; or --dry-run, to see what would be done")
        raise SystemExit(1)


@contextmanager
def alone(root: Root, *, dry_run: bool) -> Iterator[None]:
    """Let no second installation run meanwhile."""
    fd = os.open(root.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not dry_run:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        complain("another installation is at work", "wait until it has ended")
        raise SystemExit(1) from None
    finally:
        os.close(fd)


def refuse_obstacles(changes: tuple[Change, ...]) -> None:
    """End the program, before anything is changed, where something is in the way."""
    obstacles = [change for change in changes if change.obstacle]
    for change in obstacles:
        complain(f"{change.item} {change.obstacle}")
    if obstacles:
        raise SystemExit(1)


def perform(changes: tuple[Change, ...], root: Root, source: Path | None, recap: Recap) -> list[Change]:
    """Make changes, one after the other, up to the first that fails; give those that were made."""
    made = []
    for change in changes:
        if not change.what:
            recap.add(change.item, Status.OK)
            continue
        try:
            apply(change, root, source)
        except (OSError, CommandError) as error:
            recap.add(change.item, Status.FAILED, f"{change.what}: {error}")
            break
        recap.add(change.item, Status.CHANGED, change.what)
        made.append(change)
    return made


def rehearse(changes: tuple[Change, ...], recap: Recap) -> None:
    """Say what would be done."""
    for change in changes:
        recap.add(change.item, Status.CHANGED if change.what else Status.OK, change.what, change.diff)


class _Installation:
    """One run."""

    def __init__(self, root: Root, folder: Path | None, recap: Recap) -> None:
        self._root = root
        self._folder = folder
        self._recap = recap
        self._release = release_of(folder)
        self._check_rules()
        there = facts.programs(root)
        has_accounts = root.is_host or root.at(Path("/etc/passwd")).exists()
        self._changes = self._plan(installation(self._release, there, has_accounts=has_accounts))
        self._outdated = self._plan(outdated(self._release, there, self._running()))
        refuse_obstacles(self._changes)
        if not has_accounts:
            recap.note(f"user portway: {root.path} has no /etc/passwd yet; install once more when it has")

    def _plan(self, items: tuple[Item, ...]) -> tuple[Change, ...]:
        return plan(items, facts.look(items, self._root))

    def _running(self) -> str | None:
        return service.look().program if self._root.is_host and service.has_systemd() else None

    def _check_rules(self) -> None:
        """Have the new program check the ruleset; where that has problems, nothing is changed."""
        rules = self._root.at(RULES)
        if self._folder is None or not rules.exists():
            return
        if said := complaints(self._folder, rules):
            click.echo(said, err=True)
            complain(
                f"version {self._release.version} does not take this host's ruleset; nothing was changed"
            )
            raise SystemExit(WRONG_INPUT)

    def rehearse(self) -> int:
        """Say what would be done."""
        rehearse((*self._changes, *self._outdated), self._recap)
        return self._recap.close()

    def perform(self, *, now: bool, within: float) -> int:
        """Do it."""
        made = perform(self._changes, self._root, self._folder, self._recap)
        if not self._recap.count(Status.FAILED) and self._root.is_host:
            self._serve(made, within if now else None)
        if not self._recap.count(Status.FAILED):
            perform(self._outdated, self._root, None, self._recap)
        return self._recap.close()

    def _serve(self, made: list[Change], within: float | None) -> None:
        """Have systemd know of the changes; with a time limit, have the service run on them."""
        if not service.has_systemd():
            self._recap.note("systemd does not run this host: the service is not started")
            return
        try:
            self._reload(made)
            self._restart(made, within)
        except (OSError, CommandError, UnhealthyError) as error:
            self._recap.add("service portway", Status.FAILED, str(error))

    def _reload(self, made: list[Change]) -> None:
        if service.look().needs_reload or any(change.path in {UNIT, ENABLED} for change in made):
            service.reload_units()
            self._recap.add("systemd", Status.CHANGED, "units read anew")
        else:
            self._recap.add("systemd", Status.OK)

    def _restart(self, made: list[Change], within: float | None) -> None:
        """Restart a service that does not run, or runs on something else than what is installed."""
        running = service.look()
        admin = admin_of(self._root.at(RULES))
        is_outdated = running.program not in {None, self._release.name} or any(map(_matters, made))
        if running.is_active and not is_outdated:
            trouble = service.unhealthy(admin) if within is not None else ""
            self._recap.add("service portway", Status.FAILED if trouble else Status.OK, trouble)
        elif within is not None:
            roll_out(made, self._root, admin, within, self._recap.note)
            self._recap.add("service portway", Status.CHANGED, "restart" if running.is_active else "start")
        elif running.is_active:
            self._recap.note("the service still runs as it was: systemctl restart portway")
        else:
            self._recap.note("the service is not started: systemctl start portway")


def _matters(change: Change) -> bool:
    """Say whether a running service does not have what a change has made."""
    return isinstance(change.item, Link | Program) or change.path == UNIT
