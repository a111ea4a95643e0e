"""The slots of the machine's disk, and which version is wanted."""

from dataclasses import replace

import pytest

from appliance.machine import grubenv, slots
from appliance.machine.slots import HEADER, SECTOR, SLOTS, SPAN, Booted, Slot

SLOT = Slot("1.2.0", 50000, "ab" * 32, "console=ttyS0 rdinit=/portway/app/portway -- machine")


def _beginning(slot: Slot) -> bytes:
    return bytes(HEADER.start) + slot.render() + bytes(4 * SECTOR)


def test_a_slot_says_what_it_is() -> None:
    """A slot's description comes back as it was written."""
    assert Slot.parse(_beginning(SLOT)) == SLOT


@pytest.mark.parametrize("sectors", [0, -1, SPAN + 1])
def test_a_slot_of_a_wrong_size(sectors: int) -> None:
    """A slot that would reach into what is not its own is none."""
    with pytest.raises(ValueError, match="a slot of"):
        Slot.parse(_beginning(replace(SLOT, sectors=sectors)))


def test_no_slot() -> None:
    """Sectors that hold something else are no slot."""
    for beginning in (b"", bytes(4096), bytes(HEADER.start) + grubenv.render({"version": "1"})):
        with pytest.raises(ValueError, match=r"environment block|names no"):
            Slot.parse(beginning)


def test_the_sum_leaves_the_description_out() -> None:
    """The SHA-256 is of everything else: any other byte changes it."""
    contents = bytes(16 * SECTOR)
    described = contents[: HEADER.start] + SLOT.render() + contents[HEADER.stop :]
    assert slots.digest([described[:4096], described[4096:]]) == slots.digest([contents])
    assert slots.digest([described[:-1] + b"x"]) != slots.digest([contents])
    assert slots.digest([b"x" + described[1:]]) != slots.digest([contents])


def test_a_partition_is_entered() -> None:
    """An entry has its 16 bytes, and everything else of the boot sector stays."""
    sector = bytes(range(256)) * 2
    changed = slots.with_partition(sector, 3, 73728, 1000)
    assert changed[446 + 32 : 446 + 48] == b"\x00\xfe\xff\xff\xef\xfe\xff\xff" + bytes.fromhex(
        "00200100e8030000"
    )
    assert changed[: 446 + 32] + changed[446 + 48 :] == sector[: 446 + 32] + sector[446 + 48 :]


def test_room() -> None:
    """Slot b needs a disk that is larger than the image; the sentence says how large."""
    assert slots.misfit("b", SLOT, SLOTS["b"] + SLOT.sectors) == ""
    assert "two slots need 68:" in slots.misfit("b", SLOT, SLOTS["b"])


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("0.1.0", "0.2.0"),
        ("0.9.0", "0.10.0"),
        ("1.2.0rc1", "1.2.0"),
        ("1.2.0rc1", "1.2.0rc2"),
        ("1.2.0", "2"),
    ],
)
def test_the_newer_version_is_wanted(older: str, newer: str) -> None:
    """A newer version is tried; an older one, the same, and the one that failed before are not."""
    assert slots.wanted(newer, older, "")
    assert not slots.wanted(older, newer, "")
    assert not slots.wanted(newer, newer, "")
    assert not slots.wanted(newer, older, refused=newer)


@pytest.mark.parametrize(
    ("line", "booted"),
    [
        ("console=ttyS0 portway.disk=0x1a2b3c4d portway.slot=a -- machine", Booted("a", 0x1A2B3C4D)),
        ("portway.disk=0x1 portway.slot=b portway.trial", Booted("b", 1, is_trial=True)),
        ("portway.disk=nonsense portway.slot=c quiet", Booted()),
        ("", Booted()),
    ],
)
def test_what_the_boot_loader_says(line: str, booted: Booted) -> None:
    """Disk, slot and trial are words of the kernel's command line."""
    assert Booted.of(line) == booted


def _table(number: int, kind: int, start: int, sectors: int) -> bytes:
    """Make a boot sector with the image's two partitions, and one more."""
    sector = slots.with_partition(bytes(SECTOR), 1, 2048, 6144)
    sector = slots.with_partition(sector, 2, SLOTS["a"], 50000)
    sector = slots.with_partition(sector, number, start, sectors)
    at = 446 + (number - 1) * 16 + 4
    return sector[:at] + bytes([kind]) + sector[at + 1 :]


@pytest.mark.parametrize(
    ("entry", "is_taken"),
    [
        ((3, slots.EFI_TYPE, SLOTS["b"], 50000), False),  # a slot that is there already
        ((4, 0x83, SLOTS["b"] + SPAN, 1 << 20), False),
        ((3, 0x83, SLOTS["b"] + SPAN, 1 << 20), True),  # its number is another's
        ((3, 0x83, SLOTS["b"], 1 << 20), True),
        ((3, slots.EFI_TYPE, SLOTS["a"] + 50000, 1 << 20), True),
        ((4, 0x83, SLOTS["a"] + 50000, 1 << 20), True),
        ((4, 0x83, SLOTS["b"] + SPAN - 1, 1), True),
        ((4, 0x83, SLOTS["b"] - 1, 1), False),
        ((4, 0, 0, 0), False),
    ],
)
def test_a_partition_of_the_operators(entry: tuple[int, int, int, int], is_taken: bool) -> None:
    """A slot's sectors or number that another partition has are not a slot's to write."""
    assert slots.is_taken("b", _table(*entry)) == is_taken
    assert not slots.is_taken("a", _table(3, slots.EFI_TYPE, SLOTS["b"], 50000))
