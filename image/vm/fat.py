"""FAT file systems without root or mount: mkfs.vfat and mcopy, the same bytes each time."""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
ENTRY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """A FAT12: sectors in all, per cluster, and reserved before the first table; entries of the root."""

    sectors: int
    per_cluster: int
    reserved: int = 1
    root_entries: int = 512


def shape_for(sizes: list[int], per_cluster: int, reserved: int) -> Shape:
    """Give the smallest file system that holds files of these sizes in its root."""
    root_entries = SECTOR // ENTRY_BYTES
    cluster = per_cluster * SECTOR
    clusters = sum(-(-size // cluster) for size in sizes)
    table = -(-(clusters + 2) * 3 // (2 * SECTOR))
    sectors = reserved + 2 * table + root_entries * ENTRY_BYTES // SECTOR + clusters * per_cluster
    return Shape(sectors, per_cluster, reserved, root_entries)


def build(shape: Shape, label: str, serial: int, before: int, files: dict[str, bytes], epoch: int) -> bytes:
    """Make a file system of files by path, whose times are the epoch's; `before`: the sectors before it."""
    with tempfile.TemporaryDirectory() as name:
        image, folder = Path(name) / "fat", Path(name) / "files"
        image.write_bytes(bytes(shape.sectors * SECTOR))
        # -a: nothing is aligned, so that the sizes are what `shape_for` reckons.
        options = f"-F 12 -a -s {shape.per_cluster} -R {shape.reserved} -r {shape.root_entries} -g 255/63"
        identity = f"-h {before} -n {label} --invariant -i {serial:08x}"
        _run("mkfs.vfat", *options.split(), *identity.split(), image, epoch=epoch)
        for inside, data in files.items():
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            (folder / inside).write_bytes(data)
        for path in sorted(folder.rglob("*")):
            os.utime(path, (epoch, epoch))
        _run("mcopy", "-s", "-m", "-Q", "-i", image, *sorted(folder.iterdir()), "::", epoch=epoch)
        return image.read_bytes()


def _run(*command: str | Path, epoch: int) -> None:
    fixed = {"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC", "LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1"}
    # mkfs.vfat is where only root has its PATH.
    environment = {**os.environ, **fixed, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
