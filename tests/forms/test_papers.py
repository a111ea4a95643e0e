"""What a release says of its forms: the bill of materials and the licences, made from what was built."""

from pathlib import Path

import pytest

from build.licences import render
from build.parts import FOLDER, Form, Part, Registry, parts
from tests.program import program

OURS = {"app/portway", "app/_internal/base_library.zip", "portway", "LICENSES.txt"}


@pytest.fixture(scope="module")
def found() -> list[Part]:
    """The parts of the folder form and of the single file."""
    program("folder")
    return parts()


def test_every_file_has_an_owner(found: list[Part]) -> None:
    """Each file of the folder form is one package's, or one of those that the build makes."""
    owned = [name for part in found for name, _ in part.files]
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert len(owned) == len(set(owned))
    assert {name for name in there - set(owned) if not name.endswith(".toml")} == OURS


def test_what_is_frozen_is_named_and_what_builds_is_not(found: list[Part]) -> None:
    """Dependencies, interpreter, loader, libraries and PyInstaller's bootloader are there; pip is not."""
    python = {part.name for part in found if part.registry is Registry.PYPI}
    assert {"click", "msgspec", "structlog", "tomlkit", "pyinstaller"} <= python
    assert not python & {"cryptography", "cffi", "pycparser"}, "these are Debian's"
    assert not python & {"pip", "setuptools", "altgraph", "packaging", "pyinstaller-hooks-contrib"}
    debian = {part.name for part in found if part.registry is Registry.DEBIAN}
    assert {"libc6", "libssl3", "libpython3.11", "libpython3.11-stdlib", "zlib1g", "libexpat1"} <= debian
    assert {"python3-cryptography", "python3-cffi-backend", "libgcc-s1"} <= debian
    assert {"asn1", "pyo3", "std"} <= {part.name for part in found if part.registry is Registry.CARGO}
    static = {part.source[0] for part in found if part.form is Form.SINGLE}
    assert static == {"glibc", "libzstd", "gcc-12"}


def test_every_part_has_version_licence_and_hash(found: list[Part]) -> None:
    """No part is without a version, a licence that is known and, from an index, the archive's hash."""
    assert [part.name for part in found if not part.version or not part.licence or not part.texts] == []
    assert [part.name for part in found if part.registry is Registry.PYPI and len(part.sha256) != 64] == []


def test_the_folder_form_has_the_licences(found: list[Part]) -> None:
    """The texts lie beside the launcher, the unpacker's too, and the bootloader's exception."""
    text = (FOLDER / "LICENSES.txt").read_text()
    for part in found:
        assert f"\n* {part.name} {part.version}" in text
    assert "Bootloader Exception" in text
    assert "GNU LESSER GENERAL PUBLIC LICENSE" in text
    assert text.splitlines()[4:] == render(found, "any", None).splitlines()[4:]
    assert Path(FOLDER / "LICENSES.txt").stat().st_size < 500_000
