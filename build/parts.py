"""What the forms are made of: every package that a frozen file or module comes from. Standard library only.

Nothing is guessed from a list: PyInstaller's tables of contents say where each file was taken from, and the
package managers (dpkg, pip) whose file that is.
"""

import ast
import functools
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from build.crates import linked
from build.freeze import DISTRIBUTION

ROOT: Final = Path(__file__).resolve().parent.parent
DIST: Final = ROOT / "dist"
FOLDER: Final = DIST / "folder"
FREEZE: Final = ROOT / ".cache" / "freeze"

STATIC: Final = ("libc.a", "libzstd.a", "libgcc.a")
"""What the linker takes into the unpacker of the single file (selfextract.c)."""

CONCLUDED: Final = {
    "expat": "MIT",
    "gcc-12": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "glibc": "LGPL-2.1-or-later",
    "grub2": "GPL-3.0-or-later",
    "libffi": "MIT",
    "libzstd": "BSD-3-Clause OR GPL-2.0-only",
    "linux": "GPL-2.0-only WITH Linux-syscall-note",
    "openssl": "Apache-2.0",
    "pyinstaller": "GPL-2.0-or-later WITH Bootloader-exception",
    "python-cffi": "MIT",
    "python-cryptography": "Apache-2.0",
    "python3.11": "PSF-2.0",
    "util-linux": "BSD-3-Clause",
    "zlib": "Zlib",
}
"""SPDX expressions of what says its licence in prose only, by source package. Read from its copyright file,
for the part of it that is in the forms."""


class Registry(StrEnum):
    """Where a package comes from; the type of its package URL."""

    PYPI = "pypi"
    DEBIAN = "deb"
    CARGO = "cargo"


class Form(StrEnum):
    """What is shipped. What is in the folder is in every form."""

    FOLDER = "folder"
    SINGLE = "single"
    VM = "vm"


@dataclass(frozen=True, slots=True)
class Part:
    """A package that something in a form comes from.

    `source` is Debian's source package (name and version); `licence` an SPDX expression, or ""; `texts` the
    licence files; `sha256` that of the archive it was installed from, or ""; `files` those of the folder form
    that are its own, by their SHA-256.
    """

    form: Form
    registry: Registry
    name: str
    version: str
    source: tuple[str, str]
    licence: str
    texts: tuple[Path, ...]
    sha256: str
    files: tuple[tuple[str, str], ...]

    @property
    def purl(self) -> str:
        """The package URL (purl-spec)."""
        if self.registry is not Registry.DEBIAN:
            return f"pkg:{self.registry}/{self.name.lower()}@{self.version}"
        arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        return f"pkg:deb/debian/{self.name}@{self.version.replace('+', '%2B')}?arch={arch}&distro=debian-12"


def parts() -> list[Part]:
    """Find the parts of the folder form and of the single file, as they were made last."""
    if not FOLDER.is_dir():
        sys.exit("parts: there is no dist/folder; `make binary` makes it")
    python = Installed(_site_packages())
    files = {
        str(file.relative_to(FOLDER)): _taken_from(file)
        for file in sorted(FOLDER.rglob("*"))
        if file.is_file()
    }
    origins = {path: name for name, path in files.items() if path}
    paths = {*origins, *_modules()}
    frozen = [python.owner(path) for path in paths if path.is_relative_to(python.place)]
    names = {found.name: found for found in frozen if found}
    bootloader = python.named("pyinstaller")
    return [
        *(python.part(found, origins) for _, found in sorted(names.items())),
        python.part(bootloader, {}),
        *debian(Form.FOLDER, {path for path in paths if not path.is_relative_to(ROOT)}, origins),
        *debian(Form.SINGLE, {_output_path("gcc", f"-print-file-name={name}") for name in STATIC}, {}),
        *_crates(),
    ]


def _crates() -> Iterator[Part]:
    for one in linked(sorted(FOLDER.rglob("*.so"))):
        none: tuple[str, str] = ("", "")
        yield Part(Form.FOLDER, Registry.CARGO, one.name, one.version, none, one.licence, (one.text,), "", ())


def debian(form: Form, paths: Iterable[Path], origins: dict[Path, str]) -> Iterator[Part]:
    """Give the Debian packages that own these files; exits when one has no owner."""
    owners: dict[str, list[Path]] = {}
    for path, package in sorted(packages(paths).items()):
        owners.setdefault(package, []).append(path)
    for package, owned in sorted(owners.items()):
        asked = "${Package}\t${Version}\t${source:Package}\t${source:Version}"
        name, version, source, source_version = _output("dpkg-query", "-W", f"-f={asked}", package).split(
            "\t"
        )
        files = tuple((origins[path], sha256(FOLDER / origins[path])) for path in owned if path in origins)
        texts = (Path("/usr/share/doc") / name / "copyright",)
        licence = CONCLUDED.get(source, "")
        yield Part(
            form,
            Registry.DEBIAN,
            name,
            version,
            (source, source_version),
            licence,
            texts,
            "",
            tuple(sorted(files)),
        )


