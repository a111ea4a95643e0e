"""A folder form as a whole: its digest, and its copy."""

import hashlib
import os
import shutil
import stat
from pathlib import Path

from appliance.host.layout import TEMPORARY


def digest(folder: Path) -> str:
    """Give the SHA-256 of names, kinds and contents: equal for equal programs, wherever they lie."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(f"{path.relative_to(folder)}\0{_kind(path)}\0".encode())
        if path.is_symlink():
            total.update(os.fsencode(path.readlink()))
        elif path.is_file():
            with path.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    return f"{stat.S_IFMT(mode):o}{'x' if mode & 0o100 else ''}"


def copy(source: Path, target: Path, wanted: str) -> None:
    """Copy a folder form so that `target` is there as a whole or not at all. Raises OSError.

    A damaged one is moved away first: between those two renames there is none.
    """
    new = target.with_name(f"{TEMPORARY}{target.name}")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(source, new, symlinks=True)
    for path in [*new.rglob("*"), new]:
        if not path.is_symlink():
            os.chown(path, 0, 0)
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            to_disk(path)
    if digest(new) != wanted:
        raise OSError(f"{source} changed while it was copied")
    if target.exists():  # damaged, or it would not be copied
        old = target.with_name(f"{TEMPORARY}{target.name}-damaged")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        new.rename(target)
        shutil.rmtree(old)
    else:
        new.rename(target)
    to_disk(target.parent)


def to_disk(path: Path) -> None:
    """Have the disk hold a file, or the names in a directory (fsync(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
