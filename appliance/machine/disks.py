"""Disks and what is on them: file systems found by label, read from their first blocks, as blkid(8) does."""

import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.machine.syscalls import MountFlag, mount

Read = Callable[[int, int], bytes]
"""Give so many bytes from an offset of a block device; fewer at its end."""

BLOCKS: Final = "/sys/class/block"
MOUNTED_AT: Final = "/mnt/portway"
SEED_AT: Final = "/mnt/seed"

_SAFE: Final = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
_SIGNATURE: Final = slice(440, 444)
_SECTORS: Final = range(512, 4097)
_VOLUME: Final = 0x08
_LONG_NAME: Final = 0x0F
_ENTRY: Final = 32


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a block device holds: kind (as mount(2) calls it), label, and serial where it has a short one."""

    kind: str
    label: str
    serial: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A file system on a device, and the signature of the disk whose first partition it is, if it is one."""

    device: str
    file_system: FileSystem
    signature: int | None = None


@dataclass(frozen=True, slots=True)
class ConfigDisk:
    """The boot disk's PORTWAY partition, mounted read-only."""

    device: str
    path: Path

    @contextmanager
    def writable(self) -> Iterator[Path]:
        """Let its files be written while the block runs. Raises OSError where the device cannot be."""
        flags = _SAFE | MountFlag.REMOUNT
        mount(self.device, str(self.path), "vfat", flags, FAT_OPTIONS)
        try:
            yield self.path
        finally:
            os.sync()
            mount(self.device, str(self.path), "vfat", flags | MountFlag.RDONLY, FAT_OPTIONS)


FAT_OPTIONS: Final = "umask=0077,codepage=437,iocharset=ascii,errors=remount-ro"

# -- looking at blocks --------------------------------------------------------------------------------


def identify(read: Read) -> FileSystem | None:
    """Say what a device holds, by the formats of FAT, ISO 9660 and ext4; None for anything else."""
    boot = read(0, 512)
    return _fat(boot, read) or _ext4(read(1024, 264)) or _iso9660(read(0x8000, 72))


def _fat(boot: bytes, read: Read) -> FileSystem | None:
    """Read FAT's boot sector (Microsoft, FAT32 File System Specification 1.03)."""
    if len(boot) < 512 or boot[510:] != b"\x55\xaa":  # noqa: PLR2004  a sector
        return None
    if boot[0x52:0x57] == b"FAT32":
        extended = 0x42
    elif boot[0x36:0x39] == b"FAT":
        extended = 0x26
    else:
        return None
    serial, label = struct.unpack_from("<I11s", boot, extended + 1)
    written = _root_label(boot, read, is_32=extended == 0x42)  # noqa: PLR2004  the format's own
    text = (label if written is None else written).decode("ascii", "replace").strip()
    return FileSystem("vfat", "" if text == "NO NAME" else text, f"{serial >> 16:04X}-{serial & 0xFFFF:04X}")


def _root_label(boot: bytes, read: Read, *, is_32: bool) -> bytes | None:
    """Give the label as the root directory has it: that is the one which Windows and macOS change."""
    sector, per_cluster, reserved, fats, entries = struct.unpack_from("<HBHBH", boot, 0x0B)
    if sector not in _SECTORS:
        return None
    if is_32:
        per_fat, _, _, root = struct.unpack_from("<IHHI", boot, 0x24)
        start, size = reserved + fats * per_fat + (root - 2) * per_cluster, sector * per_cluster
    else:
        (per_fat,) = struct.unpack_from("<H", boot, 0x16)
        start, size = reserved + fats * per_fat, entries * _ENTRY
    directory = read(start * sector, size)
    for at in range(0, len(directory) - _ENTRY + 1, _ENTRY):
        name, attributes = directory[at : at + 11], directory[at + 11]
        if not name[0]:
            break
        if name[0] != 0xE5 and attributes & _VOLUME and attributes & _LONG_NAME != _LONG_NAME:  # noqa: PLR2004  the format's own
            return name
    return None


def _ext4(block: bytes) -> FileSystem | None:
    """Read ext4's superblock (kernel, Documentation/filesystems/ext4/super.rst)."""
    if block[0x38:0x3A] != b"\x53\xef":
        return None
    return FileSystem("ext4", block[0x78:0x88].split(b"\0")[0].decode("ascii", "replace"))


