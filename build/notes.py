"""The release notes: what CHANGELOG.md says of a version.

python -m build.notes [VERSION]
"""

import re
import sys
from pathlib import Path
from typing import Final

from build.freeze import version

CHANGELOG: Final = Path(__file__).resolve().parent.parent / "CHANGELOG.md"


class NoNotesError(Exception):
    """The changelog does not say what this version brings; the message says what to write, and where."""


def of(wanted: str, changelog: str, *, dated: bool = False) -> str:
    """Cut out the section of a version: "## 1.2.3", and whatever else is in that line.

    With `dated` the line must have a date: what has none is not released.
    """
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    found = [section.partition("\n") for section in sections if section.split(maxsplit=1)[:1] == [wanted]]
    if not found:
        have = ", ".join(section.split("\n", 1)[0].strip() for section in sections) or "none"
        raise NoNotesError(
            f"CHANGELOG.md has no section for {wanted} (it has: {have}); write one: ## {wanted}"
        )
    heading, _, text = found[0]
    if not text.strip():
        raise NoNotesError(f"CHANGELOG.md says nothing under {heading.strip()}")
    if dated and not re.search(r"\b\d{4}-\d{2}-\d{2}\b", heading):
        raise NoNotesError(f"CHANGELOG.md has no date for {wanted}; write: ## {wanted} (YYYY-MM-DD)")
    return text.strip() + "\n"


def main() -> None:
    """Print them."""
    try:
        print(of(sys.argv[1] if len(sys.argv) > 1 else version(), CHANGELOG.read_text()), end="")
    except NoNotesError as error:
        sys.exit(f"notes: {error}")


if __name__ == "__main__":
    main()
