"""Where two builds part."""

import io
import tarfile
from pathlib import Path

from build.reproduce import Verdict, compare, difference, table


def archive(path: Path, files: dict[str, bytes], mode: int = 0o644) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, contents in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(contents), mode
            tar.addfile(entry, io.BytesIO(contents))
    return path


def test_names_the_first_member_that_differs(tmp_path: Path) -> None:
    """Of two archives: the member, and whether it is its contents, its mode or its being there."""
    one = archive(tmp_path / "a", {"x": b"1", "y": b"2"})
    assert difference(one, one) == ""
    assert difference(one, archive(tmp_path / "b", {"x": b"1", "y": b"3"})).startswith(
        "y: contents d4735e3a26"
    )
    assert (
        difference(one, archive(tmp_path / "c", {"x": b"1", "y": b"2"}, 0o600)) == "x: mode 644 and mode 600"
    )
    assert difference(one, archive(tmp_path / "d", {"x": b"1"})) == "y in the first, nothing in the second"


def test_names_the_first_byte_that_differs(tmp_path: Path) -> None:
    """Of other files: the offset, and the sixteen bytes there."""
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_bytes(bytes(40))
    other.write_bytes(bytes(20) + b"\x01" + bytes(19))
    assert difference(one, other) == f"0x10 {'00' * 16} and 0x10 {'00' * 4}01{'00' * 11}"
    other.write_bytes(bytes(48))
    assert difference(one, other) == f"0x20 {'00' * 8} and 0x20 {'00' * 16}"


def test_compares_what_the_targets_made(tmp_path: Path) -> None:
    """Every file of a target is a row, the same or not."""
    for build, contents in (("first", b"1"), ("second", b"2")):
        archive(tmp_path / build / "portway-1.0-linux-x86_64.tar.gz", {"portway": contents})
        (tmp_path / build / "portway").write_bytes(b"single")
    single, tarball = compare(tmp_path / "first", tmp_path / "second", ["binary"])
    assert (single.name, single.is_same, single.where) == ("portway", True, "")
    assert (tarball.is_same, tarball.where[:17]) == (False, "portway: contents")


def test_the_table_says_which_and_where() -> None:
    """A row each, and for one that differs both digests and the place."""
    assert table([Verdict("portway", "aa", "aa", ""), Verdict("raw", "aa", "bb", "0x10 00 and 0x10 01")]) == (
        "portway  same  aa\nraw      DIFFERS  aa\n                  bb\n         first at 0x10 00 and 0x10 01"
    )
