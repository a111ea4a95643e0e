"""Why a file or a frozen module is there, found and not told: who asks for it.

A library: the files of the image that name it as NEEDED (elf(5)). A module: the modules that import it, as
PyInstaller noted it down when it froze the program.
"""

import re
import subprocess
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Final

from build.parts import FREEZE

ELF: Final = b"\x7fELF"
NAMED: Final = 4
"""How many of those that ask are named."""

STARTER: Final = "__main__.py"
"""What PyInstaller calls the script; it makes the script import what Python needs to start at all."""


def evidence(root: Path) -> dict[str, str]:
    """Say of each library and extension module below a root who asks for it."""
    files = {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if is_program(path)}
    asked, importers = _needed(files.values()), imported()
    found = {}
    for name, path in files.items():
        why = asked.get(path.name) or importers.get(_module(name))
        if why:
            found[name] = why
    return found


def is_program(path: Path) -> bool:
    """Say whether this is a file that the loader loads."""
    if path.is_symlink() or not path.is_file() or path.suffix == ".ko":
        return False
    with path.open("rb") as file:
        return file.read(len(ELF)) == ELF


def _needed(files: Iterable[Path]) -> dict[str, str]:
    asking: dict[str, list[str]] = {}
    for path in files:
        told = subprocess.run(["objdump", "-p", str(path)], check=True, capture_output=True, text=True).stdout
        for library in re.findall(r"NEEDED +(\S+)", told):
            asking.setdefault(library, []).append(path.name.partition(".")[0])
    return {library: f"needed by {some(names)}" for library, names in asking.items()}


def _module(name: str) -> str:
    """Give the dotted name of an extension module, by its path in the image."""
    inside = re.sub(r"^python3\.\d+/lib-dynload/", "", name.rpartition("_internal/")[2])
    return inside.partition(".")[0].replace("/", ".")


def imported() -> dict[str, str]:
    """Say of each module who imports it."""
    found = {}
    notes = (FREEZE / "work" / "portway" / "xref-portway.html").read_text()
    for node in notes.split('<div class="node">')[1:]:
        name = re.search(r'<a name="([^"]+)"', node)
        names = [unescape(one) for one in re.findall(r'href="#([^"]+)"', node.partition("imported by:")[2])]
        real = [one for one in names if one != STARTER]
        if name and names:
            found[unescape(name.group(1))] = f"imported by {some(real)}" if real else "the program's start"
    return found


def modules(sources: Mapping[str, str], base: Path) -> Iterator[str]:
    """List the frozen modules, a line each; exits when nothing imports one.

    `sources`: of each module in the program's archive the path of its source; `base`: base_library.zip.
    """
    with zipfile.ZipFile(base) as archive:
        starting = {re.sub(r"(/__init__)?\.pyc$", "", one).replace("/", ".") for one in archive.namelist()}
    importers = imported()
    for name in sorted({*sources, *starting}):
        if name not in importers:
            raise SystemExit(f"contents: nothing imports the module {name}")
        yield f"{_package(sources.get(name, '')):<14}{name:<40}  {importers[name]}\n"


def _package(source: str) -> str:
    inside = source.partition("/site-packages/")[2]
    return inside.partition("/")[0].removesuffix(".py") or (
        "portway" if "/appliance/" in source else "python3.11"
    )


def some(names: list[str]) -> str:
    """Name the first few."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
