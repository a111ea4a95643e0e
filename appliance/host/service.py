"""The running service, as systemd has it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.host.commands import attempt, run
from appliance.host.layout import LAUNCHER, PROGRAMS, SERVICE

_SYSTEMD: Final = Path("/run/systemd/system")
"""It is there where systemd is the one that runs (sd_booted(3))."""


@dataclass(frozen=True, slots=True)
class Service:
    """What systemd knows of the service."""

    is_active: bool
    is_at_rest: bool
    """It does not run, and does not try to."""
    needs_reload: bool
    """The unit's file is not the one that systemd has read."""
    program: str | None
    """The folder in /opt/portway that it runs from, where that can be seen."""


def has_systemd() -> bool:
    """Say whether systemd runs this host."""
    return _SYSTEMD.is_dir()


def look() -> Service:
    """Ask systemd. Raises CommandError."""
    wanted = ("ActiveState", "NeedDaemonReload", "MainPID")
    said = run("systemctl", "show", SERVICE, *(f"--property={name}" for name in wanted))
    values = dict(line.partition("=")[::2] for line in said.splitlines())
    state = values.get("ActiveState")
    return Service(
        state in {"active", "reloading"},
        state in {"inactive", "failed"},
        values.get("NeedDaemonReload") == "yes",
        _program(values.get("MainPID", "0")),
    )


def _program(pid: str) -> str | None:
    try:
        path = Path(f"/proc/{pid}/exe").readlink()
    except OSError:  # no such process
        return None
    return path.relative_to(PROGRAMS).parts[0] if path.is_relative_to(PROGRAMS) else None


def reload_units() -> None:
    """Have systemd read its units anew. Raises CommandError."""
    run("systemctl", "daemon-reload")


def restart(within: float) -> None:
    """Start or restart the service, and wait until it is ready. Raises CommandError if it is late."""
    attempt("systemctl", "reset-failed", SERVICE)  # tries are counted anew; it fails where none were made
    run("systemctl", "restart", SERVICE, within=within)


def stop() -> None:
    """Stop the service, and wait until it has ended. Raises CommandError."""
    run("systemctl", "stop", SERVICE)


def unhealthy(admin: str) -> str:
    """Ask the running gateway whether it is well: empty when it is, else a sentence.

    "@" is an address of the service's own mount namespace, out of reach from here: then systemd's
    word counts.
    """
    if admin == "@":
        return ""
    done = attempt(LAUNCHER, "status", "--healthy", "--admin", admin)
    if not done.returncode:
        return ""
    said = (done.stderr or done.stdout).strip().partition("\n")[0].removeprefix("portway: ")
    return said or f"`portway status --healthy` ended with {done.returncode}"
