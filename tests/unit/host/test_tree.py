"""A folder form's digest, and its copy."""

import os
from pathlib import Path

import pytest

from appliance.host import tree
from tests.e2e import needs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder form."""
    made = tmp_path / "form"
    (made / "lib").mkdir(parents=True)
    (made / "portway").write_text("#!/bin/sh\n")
    (made / "portway").chmod(0o755)
    (made / "lib/libx.so.1").write_bytes(b"\x7fELF")
    (made / "lib/libx.so").symlink_to("libx.so.1")
    return made


def test_what_the_digest_holds(folder: Path) -> None:
    """Content, names, links and what may be executed count; times, owners and other modes do not."""
    before = tree.digest(folder)
    os.utime(folder / "portway", (1, 1))
    (folder / "lib/libx.so.1").chmod(0o600)
    assert tree.digest(folder) == before
    seen = {before}
    for alter in (
        lambda: (folder / "lib/libx.so.1").write_bytes(b"\x7fELG"),
        lambda: (folder / "lib/libx.so.1").chmod(0o700),
        (folder / "lib/more").touch,
        lambda: (folder / "lib/more").rename(folder / "lib/less"),
        (folder / "lib/libx.so").unlink,
    ):
        alter()
        seen.add(tree.digest(folder))
    assert len(seen) == 6


def test_a_copy_is_whole(folder: Path, tmp_path: Path) -> None:
    """It has the same digest, whatever the source's modes, and what was left of an earlier try is gone."""
    needs.root()
    (folder / "lib/libx.so.1").chmod(0o600)
    target = tmp_path / "opt"
    left = tmp_path / ".new-opt"
    (left / "half").mkdir(parents=True)
    tree.copy(folder, target, tree.digest(folder))
    assert tree.digest(target) == tree.digest(folder)
    assert (target / "lib/libx.so.1").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["form", "opt"]


def test_a_damaged_copy_is_replaced(folder: Path, tmp_path: Path) -> None:
    """Nothing of it is left."""
    needs.root()
    target = tmp_path / "opt"
    tree.copy(folder, target, tree.digest(folder))
    (target / "lib/libx.so.1").write_bytes(b"damaged")
    (target / "intruder").touch()
    tree.copy(folder, target, tree.digest(folder))
    assert tree.digest(target) == tree.digest(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["form", "opt"]


def test_a_source_that_changes_meanwhile(folder: Path, tmp_path: Path) -> None:
    """What was not checked is not installed."""
    needs.root()
    with pytest.raises(OSError, match="changed while it was copied"):
        tree.copy(folder, tmp_path / "opt", "another digest")
    assert not (tmp_path / "opt").exists()
