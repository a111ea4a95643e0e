"""LICENSES.txt names every part and has every text once."""

from pathlib import Path

import pytest

from build.licences import project_licence, render
from build.parts import Form, Part, Registry


def part(name: str, text: Path, form: Form = Form.FOLDER) -> Part:
    return Part(form, Registry.DEBIAN, name, "1", (f"{name}-src", "2"), "MIT", (text,), "", ())


def test_names_parts_and_repeats_no_text(tmp_path: Path) -> None:
    """Every package has a line; packages with the same text share it."""
    text = tmp_path / "copyright"
    text.write_text("do as you like\n")
    made = render([part("a", text), part("b", text), part("c", text, Form.VM)], "1.0", None)
    assert "* a 1, source a-src 2: MIT; in every form\n" in made
    assert "* c 1, source c-src 2: MIT; in the disk image of the VM\n" in made
    assert made.count("do as you like") == 1
    assert "\na, b, c\n" in made


def test_says_that_the_project_names_none(tmp_path: Path) -> None:
    """Where there is no licence file none is invented; where there is one, its text comes first."""
    assert project_licence(tmp_path) is None
    assert "the project names no licence yet" in render([], "1.0", None)
    own = tmp_path / "LICENSE"
    own.write_text("ours\n")
    assert project_licence(tmp_path) == own
    assert "\nportway\n" in render([], "1.0", own)


def test_a_package_without_a_text_is_not_shipped(tmp_path: Path) -> None:
    """A missing copyright file ends the build: nothing is distributed without its terms."""
    with pytest.raises(SystemExit, match="is missing"):
        render([part("a", tmp_path / "nothing")], "1.0", None)
