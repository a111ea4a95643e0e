"""An upgrade from disk to disk, with files as disks: what is written, tried, kept, refused."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance import __version__
from appliance.machine import crash, grubenv, upgrade
from appliance.machine.disks import ConfigDisk
from appliance.machine.slots import (
    HEADER,
    LABEL,
    LABEL_OFFSET,
    SECTOR,
    SLOTS,
    SPAN,
    Slot,
    digest,
    with_partition,
)

NEWER = "99.0.0"
SECTORS = 5000
BOOTED = "BOOT_IMAGE=/vmlinuz portway.disk=0x1 portway.slot=a console=ttyS0 -- machine"
ON_TRIAL = BOOTED.replace("portway.slot=a", "portway.slot=b portway.trial")


class Folder(ConfigDisk):
    """A folder in the place of a mounted partition."""

    @contextmanager
    def writable(self) -> Iterator[Path]:
        yield self.path


@dataclass
class Host:
    """Disks as files, and what sysfs would say of them."""

    root: Path

    def add(self, name: str, size: int = 0, partition: str = "") -> Path:
        """Add a disk of so many bytes; with a partition, whose device is named."""
        sys = self.root / "sys/devices" / name
        sys.mkdir(parents=True)
        (self.root / "blocks").mkdir(exist_ok=True)
        (self.root / "blocks" / name).symlink_to(sys)
        if partition:
            (sys / partition).mkdir()
            (sys / partition / "partition").write_text("1\n")
            (self.root / "blocks" / partition).symlink_to(sys / partition)
        device = self.root / "dev" / name
        device.parent.mkdir(exist_ok=True)
        with device.open("wb") as file:
            file.truncate(size)
        return device

    def offer(self, command_line: str = BOOTED) -> upgrade.Outcome:
        """Look for an upgrade as this host."""
        return upgrade.offer(command_line, self.config, str(self.root / "blocks"), str(self.root / "dev"))

    @property
    def config(self) -> Folder:
        """The mounted PORTWAY partition."""
        return Folder("/dev/vda1", self.root / "fat")

    @property
    def names(self) -> dict[str, str]:
        """What grubenv says."""
        return grubenv.parse((self.root / "fat/grub/grubenv").read_bytes())

    def say(self, **names: str) -> None:
        """Write grubenv."""
        path = self.root / "fat/grub/grubenv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(grubenv.render(names))


def _image(device: Path, version: str, *, damaged: bool = False) -> bytes:
    """Put an image on a disk; give its slot's bytes."""
    contents = bytearray(os.urandom(SECTORS * SECTOR))
    slot = Slot(version, SECTORS, digest([bytes(contents)]), "-- machine")
    contents[HEADER] = slot.render()
    if damaged:
        contents[-1] ^= 1
    with device.open("r+b") as file:
        file.seek(LABEL_OFFSET)
        file.write(LABEL)
        file.seek(SLOTS["a"] * SECTOR)
        file.write(contents)
    return bytes(contents)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine whose own disk has room for both slots, in slot a."""
    made = Host(tmp_path)
    made.add("vda", (SLOTS["b"] + SPAN) * SECTOR, "vda1")
    made.say(saved_entry="a")
    return made


def _slot_b(host: Host) -> bytes:
    with (host.root / "dev/vda").open("rb") as disk:
        disk.seek(SLOTS["b"] * SECTOR)
        return disk.read(SECTORS * SECTOR)


def test_a_newer_image_is_tried(host: Host) -> None:
    """It is in slot b, whole, in the partition table, and the next to start; ours stays the saved one."""
    contents = _image(host.add("vdb"), NEWER)
    outcome = host.offer()
    assert outcome.reboot
    assert _slot_b(host) == contents
    assert host.names == {"saved_entry": "a", "next_entry": "b", "trying": NEWER}
    table = (host.root / "dev/vda").read_bytes()[446 + 32 : 446 + 48]
    assert table[8:12] == SLOTS["b"].to_bytes(4, "little")
    assert table[12:] == SECTORS.to_bytes(4, "little")


@pytest.mark.parametrize("version", [__version__, "0.0.1"])
def test_an_image_that_is_not_newer_is_left_alone(host: Host, version: str) -> None:
    """The medium that an upgrade came from may stay attached, and nothing goes back to an older version."""
    _image(host.add("vdb"), version)
    assert host.offer() == upgrade.Outcome()
    assert host.names == {"saved_entry": "a"}


def test_a_trial_that_is_well_is_kept(host: Host) -> None:
    """On trial nothing else is looked for; `keep` makes its slot the saved one."""
    _image(host.add("vdb"), NEWER)
    host.say(saved_entry="a", next_entry="", trying=__version__)
    assert not host.offer(ON_TRIAL).reboot
    assert upgrade.keep(ON_TRIAL, host.config)
    assert host.names == {"saved_entry": "b", "next_entry": ""}


def test_a_trial_that_was_not_well_is_refused(host: Host) -> None:
    """The old system says so, on the console and in crash.log, and does not try the same again."""
    _image(host.add("vdb"), NEWER)
    host.say(saved_entry="a", next_entry="", trying=NEWER)
    outcome = host.offer()
    assert not outcome.reboot
    assert NEWER in outcome.lines[0]
    kept = crash.last(crash.read(host.config.path))
    assert kept is not None
    assert NEWER in kept.reason
    assert host.offer() == upgrade.Outcome()
    _image(host.add("vdc"), f"{NEWER}.1")
    assert host.offer().reboot


def test_a_damaged_image_is_not_tried(host: Host) -> None:
    """Contents that are not what they say are never started."""
    _image(host.add("vdb"), NEWER, damaged=True)
    outcome = host.offer()
    assert not outcome.reboot
    assert "SHA-256" in outcome.lines[0]
    assert host.names == {"saved_entry": "a"}


def test_a_disk_without_room(tmp_path: Path) -> None:
    """A disk as large as the image has no second slot: the sentence says how large it must be."""
    host = Host(tmp_path)
    host.add("vda", SLOTS["b"] * SECTOR, "vda1")
    host.say(saved_entry="a")
    _image(host.add("vdb"), NEWER)
    outcome = host.offer()
    assert not outcome.reboot
    assert "enlarge" in outcome.lines[0]


def test_no_slot_was_booted(host: Host) -> None:
    """A kernel that a hypervisor started directly has no slots to write."""
    _image(host.add("vdb"), NEWER)
    assert host.offer("console=ttyS0 -- machine") == upgrade.Outcome()
    assert upgrade.keep(BOOTED, host.config) == []
    assert upgrade.offer(BOOTED, None) == upgrade.Outcome()


def test_other_disks(host: Host) -> None:
    """Disks that hold something else, nothing, or cannot be read are passed over."""
    host.add("sda", 1 << 20)
    (host.root / "dev/sda").write_bytes(os.urandom(8 << 20))
    host.add("sdb")
    host.add("sr0").unlink()
    assert host.offer() == upgrade.Outcome()


def test_a_damaged_grubenv(host: Host) -> None:
    """It is written anew with the slot that runs, whenever there is something to say."""
    (host.root / "fat/grub/grubenv").write_bytes(bytes(grubenv.SIZE))
    _image(host.add("vdb"), NEWER)
    assert host.offer().reboot
    assert host.names["saved_entry"] == "a"


def test_a_partition_where_slot_b_would_be(host: Host) -> None:
    """The operator's state partition right behind slot a is not written over: the disk stays as it was."""
    own = host.root / "dev/vda"
    table = bytearray(with_partition(bytes(SECTOR), 3, SLOTS["a"] + SECTORS, 1 << 17))
    table[446 + 32 + 4] = 0x83
    with own.open("r+b") as disk:
        disk.write(table)
    before = own.read_bytes()
    _image(host.add("vdb"), NEWER)
    outcome = host.offer()
    assert not outcome.reboot
    assert "not Portway's has the sectors or the number of slot b; nothing was changed" in outcome.lines[0]
    assert own.read_bytes() == before
    assert host.names == {"saved_entry": "a"}


def test_no_grubenv(host: Host) -> None:
    """A file that is not there is an empty one, and is made when there is something to say."""
    (host.root / "fat/grub/grubenv").unlink()
    _image(host.add("vdb"), NEWER)
    assert host.offer().reboot
    assert host.names == {"saved_entry": "a", "next_entry": "b", "trying": NEWER}
