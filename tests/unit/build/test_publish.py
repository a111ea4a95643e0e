"""What keeps a release from being published by mistake."""

from pathlib import Path

import pytest

from build.notes import NoNotesError
from build.publish import NotReadyError, ready
from build.sign import PUBLIC, SIGNATURE, SUMS, THROW_AWAY, sums

CHANGELOG = "## 1.0 (2026-11-24)\n- first\n"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A signed release."""
    for name in (SIGNATURE, PUBLIC, "portway"):
        (tmp_path / name).touch()
    (tmp_path / SUMS).write_text(sums(tmp_path))
    return tmp_path


def test_tag_version_changelog_and_signature_agree(release: Path) -> None:
    """A tag of this version, dated in the changelog and signed with a real key, may go out."""
    assert ready("v1.0", "1.0", CHANGELOG, release) == release / "portway-1.0.notes.md"


@pytest.mark.parametrize("tag", ["v1.1", "1.0", ""])
def test_another_tag_is_refused(release: Path, tag: str) -> None:
    """The version stands in one place, and a tag that says another is a mistake."""
    with pytest.raises(NotReadyError, match=r"appliance/__init__.py says 1\.0: tag v1\.0"):
        ready(tag, "1.0", CHANGELOG, release)


def test_without_a_date_it_is_not_released(release: Path) -> None:
    """A changelog that still says "not released yet" keeps the release back."""
    with pytest.raises(NoNotesError, match="no date"):
        ready("v1.0", "1.0", "## 1.0 (not released yet)\n- first\n", release)


def test_a_throw_away_signature_is_refused(release: Path) -> None:
    """What is unsigned, or signed with a throw-away key, never goes out."""
    (release / PUBLIC).rename(release / THROW_AWAY)
    with pytest.raises(NotReadyError, match="throw-away key"):
        ready("v1.0", "1.0", CHANGELOG, release)
    (release / SIGNATURE).unlink()
    with pytest.raises(NotReadyError, match="not signed"):
        ready("v1.0", "1.0", CHANGELOG, release)


@pytest.mark.parametrize("name", ["portway", "another"])
def test_what_changed_after_it_was_signed_is_refused(release: Path, name: str) -> None:
    """A file that is not as the signed list has it, or not in it, never goes out."""
    (release / name).write_text("changed")
    with pytest.raises(NotReadyError, match="changed since it was signed"):
        ready("v1.0", "1.0", CHANGELOG, release)
