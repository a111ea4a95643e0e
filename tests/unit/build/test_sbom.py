"""The bill of materials is valid, complete and the same each time."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from build.parts import Form, Part, Registry
from build.sbom import InvalidError, check, render

TIME = datetime(2026, 11, 24, tzinfo=UTC)
SHA = "a" * 64
CLICK = Part(Form.FOLDER, Registry.PYPI, "click", "8.5.1", ("", ""), "BSD-3-Clause", (), SHA, ())
GLIBC = ("glibc", "2.36-9+deb12u14")
LIBC = Part(
    Form.FOLDER, Registry.DEBIAN, "libc6", GLIBC[1], GLIBC, "LGPL-2.1-or-later", (), "", (("lib/ld.so", SHA),)
)
STATIC = Part(Form.SINGLE, Registry.DEBIAN, "libc6-dev", GLIBC[1], GLIBC, "LGPL-2.1-or-later", (), "", ())
ODD = Part(Form.FOLDER, Registry.PYPI, "odd", "1", ("", ""), "do what you like, mostly", (), "", ())
SILENT = Part(Form.FOLDER, Registry.PYPI, "silent", "1", ("", ""), "", (), "", ())
PARTS = (CLICK, LIBC, STATIC, ODD, SILENT)


@pytest.fixture
def forms(tmp_path: Path) -> dict[Path, frozenset[Form]]:
    """Two files that stand for forms."""
    single, folder = tmp_path / "portway", tmp_path / "portway.tar.gz"
    single.write_bytes(b"single")
    folder.write_bytes(b"folder")
    return {single: frozenset({Form.FOLDER, Form.SINGLE}), folder: frozenset({Form.FOLDER})}


@pytest.fixture
def bill(forms: dict[Path, frozenset[Form]]) -> dict[str, Any]:
    """The document, read back."""
    document: dict[str, Any] = json.loads(render("1.0", forms, PARTS, None, TIME))
    return document


def test_names_every_part(bill: dict[str, Any]) -> None:
    """Each package is there once with its version, package URL, hash and files."""
    assert bill["specVersion"] == "1.6"
    found = {one["name"]: one for one in bill["components"]}
    assert found.keys() == {*(part.name for part in PARTS), "portway", "portway.tar.gz"}
    assert found["click"]["purl"] == "pkg:pypi/click@8.5.1"
    assert found["click"]["hashes"] == [{"alg": "SHA-256", "content": SHA}]
    assert found["libc6"]["purl"].startswith("pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=")
    assert [file["name"] for file in found["libc6"]["components"]] == ["lib/ld.so"]


def test_says_what_each_form_holds(bill: dict[str, Any]) -> None:
    """What is in one form only is that form's dependency and no other's."""
    depends = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    assert depends["portway@1.0"] == ["file:portway", "file:portway.tar.gz"]
    static = f"single:{STATIC.purl}"
    assert static in depends["file:portway"]
    assert static not in depends["file:portway.tar.gz"]
    assert f"folder:{LIBC.purl}" in depends["file:portway.tar.gz"]


def test_licences_are_expressions_names_or_nothing_said(bill: dict[str, Any]) -> None:
    """An SPDX expression is one, prose is a name, silence is NOASSERTION: the project's, too."""
    said = {one["name"]: one.get("licenses") for one in bill["components"]}
    assert said["click"] == [{"license": {"id": "BSD-3-Clause", "acknowledgement": "concluded"}}]
    assert said["odd"] == [{"license": {"name": "do what you like, mostly", "acknowledgement": "concluded"}}]
    assert said["silent"] == [{"license": {"name": "NOASSERTION"}}]
    assert bill["metadata"]["component"]["licenses"] == [{"license": {"name": "NOASSERTION"}}]


def test_the_same_inputs_give_the_same_bytes(forms: dict[Path, frozenset[Form]]) -> None:
    """Nothing in it is of the moment or of the order it was given in."""
    assert render("1.0", forms, PARTS, None, TIME) == render("1.0", forms, PARTS[::-1], None, TIME)


def test_the_schema_is_asked() -> None:
    """A document that is not CycloneDX 1.6 is refused."""
    with pytest.raises(InvalidError, match=r"not CycloneDX 1\.6"):
        check('{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "x"}]}')
