"""The initramfs: the whole system. Portway's folder form, the loader that starts it, kernel modules.

There is no shell, no package manager, no ssh: PID 1 is `portway machine`, which makes /dev, /etc
and the like. Written by cpio(1) from a tree with fixed times and owners and packed by zstd(1), so that the
same contents give the same bytes.
"""

import os
import shutil
import stat
import subprocess
from pathlib import Path

from image.vm.kernel import Kernel, index, modules

INIT = "/portway/app/portway"
LOADER = "lib64/ld-linux-x86-64.so.2"
LIBRARIES = "lib/x86_64-linux-gnu"
"""Where the loader looks by itself: made the program's own folder, since the kernel can name no other."""


RANDOM = "dev/urandom"
"""On a processor without RDRAND, getrandom(2) has nothing yet when the kernel starts PID 1, and Python, which
wants a hash seed before anybody can mount /dev, asks this device: its answer does not wait."""


def build(tree: Path, folder_form: Path, kernel: Kernel, epoch: int) -> bytes:
    """Lay out the tree anew and pack it."""
    shutil.rmtree(tree, ignore_errors=True)
    lay_out(tree, folder_form)
    lay_out_modules(tree, kernel)
    return pack(tree, epoch)


def lay_out(tree: Path, folder_form: Path) -> None:
    """Lay out what does not depend on the kernel."""
    shutil.copytree(folder_form / "app", tree / "portway/app", symlinks=True)
    (tree / LOADER).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder_form / "lib/ld-linux-x86-64.so.2", tree / LOADER)
    (tree / LIBRARIES).parent.mkdir(parents=True, exist_ok=True)
    (tree / LIBRARIES).symlink_to("/portway/app/_internal")


def lay_out_modules(tree: Path, kernel: Kernel) -> None:
    """Copy the modules, as Debian signed them, and write their index."""
    folder = tree / "lib/modules"
    folder.mkdir(parents=True)
    chosen = modules(kernel)
    for module in chosen:
        shutil.copy(module.file, folder)
    (folder / "modules.json").write_bytes(index(kernel, chosen, "/lib/modules"))


def pack(tree: Path, epoch: int) -> bytes:
    """Pack a tree: names in order, owner root, every time the epoch's, modes without the umask's doing."""
    paths = sorted(tree.rglob("*"))
    for path in paths:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    for path in [*paths, tree]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    names = b"".join(os.fsencode(path.relative_to(tree)) + b"\0" for path in paths)
    archive = subprocess.run(
        ["cpio", "--create", "--format=newc", "--reproducible", "--owner=0:0", "--null", "--quiet"],
        cwd=tree,
        input=names,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    archive = _record("dev", 0o040755, 0, 0, epoch) + _record(RANDOM, 0o020666, 1, 9, epoch) + archive
    # One thread: with more, zstd cuts its blocks elsewhere on another machine.
    packer = ["zstd", "-19", "--single-thread", "--quiet", "--stdout"]
    return subprocess.run(packer, input=archive, stdout=subprocess.PIPE, check=True).stdout


def _record(name: str, mode: int, major: int, minor: int, epoch: int) -> bytes:
    """Write a folder or a device as cpio's newc format has it: only root could make one for cpio to read.

    Kernel, Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    links = 2 if mode >> 12 == stat.S_IFDIR >> 12 else 1
    fields = (0, mode, 0, 0, links, epoch, 0, 0, 0, major, minor, len(name) + 1, 0)
    record = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return record + bytes(-len(record) % 4)
