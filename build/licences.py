"""LICENSES.txt: whose work is in the forms, under which licence, and all the texts. Standard library only.

python -m build.licences [FILE]
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from build.freeze import version
from build.parts import FOLDER, ROOT, Form, Part, Registry, parts

COMMON: Final = Path("/usr/share/common-licenses")
"""Licences that Debian's copyright files name and do not repeat."""

RULE: Final = "=" * 100

WHERE: Final = {
    Form.FOLDER: "in every form",
    Form.SINGLE: "in the unpacker of the single file, linked statically",
    Form.VM: "in the disk image of the VM",
}

PREFACE: Final = """\
Portway {version} is made of its own code and of what is listed here.

{own}

The source of a Debian package: `apt-get source SOURCE=VERSION` on Debian 12, of the names and versions below.
The unpacker of the single file is linked with the GNU C Library (LGPL-2.1-or-later): it can be linked anew
with another version of it from build/selfextract.c, as build/freeze.py does. PyInstaller's bootloader is
distributed under the GPL with an exception that allows it in programs of any licence; the exception is part
of its text below.

"""


def project_licence(root: Path = ROOT) -> Path | None:
    """Find the file that says how Portway itself may be used, if there is one."""
    return next(
        (path for name in ("LICENSE*", "LICENCE*", "COPYING*") for path in sorted(root.glob(name))), None
    )


def render(found: Iterable[Part], version: str, own: Path | None) -> str:
    """Write the list, and then each text once."""
    listed = list(found)
    said = "Portway itself: its licence is the first text below."
    if own is None:
        said = "Portway itself: the project names no licence yet."
    blocks = [PREFACE.format(version=version, own=said), *map(_line, listed), "\n"]
    texts = {own.read_text(): ["portway"]} if own else {}
    for part in listed:
        for path in part.texts:
            texts.setdefault(_read(path), []).append(part.name)
    blocks += [_block(", ".join(dict.fromkeys(names)), text) for text, names in texts.items()]
    blocks += [_block(f"{name} ({COMMON})", _read(COMMON / name)) for name in _common(texts)]
    return "".join(blocks)


def _line(part: Part) -> str:
    source = f", source {' '.join(part.source)}" if part.registry is Registry.DEBIAN else ""
    return f"* {part.name} {part.version}{source}: {part.licence or 'see its text'}; {WHERE[part.form]}\n"


def _block(title: str, text: str) -> str:
    return f"{RULE}\n{title}\n{RULE}\n\n{text.rstrip()}\n\n\n"


def _common(texts: Iterable[str]) -> Iterator[str]:
    named = {name.rstrip(".") for text in texts for name in re.findall(rf"{COMMON}/([\w.+-]*\w)", text)}
    yield from sorted(name for name in named if (COMMON / name).is_file())


def _read(path: Path) -> str:
    if not path.is_file():
        sys.exit(f"licences: {path} is missing; a package without its copyright file cannot be shipped")
    return path.read_text(errors="replace")


def main() -> None:
    """Write them for the folder form and the single file: beside the launcher, or where told."""
    to = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "LICENSES.txt"
    to.write_text(render(parts(), version(), project_licence()))


if __name__ == "__main__":
    main()
