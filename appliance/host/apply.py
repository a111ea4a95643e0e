"""Making a change. Each is there as a whole or not at all, also after a kill or a loss of power."""

import os
import shutil
from pathlib import Path

from appliance.host import account, tree
from appliance.host.items import Absent, Account, Directory, File, Link, NoAccount, Program
from appliance.host.layout import ENABLED, TEMPORARY, Root
from appliance.host.plan import Change, Found, Kind


def apply(change: Change, root: Root, source: Path | None) -> None:
    """Do what a change says; `source` is the folder form to copy. Raises OSError, CommandError."""
    match change.item:
        case Account(name):
            account.create(root, name)
        case NoAccount(name):
            account.remove(root, name)
        case Directory() as item:
            path = root.at(item.path)
            path.mkdir(parents=True, exist_ok=True)
            _give(path, root, item)
        case File() as item if item.is_starter and change.before.kind is Kind.FILE:
            _give(root.at(item.path), root, item)
        case File() as item:
            _write(root.at(item.path), root, item)
        case Link(path, target):
            _link(root.at(path), target)
        case Program(path, digest):
            assert source is not None
            assert digest is not None
            tree.copy(source, root.at(path), digest)
        case Absent(path):
            _remove(root.at(path))
            if path == ENABLED:
                _remove_if_empty(root.at(path.parent))  # as systemctl disable does


def undo(change: Change, root: Root) -> None:
    """Put a file or a link back as it was. Raises OSError, CommandError."""
    item, before = change.item, change.before
    if isinstance(item, File | Link) and before.kind is Kind.NOTHING:
        _remove(root.at(item.path))
    elif isinstance(item, Link | Absent) and before.kind is Kind.LINK:
        _link(root.at(item.path), before.target)
    elif isinstance(item, File) and not item.is_starter:
        _write(root.at(item.path), root, _as_it_was(item, before))


def _as_it_was(item: File, before: Found) -> File:
    return File(item.path, before.text, before.mode, item.owner, item.group)


def _give(path: Path, root: Root, item: Directory | File) -> None:
    """Set owner and mode; the owner first, which would take set-id bits away."""
    os.chown(path, account.number(root, "passwd", item.owner), account.number(root, "group", item.group))
    path.chmod(item.mode)


def _write(path: Path, root: Root, item: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{TEMPORARY}{path.name}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(item.text)
        stream.flush()
        _give(new, root, item)
        os.fsync(stream.fileno())
    new.replace(path)
    tree.to_disk(path.parent)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{TEMPORARY}{path.name}")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)
    tree.to_disk(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
