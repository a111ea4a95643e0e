"""The two slots of the machine's disk, each a kernel and an initramfs: where they lie and which is wanted.

Pure. A disk (sectors of 512 bytes):

    0         boot sector: GRUB's first stage, the disk's signature, the partition table
    1         GRUB's core, for BIOS
    2048      partition 1: FAT, labelled PORTWAY: the operator's two files, GRUB for UEFI, grubenv
    8192      partition 2: slot a, up to 32 MiB; the image ends where its contents end
    73728     partition 3: slot b, up to 32 MiB, on a disk that has the room
    139264    free: partition 4 is the operator's

A slot is a FAT file system of its own, just as large as its two files: both firmwares read it. It is
installed as a whole, by plain writes, and checked by reading it back; nobody writes a file in it. Its
reserved sectors 2 and 3 hold a GRUB environment block that says what it is: version, length, SHA-256, the
kernel's command line.
"""

import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from appliance.machine import grubenv

SECTOR = 512
FAT_SECTOR = 2048
SLOTS = {"a": 8192, "b": 73728}
PARTITIONS = {"a": 2, "b": 3}
SPAN = 65536
"""Sectors that a slot may have."""
HEADER = slice(2 * SECTOR, 2 * SECTOR + grubenv.SIZE)
"""Where a slot's own description lies in it, in bytes."""
SIGNATURE = slice(440, 444)
"""Where the boot sector holds the disk's signature, little-endian."""
LABEL = b"PORTWAY    "
LABEL_OFFSET = FAT_SECTOR * SECTOR + 43
"""Where the label of a FAT12 file system in partition 1 lies, in bytes."""
EFI_TYPE = 0xEF
"""The partition type that firmware looks into."""

_TABLE, _ENTRY = 446, 16

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Booted:
    """What the kernel's command line says of where it came from; `slot` is empty when no slot booted it."""

    slot: str = ""
    signature: int | None = None
    is_trial: bool = False

    @classmethod
    def of(cls, command_line: str) -> Self:
        """Read /proc/cmdline."""
        words = dict(word.partition("=")[::2] for word in command_line.split())
        slot, signature = words.get("portway.slot", ""), words.get("portway.disk", "")
        known = re.fullmatch(r"0x[0-9a-f]{1,8}", signature)
        return cls(
            slot if slot in SLOTS else "", int(signature, 16) if known else None, "portway.trial" in words
        )

    @property
    def other(self) -> str:
        """The slot that is not ours."""
        return "b" if self.slot == "a" else "a"


@dataclass(frozen=True, slots=True)
class Slot:
    """What a slot says of itself: its version, its sectors, the SHA-256 of all but this, the command line."""

    version: str
    sectors: int
    sha256: str
    arguments: str

    @classmethod
    def parse(cls, beginning: bytes) -> Self:
        """Read a slot's first sectors; ValueError when they are none."""
        names = grubenv.parse(beginning[HEADER])
        try:
            slot = cls(names["version"], int(names["sectors"]), names["sha256"], names["arguments"])
        except KeyError as missing:
            raise ValueError(f"a slot that names no {missing.args[0]}") from None
        if not 0 < slot.sectors <= SPAN:
            raise ValueError(f"a slot of {slot.sectors} sectors")
        return slot

    def render(self) -> bytes:
        """Write the block that `parse` reads."""
        names = {"version": self.version, "sectors": str(self.sectors), "sha256": self.sha256}
        return grubenv.render({**names, "arguments": self.arguments})


def digest(pieces: Iterable[bytes]) -> str:
    """Sum up a slot's bytes, its own description left out, which the first piece must hold in whole."""
    summed = hashlib.sha256()
    for number, piece in enumerate(pieces):
        if number:
            summed.update(piece)
        else:
            summed.update(piece[: HEADER.start])
            summed.update(piece[HEADER.stop :])
    return summed.hexdigest()


def signature(boot_sector: bytes) -> int:
    """Read the disk's signature."""
    return int.from_bytes(boot_sector[SIGNATURE], "little")


def with_partition(
    boot_sector: bytes, number: int, start: int, sectors: int, *, active: bool = False
) -> bytes:
    """Enter partition `number` (from 1) into a boot sector, by its sectors.

    Cylinders and heads are the largest there are, which says that they are not used.
    """
    unused = b"\xfe\xff\xff"
    place = start.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    entry = bytes([0x80 if active else 0]) + unused + bytes([EFI_TYPE]) + unused + place
    offset = _TABLE + (number - 1) * _ENTRY
    return boot_sector[:offset] + entry + boot_sector[offset + _ENTRY :]


def misfit(slot: str, contents: Slot, disk_sectors: int) -> str:
    """Say why contents do not fit into a slot of a disk; empty when they do."""
    if SLOTS[slot] + contents.sectors <= disk_sectors:
        return ""
    return f"the disk has {_mib(disk_sectors)} MiB, and two slots need {_mib(SLOTS['b'] + SPAN)}: enlarge it"


def is_taken(slot: str, boot_sector: bytes) -> bool:
    """Tell whether a partition that is not the slot's own lies on the slot's sectors, or has its number."""
    begin, end = SLOTS[slot], SLOTS[slot] + SPAN
    for number in range(1, 5):
        entry = boot_sector[_TABLE + (number - 1) * _ENTRY :][:_ENTRY]
        start, size = struct.unpack_from("<II", entry, 8)
        is_slots = number == PARTITIONS[slot]
        if is_slots and entry[4] == EFI_TYPE and start == begin:
            continue
        if size and (is_slots or (start < end and begin < start + size)):
            return True
    return False


def version_of(text: str) -> Version:
    """Order versions: numbers as numbers; `1.2.0` comes after `1.2.0rc1`, which ends in a word."""
    numbers, word = re.match(r"([0-9.]*)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]  # any text
    counted = [int(number) for number in re.findall(r"[0-9]+", word)]
    return (*(int(number) for number in numbers.split(".") if number), -1 if word else 0, *counted)


def wanted(offered: str, running: str, refused: str) -> bool:
    """Tell whether an offered version is to be tried: newer than ours, and not the one that failed before."""
    return version_of(offered) > version_of(running) and offered != refused


def _mib(sectors: int) -> int:
    return -(-sectors * SECTOR // (1 << 20))
