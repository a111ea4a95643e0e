"""The frozen program under locales whose charsets it has no codec for."""

import os
import subprocess
from pathlib import Path

import pytest

from appliance import __version__
from tests.e2e import needs
from tests.program import FROZEN, program


@pytest.mark.parametrize("form", FROZEN)
@pytest.mark.parametrize(("locale", "charset"), [("ja_JP", "EUC-JP"), ("de_DE", "ISO-8859-15")])
def test_starts_under_every_locale(tmp_path: Path, form: str, locale: str, charset: str) -> None:
    """A host's locale never ends the program, which asks for its codec before its first line."""
    name = f"{locale}.{charset}"
    make = (needs.program("localedef"), "-i", locale, "-f", charset, str(tmp_path / name))
    if subprocess.run(make, capture_output=True, check=False).returncode:
        needs.lack(f"the source of the locale {name} (Debian: locales)")
    told = subprocess.run(
        [*program(form), "--version"],
        env={**os.environ, "LOCPATH": str(tmp_path), "LC_ALL": name},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.stdout == f"portway, version {__version__}\n", told.stderr
