"""A new program takes over the service; one that is not healthy in time gives it back."""

import signal
import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from appliance.host import service
from appliance.host.apply import undo
from appliance.host.commands import CommandError
from appliance.host.layout import ADMIN, CURRENT, PREVIOUS, UNIT, Root
from appliance.host.plan import Change, Kind

_LOOK: Final = 0.25
"""Seconds between two looks whether it is healthy."""


class UnhealthyError(Exception):
    """The service did not become healthy: the text says how it came out."""


def admin_of(rules: Path) -> str:
    """Give the admin address that a ruleset, which has been checked, names; or the unit's."""
    try:
        gateway = tomllib.loads(rules.read_text(encoding="utf-8-sig")).get("gateway", {})
    except (OSError, ValueError):
        return str(ADMIN)
    return str(gateway.get("admin", ADMIN))


def roll_out(done: list[Change], root: Root, admin: str, within: float, say: Callable[[str], None]) -> None:
    """Restart the service on what is installed now; go back where it is not healthy in time.

    `done` are the changes that led here. Raises UnhealthyError, CommandError, OSError.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the restart may cut the session in which this runs
    try:
        trouble = _trouble(admin, within)
    except (CommandError, OSError, KeyboardInterrupt) as error:
        trouble = str(error) or "interrupted"
    if not trouble:
        return
    if not any(map(_replaces, done)):
        way = "there is nothing earlier to go back to"
        if root.at(PREVIOUS).is_symlink():
            way = f"`{PREVIOUS}/portway install --now` goes back"
        raise UnhealthyError(f"{trouble}; {way}. See journalctl -u portway")
    with suppress(OSError):  # whoever read it may be gone
        say(f"{trouble}; going back to what there was")
    for change in reversed(done):
        undo(change, root)
    service.reload_units()
    if still := _trouble(admin, within):
        raise UnhealthyError(f"{trouble}; what there was is back, and is not healthy either: {still}")
    raise UnhealthyError(f"{trouble}; what there was is back, and healthy")


def _replaces(change: Change) -> bool:
    """Say whether there was another program, or another unit, before."""
    return change.path in {CURRENT, UNIT} and change.before.kind is not Kind.NOTHING


def _trouble(admin: str, within: float) -> str:
    """Restart the service and wait until it is healthy; say what is wrong when the time is over.

    The time that the earlier process takes to drain does not count.
    """
    before = service.look().invocation
    service.begin_restart()
    deadline = time.monotonic() + within
    while True:
        seen = service.look()
        if seen.state == "deactivating":
            deadline = time.monotonic() + within
        trouble = _trouble_now(seen, before, admin)
        if not trouble:
            return ""
        if time.monotonic() > deadline:
            return f"not healthy within {within:g} s: {trouble}"
        time.sleep(_LOOK)


def _trouble_now(seen: service.Service, before: str, admin: str) -> str:
    if seen.invocation == before:
        return "systemd has not restarted it"
    if not seen.is_active:
        return f"the service does not start, it is {seen.state}"
    return service.unhealthy(admin)
