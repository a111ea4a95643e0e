"""The two slots at work: a newer image on another disk is tried once, and kept when it says that it is well.

The way of an upgrade: `offer` finds the image, copies it into the slot that is not in use, reads it back,
and enters it in grubenv as `next_entry` (for GRUB, which takes it off the list before it starts it) and
`trying` (for us). The new system calls `keep`, which makes it `saved_entry`. When the old system comes up
instead, with `trying` still there, the new one was not well: it becomes `refused`, and is not tried again.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from appliance import __version__
from appliance.machine import crash, grubenv
from appliance.machine.disks import BLOCKS, ConfigDisk
from appliance.machine.slots import (
    HEADER,
    LABEL,
    LABEL_OFFSET,
    PARTITIONS,
    SECTOR,
    SLOTS,
    SPAN,
    Booted,
    Slot,
    digest,
    is_taken,
    misfit,
    version_of,
    wanted,
    with_partition,
)
from appliance.observe.log import wall_clock

GRUBENV = "grub/grubenv"
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of looking for a new image: sentences for the console, and whether to start it."""

    lines: tuple[str, ...] = ()
    reboot: bool = False


@dataclass(frozen=True, slots=True)
class Medium:
    """Another disk with an image on it."""

    device: str
    slot: Slot


def offer(command_line: str, disk: ConfigDisk | None, blocks: str = BLOCKS, devices: str = "/dev") -> Outcome:
    """Look for a newer image on another disk, before the gateway starts. `disk` is the boot disk.

    Raises OSError where a disk cannot be read or written.
    """
    booted = Booted.of(command_line)
    if disk is None or not booted.slot:
        return Outcome()
    own = _disk_of(disk.device, blocks)
    running = _running(f"{devices}/{own}", booted)
    if booted.is_trial:
        return Outcome((f"Portway {running} is on trial; it is kept once it has been well for a while",))
    names = _names(disk.path)
    lines = _failed(disk, names, running) if "trying" in names else []
    newer = [
        medium
        for medium in _media(own, blocks, devices)
        if wanted(medium.slot.version, running, names.get("refused", ""))
    ]
    if not newer:
        return Outcome(tuple(lines))
    medium = max(newer, key=lambda each: version_of(each.slot.version))
    if trouble := _install(medium, f"{devices}/{own}", booted.other):
        lines.append(f"Portway {medium.slot.version} on {medium.device} is not tried: {trouble}")
        return Outcome(tuple(lines))
    names |= {"saved_entry": booted.slot, "next_entry": booted.other, "trying": medium.slot.version}
    _write(disk, names)
    lines.append(f"trying Portway {medium.slot.version} of {medium.device} in slot {booted.other}")
    return Outcome(tuple(lines), reboot=True)


def keep(command_line: str, disk: ConfigDisk | None) -> list[str]:
    """Keep the slot that this machine booted from: its gateway has been well for a while."""
    booted = Booted.of(command_line)
    if disk is None or not booted.slot or not booted.is_trial:
        return []
    names = _names(disk.path)
    names.pop("trying", None)
    names.pop("refused", None)
    _write(disk, names | {"saved_entry": booted.slot})
    return [f"the new version is well, and is kept: slot {booted.slot}"]


def _failed(disk: ConfigDisk, names: dict[str, str], running: str) -> list[str]:
    """Note that the version on trial was not well."""
    version = names.pop("trying")
    names["refused"] = version
    names["next_entry"] = ""
    reason = f"Portway {version} was tried and was not well; this is {running} again"
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall_clock()))
    record = crash.Crash(now, round(uptime, 1), reason, version=__version__)
    _write(disk, names)
    with disk.writable() as folder:
        (folder / crash.NAME).write_bytes(crash.appended(crash.read(folder), record))
    return [f"{reason}. It is not tried again"]


# -- grubenv ------------------------------------------------------------------------------------------


def _names(folder: Path) -> dict[str, str]:
    """Read grubenv; one that is damaged or not there is empty, as it is for GRUB."""
    try:
        return grubenv.parse((folder / GRUBENV).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}


def _write(disk: ConfigDisk, names: dict[str, str]) -> None:
    """Overwrite grubenv where it lies; make it where it is not there."""
    block = grubenv.render(names)
    with disk.writable() as folder:
        (folder / GRUBENV).touch()
        with (folder / GRUBENV).open("r+b", buffering=0) as file:
            file.write(block)
            os.fsync(file.fileno())


# -- disks --------------------------------------------------------------------------------------------


def _disk_of(partition: str, blocks: str) -> str:
    """Name the disk that a partition's device is on (sysfs has partitions below their disks)."""
    return Path(blocks, Path(partition).name).resolve().parent.name


def _running(device: str, booted: Booted) -> str:
    """Give the version that our slot says it has: what an image's slot says is compared with that."""
    with Path(device).open("rb", buffering=0) as disk:
        try:
            return Slot.parse(os.pread(disk.fileno(), HEADER.stop, SLOTS[booted.slot] * SECTOR)).version
        except ValueError:
            return __version__


def _media(own: str, blocks: str, devices: str) -> list[Medium]:
    """Find the other disks that hold an image of ours."""
    found = []
    for block in sorted(Path(blocks).iterdir()):
        if block.name == own or (block / "partition").exists():
            continue
        with suppress(OSError, ValueError):
            found.append(Medium(f"{devices}/{block.name}", _slot_on(f"{devices}/{block.name}")))
    return found


def _slot_on(device: str) -> Slot:
    """Read what a disk's slot a says; OSError or ValueError where it has none."""
    with Path(device).open("rb", buffering=0) as disk:
        if os.pread(disk.fileno(), len(LABEL), LABEL_OFFSET) != LABEL:
            raise ValueError("no partition labelled PORTWAY")
        return Slot.parse(os.pread(disk.fileno(), HEADER.stop, SLOTS["a"] * SECTOR))


def _install(medium: Medium, own: str, slot: str) -> str:
    """Copy an image's slot into one of ours and enter it in the partition table; say why not."""
    with ExitStack() as files:
        source = files.enter_context(Path(medium.device).open("rb", buffering=0)).fileno()
        target = files.enter_context(Path(own).open("r+b", buffering=0)).fileno()
        if trouble := misfit(slot, medium.slot, os.lseek(target, 0, os.SEEK_END) // SECTOR):
            return trouble
        if is_taken(slot, os.pread(target, SECTOR, 0)):
            return (
                f"on {own} a partition that is not Portway's has the sectors or the number of slot {slot}; "
                f"nothing was changed. Free are the sectors from {SLOTS['b'] + SPAN}, as partition 4"
            )
        start, size = SLOTS[slot] * SECTOR, medium.slot.sectors * SECTOR
        at = start
        for piece in _pieces(source, SLOTS["a"] * SECTOR, size):
            at += os.pwrite(target, piece, at)
        os.fsync(target)
        # Read back from the disk itself, not from the pages that were just written.
        os.posix_fadvise(target, start, size, os.POSIX_FADV_DONTNEED)
        if digest(_pieces(target, start, size)) != medium.slot.sha256:
            return "its contents are not what it says (SHA-256)"
        table = os.pread(target, SECTOR, 0)
        os.pwrite(target, with_partition(table, PARTITIONS[slot], SLOTS[slot], medium.slot.sectors), 0)
        os.fsync(target)
    return ""


def _pieces(fd: int, start: int, size: int) -> Iterator[bytes]:
    for at in range(start, start + size, PIECE):
        yield os.pread(fd, min(PIECE, start + size - at), at)
