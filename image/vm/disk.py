"""The disk: boot sector, GRUB for BIOS and UEFI, the PORTWAY partition, slot a.

Made without root, loop device or mount.
Layout: `appliance.machine.slots`. Both firmwares read the same `grub/grub.cfg` and `grub/grubenv`.
"""

import hashlib
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.machine import grubenv
from appliance.machine.slots import (
    FAT_SECTOR,
    HEADER,
    LABEL,
    PARTITIONS,
    SECTOR,
    SIGNATURE,
    SLOTS,
    SPAN,
    Slot,
    digest,
    with_partition,
)
from image.vm import fat

GRUB = Path("/usr/lib/grub")
# What GRUB needs to read one configuration and one FAT, and to write the environment block.
MODULES = "part_msdos fat normal loadenv regexp test echo sleep reboot serial terminal".split()  # noqa: SIM905
BIOS_MODULES = ["biosdisk", "linux", *MODULES]
EFI_MODULES = ["chain", *MODULES]
CONFIGURATION_SHAPE = fat.Shape(sectors=SLOTS["a"] - FAT_SECTOR, per_cluster=4)
SLOT_CLUSTER, SLOT_RESERVED = 32, 8
"""Sectors of a slot's clusters (16 KiB), and before its tables: its description is among them."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes onto a disk: slot a's kernel, initramfs and command line; files of PORTWAY by path."""

    version: str
    kernel: bytes
    initrd: bytes
    arguments: str
    files: dict[str, bytes]
    epoch: int


def build(contents: Contents, configuration: str) -> bytes:
    """Make the bytes of a disk; `configuration` is grub.cfg with @SIGNATURE@ to fill in."""
    signature = _signature(contents)
    slot = _slot(contents, signature)
    core, efi = _grub("i386-pc", BIOS_MODULES, "(,msdos1)/grub"), _grub("x86_64-efi", EFI_MODULES, "/grub")
    files = {
        **contents.files,
        "EFI/BOOT/BOOTX64.EFI": efi,
        "grub/grub.cfg": configuration.replace("@SIGNATURE@", f"{signature:#010x}").encode(),
        "grub/grubenv": grubenv.render({"saved_entry": "a"}),
    }
    label = LABEL.decode().strip()
    partition = fat.build(CONFIGURATION_SHAPE, label, signature, FAT_SECTOR, files, contents.epoch)
    boot = _boot_sector(signature, len(slot) // SECTOR)
    return _joined({0: boot, 1: core, FAT_SECTOR: partition, SLOTS["a"]: slot})


def _joined(parts: dict[int, bytes]) -> bytes:
    """Put parts at their sectors; the last one ends the disk."""
    disk = bytearray()
    for sector, data in sorted(parts.items()):
        if len(disk) > sector * SECTOR:
            raise SystemExit(f"vm: what comes before sector {sector} of the disk is too long")
        disk += bytes(sector * SECTOR - len(disk)) + data
    return bytes(disk)


def _signature(contents: Contents) -> int:
    """Name the disk by what is on it: two images are told apart, and the same one is the same bytes."""
    text = hashlib.sha256(contents.version.encode() + contents.kernel + contents.initrd).digest()
    return int.from_bytes(text[:4], "little") or 1


def _slot(contents: Contents, serial: int) -> bytes:
    files = {"vmlinuz": contents.kernel, "initrd": contents.initrd}
    shape = fat.shape_for([len(data) for data in files.values()], SLOT_CLUSTER, SLOT_RESERVED)
    if shape.sectors > SPAN:
        raise SystemExit(f"vm: a slot of {shape.sectors} sectors; it may have {SPAN}")
    data = fat.build(shape, "SLOT", serial, SLOTS["a"], files, contents.epoch)
    slot = Slot(contents.version, shape.sectors, "", contents.arguments)
    header = replace(slot, sha256=digest([data])).render()
    return data[: HEADER.start] + header + data[HEADER.stop :]


def _grub(target: str, modules: list[str], prefix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image"
        options = ["--format", target, "--prefix", prefix, "--output", str(image)]
        subprocess.run(["grub-mkimage", *options, *modules], check=True)
        return image.read_bytes()


def _boot_sector(signature: int, slot_sectors: int) -> bytes:
    """GRUB's first stage, which loads what begins at sector 1 (its own default), and the partition table."""
    stage = (GRUB / "i386-pc/boot.img").read_bytes()
    # Some BIOSes name another drive than they boot from; doing nothing twice takes the check off, as
    # grub-install does for hard disks (boot_drive_check in grub-core/boot/i386/pc/boot.S).
    code = stage[:0x66] + b"\x90\x90" + stage[0x68 : SIGNATURE.start]
    sector = code + signature.to_bytes(4, "little")
    sector += bytes(SECTOR - len(sector) - 2) + b"\x55\xaa"
    sector = with_partition(sector, 1, FAT_SECTOR, SLOTS["a"] - FAT_SECTOR, active=True)
    return with_partition(sector, PARTITIONS["a"], SLOTS["a"], slot_sectors)
