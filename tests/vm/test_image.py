"""The image as a file: its size, what is in it, and that it is the same each time."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e import needs
from tests.vm.virtual_machine import DIST, RAW

ROOT = DIST.parent
LARGEST = 30_000_000
NOT_THERE = ("bin/sh", "busybox", "bash", "dpkg", "apt", "ssh", "python3.11/site-packages")


def _list() -> list[str]:
    """Name what is in the initramfs."""
    archive = subprocess.run(["zstd", "-dc", DIST / "vm/initrd"], check=True, capture_output=True).stdout
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=archive, check=True, capture_output=True).stdout
    return listed.decode().splitlines()


def test_its_size() -> None:
    """The image has at most 30 MB."""
    assert RAW.stat().st_size <= LARGEST


def test_what_is_in_it() -> None:
    """No shell, package manager or ssh; and every file is in the list that says whose it is and why."""
    names = _list()
    assert not [name for name in names if name.endswith(NOT_THERE)]
    listed = (DIST / "portway-vm-files.txt").read_text()
    files = {name for name in names if not any(other.startswith(f"{name}/") for other in names)}
    assert {line.split()[1] for line in listed.splitlines()} == files


def test_the_same_bytes(tmp_path: Path) -> None:
    """Built again elsewhere, under another umask, time zone and locale, it is the same image."""
    for name in ("grub-mkimage", "modinfo", "qemu-img"):
        needs.program(name)
    (tmp_path / "cache").mkdir()
    for kernel in (ROOT / ".cache/vm").glob("linux-image-*"):
        (tmp_path / "cache" / kernel.name).symlink_to(kernel)
    words = [
        "--out",
        str(tmp_path / "out"),
        "--cache",
        str(tmp_path / "cache"),
        "--folder",
        str(DIST / "folder"),
    ]
    subprocess.run(
        [sys.executable, "-m", "image.vm.build", *words],
        cwd=ROOT,
        env={**os.environ, "TZ": "Pacific/Kiritimati", "LC_ALL": "POSIX"},
        umask=0o077,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    built = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (RAW, tmp_path / "out/portway.raw")]
    assert built[0] == built[1]
