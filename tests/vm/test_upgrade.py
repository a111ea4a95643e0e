"""A/B: a newer image on another disk is tried once; kept when it is well, taken back when it is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.machine import grubenv
from image.vm import disk as image
from image.vm.build import EPOCH
from tests.vm.virtual_machine import DIST, ROOM, Firmware, VirtualMachine, disk_of, get, put

NEWER = "99.0.0"
CONFIGURATION = Path(image.__file__).with_name("grub.cfg")


def _newer(folder: Path, **changes: Any) -> Path:
    """Make an image that calls itself newer: this one's kernel and initramfs, with changes."""
    kernel, initrd = ((DIST / "vm" / name).read_bytes() for name in ("vmlinuz", "initrd"))
    arguments = (DIST / "vm/cmdline").read_text().strip()
    contents = replace(image.Contents(NEWER, kernel, initrd, arguments, {}, EPOCH), **changes)
    path = folder / "newer.raw"
    path.write_bytes(image.build(contents, CONFIGURATION.read_text()))
    return path


def _saved(disk: Path) -> dict[str, str]:
    return grubenv.parse(get(disk, "grub/grubenv").encode())


@pytest.mark.parametrize("firmware", [Firmware.BIOS, Firmware.UEFI])
def test_a_new_version_is_kept(tmp_path: Path, firmware: Firmware) -> None:
    """It starts by itself, is kept once it is well, is what starts from then on, and the two files stay."""
    rules = '[[rule]]\nname = "mine"\nlisten = ":8080"\nto = "10.0.2.2:9"\n'
    disk = disk_of(tmp_path, size=ROOM, rules=rules)
    disks = [disk, _newer(tmp_path)]
    with VirtualMachine.start(tmp_path, firmware=firmware, memory=192, disks=disks) as machine:
        machine.await_text(f"trying Portway {NEWER}")
        machine.await_text("the new version is well, and is kept: slot b")
        assert machine.stop() == 0
    assert _saved(disk) == {"saved_entry": "b", "next_entry": ""}
    with VirtualMachine.start(tmp_path, firmware=firmware, memory=192, disks=disks) as machine:
        machine.await_text("portway.slot=b")
        machine.await_text('"event":"ready"')
        assert [record["rule"] for record in machine.records("listening")][:1] == ["mine"]
        assert "trying Portway" not in machine.log()


BROKEN: dict[str, dict[str, bytes | str]] = {
    "no kernel": {"kernel": bytes(1 << 20)},
    "no system": {"arguments": "console=ttyS0 panic=1 rdinit=/nothing"},
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_version_is_taken_back(tmp_path: Path, what: str) -> None:
    """A kernel that does not start or a system that panics: the old slot comes back and says so, once."""
    disk = disk_of(tmp_path, size=ROOM)
    disks = [disk, _newer(tmp_path, **BROKEN[what])]
    with VirtualMachine.start(tmp_path, memory=192, disks=disks) as machine:
        machine.await_text(f"trying Portway {NEWER}")
        machine.await_text(f"Portway {NEWER} was tried and was not well")
        machine.await_text("health   healthy")
        assert machine.stop() == 0
    assert _saved(disk) == {"saved_entry": "a", "next_entry": "", "refused": NEWER}
    assert NEWER in get(disk, "crash.log")
    with VirtualMachine.start(tmp_path, memory=192, disks=disks) as machine:
        machine.await_text('"event":"ready"')
        assert "trying Portway" not in machine.log()


def test_no_room(tmp_path: Path) -> None:
    """A disk that was not enlarged says what to do, and goes on as it is."""
    disks = [disk_of(tmp_path), _newer(tmp_path)]
    with VirtualMachine.start(tmp_path, disks=disks, memory=192) as machine:
        machine.await_text("enlarge it")
        machine.await_text('"event":"ready"')


def test_a_damaged_grubenv(tmp_path: Path) -> None:
    """GRUB starts slot a, and says so: the next upgrade knows which slot is in use."""
    disk = disk_of(tmp_path)
    put(disk, "grub/grubenv", "")
    with VirtualMachine.start(tmp_path, disks=[disk]) as machine:
        machine.await_text("portway.slot=a ")
        machine.await_text('"event":"ready"')
