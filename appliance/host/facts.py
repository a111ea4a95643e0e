"""What there is on a host, or below an image's root directory."""

import os
import re
import stat
from pathlib import Path
from typing import Final

from appliance.host import account, tree
from appliance.host.items import Account, File, Item, Link, NoAccount, Program
from appliance.host.layout import (
    COMMAND,
    CONFIGURATION,
    CURRENT,
    LAUNCHER,
    PREVIOUS,
    PROGRAMS,
    RULES,
    STATE,
    TEMPORARY,
    UNIT,
    Root,
)
from appliance.host.plan import Found, Kind
from appliance.host.starter import STARTER
from appliance.host.unit import MADE
from appliance.host.wanted import Kept, Programs

_LAST_WORD: Final = b"PORTWAY1"
"""What the single-file form ends with (build/selfextract.c)."""

_PROGRAM: Final = re.compile(r"\S+-[0-9a-f]{12}")

_KINDS: Final = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.LINK}


def look(items: tuple[Item, ...], root: Root) -> dict[Item, Found]:
    """Look what there is in the place of each item. Raises OSError, OutsideError."""
    return {item: _found(item, root) for item in items}


def _found(item: Item, root: Root) -> Found:
    if isinstance(item, Account | NoAccount):
        parts = [item.name in account.names(root, file).values() for file in ("passwd", "group")]
        is_there = all(parts) if isinstance(item, Account) else any(parts)
        return Found(Kind.ACCOUNT if is_there else Kind.NOTHING)
    path = root.at(item.path)
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Found()
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), Kind.OTHER)
    is_file = kind is Kind.FILE
    return Found(
        kind,
        stat.S_IMODE(status.st_mode),
        account.names(root, "passwd").get(status.st_uid, str(status.st_uid)),
        account.names(root, "group").get(status.st_gid, str(status.st_gid)),
        path.read_text(errors="replace") if is_file and isinstance(item, File) else "",
        str(path.readlink()) if kind is Kind.LINK else "",
        tree.digest(path) if kind is Kind.DIRECTORY and isinstance(item, Program) else "",
        is_single_file=is_file and isinstance(item, Link) and _is_single_file(path),
    )


def _is_single_file(path: Path) -> bool:
    """Say whether a file is the single-file form, of any version, by the word it ends with."""
    with path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) < len(_LAST_WORD):
            return False
        stream.seek(-len(_LAST_WORD), os.SEEK_END)
        return stream.read() == _LAST_WORD


def programs(root: Root) -> Programs:
    """Look what there is in /opt/portway."""
    return Programs(
        frozenset(name for name in _names(root.at(PROGRAMS)) if _is_program(name)),
        _target(root.at(CURRENT)),
        _target(root.at(PREVIOUS)),
    )


def _is_program(name: str) -> bool:
    return name.startswith(TEMPORARY) or _PROGRAM.fullmatch(name) is not None


def kept(root: Root, *, purge: bool) -> Kept:
    """Say what an uninstallation leaves: what others made; and the operator, unless it is to be purged."""
    command = root.at(COMMAND)
    others = {name for name in _names(root.at(PROGRAMS)) if not _is_program(name)}
    return Kept(
        rules=not purge and _is_edited(root),
        state=not purge and (_is_other(root.at(STATE)) or bool(_names(root.at(STATE)))),
        command=os.path.lexists(command) and _target(command) != str(LAUNCHER),
        unit=_is_anothers_unit(root.at(UNIT)),
        programs=_is_other(root.at(PROGRAMS)) or bool(others - {CURRENT.name, PREVIOUS.name}),
    )


def _is_anothers_unit(unit: Path) -> bool:
    return unit.is_file() and not unit.read_text(errors="replace").startswith(MADE)


def _is_edited(root: Root) -> bool:
    """Say whether /etc/portway has anything but the ruleset of a new installation."""
    names = set(_names(root.at(CONFIGURATION)))
    if RULES.name not in names:
        return bool(names) or _is_other(root.at(CONFIGURATION))
    return names != {RULES.name} or root.at(RULES).read_text(errors="replace") != STARTER


def _is_other(path: Path) -> bool:
    """Say whether something else stands where a directory of ours would be."""
    return os.path.lexists(path) and not path.is_dir()


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _target(link: Path) -> str | None:
    return str(link.readlink()) if link.is_symlink() else None
