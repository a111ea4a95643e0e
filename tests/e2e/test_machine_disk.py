"""FAT images as people make them: found by label, whatever tool wrote it."""

import subprocess
from pathlib import Path

import pytest

from appliance.machine.disks import FileSystem, identify
from tests.e2e import needs


def seen(image: Path) -> FileSystem | None:
    """What the VM sees on an image."""
    data = image.read_bytes()
    return identify(lambda offset, size: data[offset : offset + size])


@pytest.mark.parametrize(("bits", "kilobytes"), [("12", 2048), ("16", 16384), ("32", 65536)])
def test_a_fat_of_every_size(tmp_path: Path, bits: str, kilobytes: int) -> None:
    """mkfs.vfat's label and serial are read from FAT12, FAT16 and FAT32, also with files on it."""
    image = tmp_path / "fat.img"
    make = ["mkfs.vfat", "-C", "-F", bits, "-i", "1a2b3c4d", "-n", "PORTWAY", str(image), str(kilobytes)]
    subprocess.run([needs.program(make[0]), *make[1:]], check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "rules.toml").write_text("# rules\n")
    copy = ["-i", str(image), str(tmp_path / "rules.toml"), "::"]
    subprocess.run([needs.program("mcopy"), *copy], check=True)
    assert seen(image) == FileSystem("vfat", "PORTWAY", "1A2B-3C4D")


def test_a_label_that_was_changed(tmp_path: Path) -> None:
    """A disk that got its label afterwards, as mtools does it, has that one."""
    image = tmp_path / "fat.img"
    make = [needs.program("mkfs.vfat"), "-C", "-n", "OTHER", str(image), "2048"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([needs.program("mlabel"), "-i", str(image), "::CIDATA"], check=True)
    found = seen(image)
    assert found is not None
    assert found.label == "CIDATA"
