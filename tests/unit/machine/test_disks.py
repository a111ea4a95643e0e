"""File systems found by their first blocks, and which of several is meant."""

import struct
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from appliance.machine.disks import (
    FileSystem,
    Found,
    choose_config,
    choose_seed,
    choose_state,
    identify,
    look,
    wait_for,
)


def reading(data: bytes) -> Callable[[int, int], bytes]:
    """Read from bytes as from a disk."""
    return lambda offset, size: data[offset : offset + size]


def fat16(label: bytes = b"PORTWAY    ", root: bytes | None = None) -> bytes:
    """A FAT16 of the smallest kind: boot sector, one FAT of one sector, a root directory of 16 entries."""
    boot = bytearray(512)
    struct.pack_into("<HBHBHHBH", boot, 0x0B, 512, 4, 1, 1, 16, 5000, 0xF8, 1)
    boot[0x26] = 0x29
    struct.pack_into("<I11s8s", boot, 0x27, 0x1234ABCD, label, b"FAT16   ")
    boot[510:] = b"\x55\xaa"
    directory = b"" if root is None else b"A file  TXT\x20" + bytes(20) + root + b"\x08" + bytes(20)
    return bytes(boot) + bytes(512) + directory.ljust(512, b"\0")


def fat32(label: bytes = b"PORTWAY    ", root: bytes = b"") -> bytes:
    """A FAT32 whose root directory is its first cluster."""
    boot = bytearray(512)
    struct.pack_into("<HBHB", boot, 0x0B, 512, 1, 2, 1)
    struct.pack_into("<IHHI", boot, 0x24, 1, 0, 0, 2)
    struct.pack_into("<I11s8s", boot, 0x43, 0x00010002, label, b"FAT32   ")
    boot[510:] = b"\x55\xaa"
    directory = root + b"\x08" + bytes(20) if root else b""
    return bytes(boot) + bytes(1024) + directory.ljust(512, b"\0")


def test_fat_by_its_boot_sector() -> None:
    """Label and serial of FAT16 and FAT32 are read where mkfs writes them."""
    assert identify(reading(fat16())) == FileSystem("vfat", "PORTWAY", "1234-ABCD")
    assert identify(reading(fat32())) == FileSystem("vfat", "PORTWAY", "0001-0002")
    assert identify(reading(fat16(b"NO NAME    "))) == FileSystem("vfat", "", "1234-ABCD")


def test_a_label_that_was_changed() -> None:
    """Windows and macOS write a new label into the root directory only: that one counts."""
    system = identify(reading(fat16(root=b"CIDATA     ")))
    assert system is not None
    assert system.label == "CIDATA"
    system = identify(reading(fat32(root=b"CIDATA     ")))
    assert system is not None
    assert system.label == "CIDATA"


def test_ext4_and_iso9660() -> None:
    """A state disk and an ISO image are told by their labels."""
    ext4 = bytearray(2048)
    ext4[1024 + 0x38 : 1024 + 0x3A] = b"\x53\xef"
    ext4[1024 + 0x78 : 1024 + 0x85] = b"PORTWAY-STATE"
    assert identify(reading(bytes(ext4))) == FileSystem("ext4", "PORTWAY-STATE")
    iso = bytes(0x8000) + b"\x01CD001\x01\0" + b"LINUX".ljust(32) + b"cidata".ljust(32) + bytes(1976)
    assert identify(reading(iso)) == FileSystem("iso9660", "cidata")


@given(st.binary(max_size=600), st.booleans())
def test_any_blocks(noise: bytes, is_fat: bool) -> None:
    """Whatever a disk holds, looking at it raises nothing."""
    identify(reading(noise))
    identify(reading(fat32()[:0x0B] + noise[:480].ljust(499, b"\0") + b"\x55\xaa" if is_fat else noise))


PORTWAY = FileSystem("vfat", "PORTWAY")


def test_the_disk_that_was_booted_is_chosen() -> None:
    """Of two disks labelled PORTWAY it is the one that the boot loader named; else the first."""
    found = [
        Found("/dev/vda1", PORTWAY, 1),
        Found("/dev/vdb1", PORTWAY, 0x1A2B3C4D),
        Found("/dev/vdc", PORTWAY),
    ]
    assert choose_config(found, 0x1A2B3C4D) == found[1]
    assert choose_config(found, None) == found[0]
    assert choose_config(found, 5) is None
    assert choose_config([Found("/dev/vda", FileSystem("ext4", "PORTWAY"), 5)], 5) is None


def test_seed_and_state() -> None:
    """A seed is labelled cidata in any case; state is ext4 or FAT, whose label is cut to 11 characters."""
    seed = Found("/dev/sr0", FileSystem("iso9660", "CIDATA"))
    state = Found("/dev/vdb", FileSystem("ext4", "PORTWAY-STATE"))
    small = Found("/dev/vdc", FileSystem("vfat", "PORTWAY-STA"))
    other = Found("/dev/vdd", FileSystem("vfat", "DATA"))
    assert choose_seed([other, state, seed]) == seed
    assert choose_state([other, seed, state]) == state
    assert choose_state([other, small]) == small
    assert choose_state([other]) is None
    assert choose_seed([]) is None


def test_partitions_and_their_disks(tmp_path: Path) -> None:
    """The first partition of a disk comes with the disk's signature, and RAM disks are not looked at."""
    devices, disk = tmp_path / "dev", tmp_path / "devices" / "vda"
    blocks = tmp_path / "block"
    for folder in (devices, disk / "vda1", blocks):
        folder.mkdir(parents=True)
    (disk / "vda1" / "partition").write_text("1\n")
    for name, target in (("vda", disk), ("vda1", disk / "vda1"), ("ram0", disk)):
        (blocks / name).symlink_to(target)
        (devices / name).write_bytes(
            fat16() if name != "vda" else bytes(440) + b"\x4d\x3c\x2b\x1a" + bytes(68)
        )
    (blocks / "sr0").symlink_to(disk)  # a drive that cannot be opened
    expected = [Found(f"{devices}/vda1", FileSystem("vfat", "PORTWAY", "1234-ABCD"), 0x1A2B3C4D)]
    assert look(str(blocks), str(devices)) == expected


def test_waiting_ends_with_the_disk() -> None:
    """A disk that comes at the third look is found; a deadline that has passed allows one look."""
    looks = iter([[], [], [Found("/dev/sda1", PORTWAY, 7)]])
    assert wait_for(7, float("inf"), lambda: next(looks))
    assert wait_for(7, 0.0, list) == []
