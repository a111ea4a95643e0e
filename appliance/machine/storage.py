"""The machine's disks at work: where the two files are, what is kept from one start to the next."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from appliance import __version__
from appliance.machine import crash, mounts
from appliance.machine.config import LAST_GOOD, NETWORK, RULES, Place
from appliance.machine.disks import (
    ConfigDisk,
    Found,
    choose_config,
    choose_seed,
    choose_state,
    look,
    mount_config,
    mount_seed,
    mount_state,
    wait_for,
)
from appliance.machine.drivers import Drivers, modaliases
from appliance.machine.privileges import GID, UID
from appliance.machine.rules import Candidate
from appliance.machine.slots import Booted
from appliance.machine.syscalls import unmount
from appliance.observe.log import wall_clock

DISK_WITHIN: Final = 10.0
"""Seconds that the disk which was booted may take to appear."""

IMAGE: Final = Path("/etc/portway")
"""Where an image may have the two files itself."""

_MODULES: Final = {"vfat": ("nls_cp437", "nls_ascii", "vfat"), "iso9660": ("isofs",)}
"""The kernel modules of a file system; ext4 is built in."""


class Storage:
    """Seed disk, PORTWAY partition, state disk."""

    def __init__(self, problems: list[str]) -> None:
        """`problems` gets a sentence for what cannot be used."""
        self._problems = problems
        self.disk: ConfigDisk | None = None
        self.state = "none: no disk is labelled PORTWAY-STATE"
        self.places: list[Place] = []

    def mount(self, booted: Booted, drivers: Drivers) -> None:
        """Find and mount what there is."""
        self._drivers = drivers
        found = self._find(booted)
        for about, chosen, mount in (
            ("the seed disk", choose_seed(found), self._mount_seed),
            ("the PORTWAY partition", choose_config(found, booted.signature), self._mount_config),
            ("the state disk", choose_state(found), self._mount_state),
        ):
            if chosen:
                drivers.need(*_MODULES.get(chosen.file_system.kind, ()))
                self._attempt(about, lambda chosen=chosen, mount=mount: mount(chosen))  # type: ignore[misc]
        self.places.append(Place(str(IMAGE), IMAGE))

    def _find(self, booted: Booted) -> list[Found]:
        if booted.signature is None:
            return look()

        def look_again() -> list[Found]:
            self._drivers.settle(modaliases)  # a disk behind SCSI wants another driver
            return look()

        return wait_for(booted.signature, time.monotonic() + DISK_WITHIN, look_again)

    def _attempt(self, about: str, task: Callable[[], None]) -> None:
        try:
            task()
        except OSError as error:
            self._problems.append(f"{about} cannot be used: {error.strerror or error}")

    def _mount_seed(self, found: Found) -> None:
        self.places.append(Place(f"seed disk {found.device}", mount_seed(found), is_seed=True))

    def _mount_config(self, found: Found) -> None:
        self.disk = mount_config(found)
        self.places.append(Place("PORTWAY", self.disk.path))

    def _mount_state(self, found: Found) -> None:
        mount_state(found, mounts.STATE, UID, GID)
        self.state = f"{found.device} ({found.file_system.kind}) at {mounts.STATE}"

    def unmount(self) -> None:
        """Let go of the disks."""
        for path in (mounts.STATE, *([str(self.disk.path)] if self.disk else [])):
            with suppress(OSError):
                unmount(path)

    # -- for people -----------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        """Say where the two files are looked for."""
        labels = [place.label for place in self.places if place.path != IMAGE]
        if not labels:
            return "no disk has a partition labelled PORTWAY"
        device = f" ({self.disk.device})" if self.disk else ""
        return f"{RULES} and {NETWORK} on {', then '.join(labels)}{device}"

    # -- what is kept ---------------------------------------------------------------------------------

    @property
    def kept(self) -> Path | None:
        """Where the last good ruleset is kept."""
        return self.disk.path if self.disk else None

    def keep(self, candidate: Candidate) -> None:
        """Keep the rules that run well, unless they are kept already."""
        disk, data = self.disk, candidate.text.data
        if disk and candidate.is_own and not _holds(disk.path / LAST_GOOD, data):
            self._attempt("for keeping the rules, the PORTWAY partition", lambda: _keep(disk, data))

    def forget_restart(self) -> None:
        """End the row of crashes: the machine has been well for long, or somebody stops it."""
        disk = self.disk
        if disk and (disk.path / crash.MARK).exists():
            self._attempt("for the last restart, the PORTWAY partition", lambda: _forget(disk))

    def restarted_after(self) -> crash.Crash | None:
        """Give the crash that this start follows."""
        if self.disk is None or not (self.disk.path / crash.MARK).exists():
            return None
        return crash.last(crash.read(self.disk.path))

    def keep_reason(self, reason: str, lines: tuple[str, ...]) -> float:
        """Write down why the machine restarts; give how many seconds to wait before it does."""
        if (disk := self.disk) is None:
            return crash.UNKNOWN_PAUSE
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        attempt = crash.attempt_after(self.restarted_after(), uptime)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall_clock()))
        record = crash.Crash(now, round(uptime, 1), reason, attempt, __version__, lines)
        self._attempt("for crash.log, the PORTWAY partition", lambda: _record(disk, record))
        return crash.pause(attempt)


def _keep(disk: ConfigDisk, data: bytes) -> None:
    with disk.writable() as folder:
        (folder / LAST_GOOD).write_bytes(data)


def _forget(disk: ConfigDisk) -> None:
    with disk.writable() as folder:
        (folder / crash.MARK).unlink(missing_ok=True)


def _record(disk: ConfigDisk, record: crash.Crash) -> None:
    with disk.writable() as folder:
        (folder / crash.NAME).write_bytes(crash.appended(crash.read(folder), record))
        (folder / crash.MARK).touch()


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
