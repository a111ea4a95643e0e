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

    state: str
    """active, activating, deactivating, inactive, failed, reloading."""
    needs_reload: bool
    """The unit's file is not the one that systemd has read."""
    program: str | None
    """The folder in /opt/portway that it runs from, where that can be seen."""
    invocation: str
    """Another one for each start."""

    @property
    def is_active(self) -> bool:
        """Say whether it runs, and has said that it is ready."""
        return self.state in {"active", "reloading"}

    @property
    def is_at_rest(self) -> bool:
        """Say whether it does not run, and does not try to."""
        return self.state in {"inactive", "failed"}


def has_systemd() -> bool:
    """Say whether systemd runs this host."""
    return _SYSTEMD.is_dir()


def look() -> Service:
    """Ask systemd. Raises CommandError."""
    wanted = ("ActiveState", "NeedDaemonReload", "MainPID", "InvocationID")
    said = run("systemctl", "show", SERVICE, *(f"--property={name}" for name in wanted))
    values = {name: value for name, _, value in (line.partition("=") for line in said.splitlines())}
    return Service(
        values.get("ActiveState", ""),
        values.get("NeedDaemonReload") == "yes",
        _program(values.get("MainPID", "0")),
        values.get("InvocationID", ""),
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


def begin_restart() -> None:
    """Have systemd start or restart the service, without waiting for it. Raises CommandError."""
    attempt("systemctl", "reset-failed", SERVICE)  # tries are counted anew; it fails where none were made
    run("systemctl", "restart", "--no-block", SERVICE)


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