def _iso9660(block: bytes) -> FileSystem | None:
    """Read the primary volume descriptor (ECMA-119, 8.4)."""
    if block[:6] != b"\x01CD001":
        return None
    return FileSystem("iso9660", block[40:72].decode("ascii", "replace").strip())


# -- devices ------------------------------------------------------------------------------------------


def look(blocks: str = BLOCKS, devices: str = "/dev") -> list[Found]:
    """Look at every disk and partition, in the order of their names."""
    found = []
    for name in sorted(path.name for path in Path(blocks).iterdir()):
        if name.startswith(("loop", "ram", "zram", "dm-")):
            continue
        device = f"{devices}/{name}"
        if file_system := _look_at(device):
            disk = _disk_of_first_partition(Path(blocks, name))
            found.append(Found(device, file_system, _signature(f"{devices}/{disk}") if disk else None))
    return found


def _disk_of_first_partition(block: Path) -> str | None:
    """Name the disk that a device is the first partition of (sysfs has partitions below their disks)."""
    try:
        is_first = (block / "partition").read_text(encoding="ascii").strip() == "1"
    except OSError:
        return None
    return block.resolve().parent.name if is_first else None


def _signature(device: str) -> int | None:
    """Read a disk's signature, as its boot sector has it."""
    try:
        with Path(device).open("rb", buffering=0) as disk:
            return int.from_bytes(disk.read(512)[_SIGNATURE], "little")
    except OSError:
        return None


def _look_at(device: str) -> FileSystem | None:
    try:
        fd = os.open(
            device, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        )  # a drive without a medium: no waiting
    except OSError:
        return None
    try:
        return identify(lambda offset, size: os.pread(fd, size, offset))
    except OSError:
        return None
    finally:
        os.close(fd)


def choose_config(found: list[Found], signature: int | None) -> Found | None:
    """Choose the PORTWAY partition: the first of the disk that was booted; where none was, by label."""
    for each in found:
        if each.file_system.kind != "vfat":
            continue
        if each.signature == signature if signature is not None else each.file_system.label == "PORTWAY":
            return each
    return None


def choose_seed(found: list[Found]) -> Found | None:
    """Choose the NoCloud seed: FAT or ISO 9660, labelled cidata."""
    return next((each for each in found if each.file_system.label.lower() == "cidata"), None)


def choose_state(found: list[Found]) -> Found | None:
    """Choose the disk for state: ext4 or FAT (whose labels have 11 characters), labelled PORTWAY-STATE."""
    labels = {"ext4": "PORTWAY-STATE", "vfat": "PORTWAY-STA"}
    return next((each for each in found if labels.get(each.file_system.kind) == each.file_system.label), None)


def wait_for(signature: int | None, deadline: float, look: Callable[[], list[Found]] = look) -> list[Found]:
    """Look until the boot disk's partition is there, or the deadline (monotonic) has passed.

    NVMe and SCSI disks are found by the kernel in its own time, after their driver is there.
    """
    while True:
        found = look()
        if choose_config(found, signature) or time.monotonic() >= deadline:
            return found
        time.sleep(0.05)


def mount_config(found: Found) -> ConfigDisk:
    """Mount the PORTWAY partition, read-only. Raises OSError."""
    path = Path(MOUNTED_AT)
    path.mkdir(parents=True, exist_ok=True)
    mount(found.device, str(path), "vfat", _SAFE | MountFlag.RDONLY, FAT_OPTIONS)
    return ConfigDisk(found.device, path)


def mount_seed(found: Found) -> Path:
    """Mount the seed disk, which is only read. Raises OSError."""
    path = Path(SEED_AT)
    path.mkdir(parents=True, exist_ok=True)
    options = FAT_OPTIONS if found.file_system.kind == "vfat" else ""
    mount(found.device, SEED_AT, found.file_system.kind, _SAFE | MountFlag.RDONLY, options)
    return path


def mount_state(found: Found, at: str, uid: int, gid: int) -> None:
    """Mount the disk for state, so that the gateway may write there. Raises OSError."""
    if found.file_system.kind == "vfat":
        mount(found.device, at, "vfat", _SAFE, f"uid={uid},gid={gid},{FAT_OPTIONS}")
        return
    mount(found.device, at, found.file_system.kind, _SAFE)
    with suppress(OSError):
        os.chown(at, uid, gid)
