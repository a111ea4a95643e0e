"""The release notes are what the changelog says, or a clear error."""

import pytest

from appliance import __version__
from build.notes import CHANGELOG, NoNotesError, of

TEXT = "# Changelog\n\n## 1.1.0 (2026-11-24)\n\n### New\n- b\n\n## 1.1\n- c\n\n## 1.0.0\n"


def test_cuts_out_one_section() -> None:
    """A version's notes are its section alone, whatever else its heading says."""
    assert of("1.1.0", TEXT) == "### New\n- b\n"
    assert of("1.1", TEXT) == "- c\n"


def test_says_what_is_missing() -> None:
    """Without a section the error names those there are, and what to write."""
    with pytest.raises(NoNotesError) as told:
        of("2.0.0", TEXT)
    assert str(told.value) == (
        "CHANGELOG.md has no section for 2.0.0 (it has: 1.1.0 (2026-11-24), 1.1, 1.0.0); write one: ## 2.0.0"
    )
    with pytest.raises(NoNotesError, match=r"no section for 1\.0\.0 \(it has: none\)"):
        of("1.0.0", "# Changelog\n")


def test_refuses_an_empty_section() -> None:
    """A version of which nothing is said has no notes."""
    with pytest.raises(NoNotesError, match=r"says nothing under 1\.0\.0"):
        of("1.0.0", TEXT)


def test_what_is_published_has_a_date() -> None:
    """A heading without a date is of a version that is not released yet."""
    assert of("1.1.0", TEXT, dated=True)
    with pytest.raises(NoNotesError, match=r"no date for 1.1; write: ## 1.1 \(YYYY-MM-DD\)"):
        of("1.1", TEXT, dated=True)


def test_the_changelog_has_this_version() -> None:
    """`make release` works at every commit: the changelog has a section for the version there is."""
    assert of(__version__, CHANGELOG.read_text())
