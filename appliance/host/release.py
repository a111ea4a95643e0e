"""The folder form that is to be installed: which it is, and what it thinks of this host's ruleset."""

from pathlib import Path

from appliance import __version__
from appliance.host import tree
from appliance.host.commands import CommandError, attempt, run
from appliance.host.layout import LAUNCHER, PROGRAMS
from appliance.host.wanted import Release


class NoFolderFormError(Exception):
    """There is no folder form to install: the text says why."""


def release_of(folder: Path | None) -> Release:
    """Say which version a folder form is, by asking it; of None, this one, whose digest nobody knows.

    Raises NoFolderFormError where it is none, or does not run on this host.
    """
    if folder is None:
        return Release(__version__, None)
    launcher = folder / LAUNCHER.name
    try:
        said = run(launcher, "--version").split()
    except (OSError, CommandError) as error:
        raise NoFolderFormError(f"{folder} holds no folder form that runs here: {error}") from None
    if not said:
        raise NoFolderFormError(f"{launcher} does not say which version it is")
    release = Release(said[-1], tree.digest(folder))
    if folder.resolve().parent == PROGRAMS and folder.resolve().name != release.name:
        raise NoFolderFormError(f"{folder} is damaged: install from the file or the folder it came from")
    return release


def complaints(folder: Path, rules: Path) -> str:
    """Have a folder form check a ruleset: what it says is wrong, or nothing."""
    done = attempt(folder / LAUNCHER.name, "check", rules)
    return "" if not done.returncode else done.stderr.strip() or f"exit status {done.returncode}"
