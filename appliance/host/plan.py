"""From what there is to what is wanted: the changes. Pure."""

import difflib
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from appliance.host.items import Absent, Account, Directory, File, Item, Link, NoAccount, Program


class Kind(Enum):
    """What stands at a path."""

    NOTHING = auto()
    FILE = auto()
    DIRECTORY = auto()
    LINK = auto()
    OTHER = auto()
    """A socket, a device, a pipe."""
    ACCOUNT = auto()


@dataclass(frozen=True, slots=True)
class Found:
    """What there is in an item's place."""

    kind: Kind = Kind.NOTHING
    mode: int = 0
    owner: str = ""
    group: str = ""
    """Names, or numbers where the host has no name for them."""
    text: str = ""
    """Of a file."""
    target: str = ""
    """Of a link."""
    digest: str = ""
    """Of a folder form."""
    is_single_file: bool = False
    """It is Portway in one file, put there by hand."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an item: `what` is to be done, empty when it is as wanted; or it is in the way."""

    item: Item
    before: Found
    what: str = ""
    diff: str = ""
    obstacle: str = ""

    @property
    def path(self) -> Path | None:
        """Give the path of the item, if it has one."""
        return None if isinstance(self.item, Account | NoAccount) else self.item.path


def plan(items: tuple[Item, ...], found: dict[Item, Found]) -> tuple[Change, ...]:
    """Say for each item, in order, what is to be done about it."""
    return tuple(change(item, found[item]) for item in items)


def change(item: Item, found: Found) -> Change:
    """Compare one item with what there is in its place."""
    match item:
        case Account():
            return Change(item, found, "create" if found.kind is Kind.NOTHING else "")
        case NoAccount() | Absent():
            return Change(item, found, "" if found.kind is Kind.NOTHING else "remove")
        case Directory():
            return _directory(item, found)
        case File():
            return _file(item, found)
        case Link():
            return _link(item, found)
        case Program():
            return _program(item, found)


def _directory(item: Directory, found: Found) -> Change:
    if found.kind is Kind.NOTHING:
        return Change(item, found, "create")
    if found.kind is not Kind.DIRECTORY:
        return Change(item, found, obstacle="is no directory")
    return Change(item, found, _access(item, found))


def _file(item: File, found: Found) -> Change:
    if found.kind is Kind.NOTHING:
        return Change(item, found, "create", _diff(item.path, "", item.text))
    if found.kind is not Kind.FILE:
        return Change(item, found, obstacle="is no regular file")
    if found.text != item.text and not item.is_starter:
        if not found.text.startswith(item.mark):
            return Change(item, found, obstacle="was not made by `portway install`; move it away first")
        return Change(item, found, "replace", _diff(item.path, found.text, item.text))
    return Change(item, found, _access(item, found))


def _link(item: Link, found: Found) -> Change:
    if found.kind is Kind.NOTHING:
        return Change(item, found, f"link to {item.target}")
    if found.kind is Kind.LINK:
        return Change(item, found, f"link to {item.target}" if found.target != item.target else "")
    if found.is_single_file:
        return Change(item, found, f"replace by a link to {item.target}")
    return Change(item, found, obstacle="is not a link of this installation; move it away first")


def _program(item: Program, found: Found) -> Change:
    if found.kind is Kind.NOTHING:
        return Change(item, found, "copy")
    if found.kind is not Kind.DIRECTORY:
        return Change(item, found, obstacle="is no directory")
    return Change(item, found, "copy anew, it was damaged" if found.digest != item.digest else "")


def _access(item: Directory | File, found: Found) -> str:
    parts = []
    if found.mode != item.mode:
        parts.append(f"mode {found.mode:04o} to {item.mode:04o}")
    if (found.owner, found.group) != (item.owner, item.group):
        parts.append(f"owner {found.owner}:{found.group} to {item.owner}:{item.group}")
    return ", ".join(parts)


def _diff(path: Path, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(path) if before else "/dev/null", str(path), lineterm=""
    )
    return "\n".join(lines)