class Installed:
    """The Python packages of the environment that was frozen."""

    def __init__(self, site_packages: Path) -> None:
        self.place = site_packages
        self._found = {found.name.lower(): found for found in distributions(path=[str(site_packages)])}
        report = json.loads((site_packages.parents[2] / "report.json").read_text())
        self._archives = {
            one["metadata"]["name"].lower(): one["download_info"]["archive_info"]["hashes"]["sha256"]
            for one in report["install"]
        }
        self._owners = {
            site_packages / file: found for found in self._found.values() for file in found.files or ()
        }

    def named(self, name: str) -> Distribution:
        """Give a package."""
        return self._found[name]

    def owner(self, path: Path) -> Distribution | None:
        """Say whose file it is."""
        return self._owners.get(path)

    def part(self, found: Distribution, origins: dict[Path, str]) -> Part:
        """Describe a package."""
        folder = self.place / f"{found.name.replace('-', '_')}-{found.version}.dist-info"
        files = {
            name: sha256(FOLDER / name) for path, name in origins.items() if self._owners.get(path) is found
        }
        said = next(
            (found.metadata[key] for key in ("License-Expression", "License") if key in found.metadata), ""
        )
        return Part(
            Form.FOLDER,
            Registry.PYPI,
            found.name,
            found.version,
            ("", ""),
            CONCLUDED.get(found.name.lower(), said),
            tuple(sorted(path for path in (folder / "licenses").rglob("*") if path.is_file())),
            self._archives.get(found.name.lower(), ""),  # freeze.py --also
            tuple(sorted(files.items())),
        )


def _site_packages() -> Path:
    frozen = (parent for path in source_paths("PYZ") for parent in Path(path).parents)
    return next(parent for parent in frozen if parent.name == "site-packages")


def _modules() -> set[Path]:
    """Name the source files of every module that is frozen."""
    library = next(path.parent for path in map(Path, source_paths("PYZ")) if path.name == "typing.py")
    with zipfile.ZipFile(FOLDER / "app" / "_internal" / "base_library.zip") as base:
        stored = {library / name.removesuffix("c") for name in base.namelist()}
    return stored | {_itself(path) for path in source_paths("PYZ") if path.endswith(".py")}


def _itself(path: str) -> Path:
    """Name the file of Debian's that freeze.py has put a link to, or the file as it is named."""
    real = Path(path).resolve()
    return real if real.is_relative_to(DISTRIBUTION) else Path(path)


@functools.cache
def source_paths(table: str) -> dict[str, str]:
    """Read one of PyInstaller's tables of contents: source path to name in the form."""
    contents = ast.literal_eval((FREEZE / "work" / "portway" / f"{table}-00.toc").read_text())
    listed = next(part for part in contents if isinstance(part, list))
    return {source: name for name, source, *_ in listed}


def _taken_from(file: Path) -> Path | None:
    """Say which file of this system was copied into the folder form; None: it was made here."""
    collected = {name: path for path, name in source_paths("COLLECT").items()}
    inside = FOLDER / "app" / "_internal"
    name = str(file.relative_to(inside)) if file.is_relative_to(inside) else ""
    if name in collected:
        path = _itself(collected[name])
        made = path.is_relative_to(ROOT) and "site-packages" not in path.parts
        return None if made else path
    if ".so" not in file.name:
        return None
    # The C library and the loader, which freeze.py copies itself.
    return Path(f"/lib/{platform.machine()}-linux-gnu") / file.name


def packages(paths: Iterable[Path]) -> dict[Path, str]:
    """Ask dpkg for the owner of each file, as "name" or "name:architecture"; exits when one has none."""
    names = {path: _places(path) for path in paths}
    asked = subprocess.run(
        ["dpkg-query", "-S", *sorted({name for places in names.values() for name in places})],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = re.findall(r"^([^\s,:]+(?::\w+)?)(?:, [^:]+)*: (/.*)$", asked.stdout, re.MULTILINE)
    owners = {name: package for package, name in told}
    found = {
        path: next((owners[name] for name in places if name in owners), "") for path, places in names.items()
    }
    if "" in found.values():
        sys.exit(
            "parts: no Debian package owns " + ", ".join(str(path) for path, one in found.items() if not one)
        )
    return found


def _places(path: Path) -> list[str]:
    """Give the names that dpkg may know a file by: the link's or its target's, before usrmerge or after."""
    names = [str(one).removeprefix("/usr") for one in (path, path.resolve())]
    return [place + name for name in names for place in ("", "/usr")]


def _output_path(*command: str) -> Path:
    return Path(_output(*command).strip()).resolve()


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        sys.exit(f"parts: {command[0]} is not installed")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def sha256(path: Path) -> str:
    """Give a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
