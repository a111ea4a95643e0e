"""The list of an image's files: bytes, path, the package that owns it, and why it is there.

Owners are found, not listed: `build.parts` asks PyInstaller, dpkg and pip. The reasons of libraries and
modules are found, too (`evidence.py`). The others are written down, in `reasons.txt`, and a file without one
fails the build: nothing comes into an image unnoticed.
"""

import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from build.parts import FOLDER, Part, parts, sha256
from image.evidence import evidence

REASONS = Path(__file__).with_name("reasons.txt")
LINK = "-"
OURS = "portway"


def listing(root: Path, owners: Mapping[str, str], reasons: Mapping[str, str]) -> str:
    """List a tree, a line a file.

    `owners` and `reasons`: by path in the tree, for what is known to be of one image only. Exits when a file
    has no reason.
    """
    taken = _taken_from(parts())
    patterns = _patterns()
    reasons = {**evidence(root), **reasons}
    lines = []
    for path in _files(root):
        name = str(path.relative_to(root))
        reason = reasons.get(name) or next((why for form, why in patterns if fnmatchcase(name, form)), "")
        if not reason:
            raise SystemExit(f"contents: {name}: nothing says why it is there ({REASONS.name})")
        size = LINK if path.is_symlink() else f"{path.stat().st_size:,}"
        owner = owners.get(name) or ("" if path.is_symlink() else taken.get(sha256(path), OURS)) or OURS
        lines.append(f"{size:>11}  {name:<66}  {owner:<42}  {reason}\n")
    return "".join(lines)


def _files(root: Path) -> Iterator[Path]:
    """Give files and links, in order of their names."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from sorted(Path(folder, name) for name in (*names, *links))


def _taken_from(found: list[Part]) -> dict[str, str]:
    """Give the package of each file of the folder form, by the file's SHA-256."""
    owners = {summed: f"{part.name} {part.version}" for part in found for _, summed in part.files}
    bootloader = next(part for part in found if part.name.lower() == "pyinstaller")
    program = sha256(FOLDER / "app" / "portway")
    return {**owners, program: f"portway, {bootloader.name} {bootloader.version}"}


def _patterns() -> list[tuple[str, str]]:
    lines = [line for line in REASONS.read_text().splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]
