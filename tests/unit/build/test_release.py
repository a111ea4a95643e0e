"""What is gathered for a release, and under which names."""

from pathlib import Path

import pytest

from build.parts import Form
from build.release import artefacts, gather
from build.sign import OWN, sums


def test_names_have_version_and_machine() -> None:
    """Files of several machines go into one folder, so no two have the same name."""
    names = [one.shipped for arch in ("x86_64", "aarch64") for one in artefacts("1.2.3", arch)]
    assert len(set(names)) == len(names) == 10
    assert all("1.2.3" in name for name in names)


def test_gathers_what_there_is_and_tells_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A form that was not built is left out, by name; what an earlier release left is gone."""
    to = tmp_path / "release"
    to.mkdir()
    (to / "old").touch()
    (tmp_path / "portway").write_bytes(b"binary")
    shipped = gather(artefacts("1.2.3", "x86_64"), tmp_path, to)
    assert shipped == {to / "portway-1.2.3-linux-x86_64": {Form.FOLDER, Form.SINGLE}}
    assert [path.name for path in to.iterdir()] == ["portway-1.2.3-linux-x86_64"]
    assert (
        "without portway-1.2.3-vm-x86_64.qcow2: dist/portway.qcow2 was not built" in capsys.readouterr().err
    )


def test_nothing_built_is_no_release(tmp_path: Path) -> None:
    """Without any form there is nothing to release."""
    with pytest.raises(SystemExit, match="nothing was built"):
        gather(artefacts("1.2.3", "x86_64"), tmp_path, tmp_path / "release")


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    """Every file is in the list, by name, but for the list itself, its signature and the key."""
    for name in ("b", "a", *OWN):
        (tmp_path / name).write_text("x")
    sha = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert sums(tmp_path) == f"{sha}  a\n{sha}  b\n"
