"""Why files are in an image, as it is found."""

import shutil
import sys
from pathlib import Path

import pytest

from image import evidence


def test_a_library_is_there_for_who_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program explains its libraries; what nobody asks for is not explained, and not what is no program."""
    monkeypatch.setattr(evidence, "imported", dict)
    shutil.copy(Path(sys.executable).resolve(), tmp_path / "program")
    (tmp_path / "module.ko").write_bytes(evidence.ELF)
    (tmp_path / "text").write_text("text")
    assert not evidence.is_program(tmp_path / "module.ko")
    assert not evidence.is_program(tmp_path / "text")
    (tmp_path / "libc.so.6").write_bytes((tmp_path / "program").read_bytes())
    found = evidence.evidence(tmp_path)
    assert found["libc.so.6"].startswith("needed by ")
    assert "program" not in found


def test_the_first_few_are_named() -> None:
    """Of many names a few are told, and how many more there are."""
    assert evidence.some(["a", "b"]) == "a, b"
    assert evidence.some(list("abcdef")) == "a, b, c, d and 2 more"


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("portway/app/_internal/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", "_ssl"),
        ("app/_internal/msgspec/_core.cpython-311-x86_64-linux-gnu.so", "msgspec._core"),
        ("app/_internal/cryptography/hazmat/bindings/_rust.abi3.so", "cryptography.hazmat.bindings._rust"),
    ],
)
def test_an_extension_module_has_its_name(
    tmp_path: Path, path: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extension module is explained by who imports the module of its name, whatever its suffix."""
    (tmp_path / path).parent.mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), tmp_path / path)
    monkeypatch.setattr(evidence, "imported", lambda: {module: "imported by x"})
    assert evidence.evidence(tmp_path) == {path: "imported by x"}
