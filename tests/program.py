"""The program under test: the package in this Python, or one of the frozen forms that `make binary` made.

`pytest --form=single` (or folder) runs the tests that start a gateway on that form.
"""

import sys
from pathlib import Path
from typing import Final

from tests.e2e import needs

DIST: Final = Path(__file__).parent.parent / "dist"

FROZEN: Final = {"single": DIST / "portway", "folder": DIST / "folder" / "portway"}

FORMS: Final = ("source", *FROZEN)

SWEEPER: Final = "portway-sweeper"
"""The process that removes what the single file unpacked, when the rest has ended (build/selfextract.c)."""


under_test = "source"
"""What `--form` says (conftest.py)."""


def program(form: str | None = None) -> list[str]:
    """Give the words that start Portway in a form, or in the one under test; a verb follows."""
    form = form or under_test
    if form == "source":
        return [sys.executable, "-m", "appliance"]
    if not FROZEN[form].exists():
        needs.lack(f"{FROZEN[form].relative_to(DIST.parent)} is not built (`make binary`)")
    return [str(FROZEN[form])]
