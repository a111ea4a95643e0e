"""The commands that tell a user how to verify a download do it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from build.sign import Key, sign
from tests.e2e import needs

ROOT = Path(__file__).parents[2]


def commands(page: str, title: str) -> list[str]:
    """Read the commands of a section: what is indented, without what is said of it."""
    section = (ROOT / page).read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return [line.split("  #")[0].strip() for line in re.findall(r"^ {4}(.*)$", section, re.MULTILINE)]


@pytest.mark.parametrize(
    ("page", "title"), [("README.md", "Verify what you downloaded"), ("docs/release.md", "Verify one")]
)
def test_each_command_passes_on_a_release_and_notices_a_change(tmp_path: Path, page: str, title: str) -> None:
    """Each command ends with 0 in a folder with one form of a release, and otherwise after a change."""
    needs.program("minisign")
    secret, public, release = tmp_path / "secret", tmp_path / "public", tmp_path / "release"
    release.mkdir()
    for name in ("portway", "not-downloaded"):
        (release / name).write_text(name)
    make = ("minisign", "-G", "-W", "-p", str(public), "-s", str(secret))
    subprocess.run(make, capture_output=True, check=True)
    sign(release, Key(secret, public, ""), tmp_path / "nothing published")
    (release / "not-downloaded").unlink()
    told = commands(page, title)
    assert len(told) == 2

    def ends(command: str) -> int:
        return subprocess.run(command, shell=True, cwd=release, capture_output=True, check=False).returncode  # noqa: S602  as a user's shell

    assert [ends(command) for command in told] == [0, 0]
    (release / "portway").write_text("another")
    assert [ends(command) for command in told] == [0, 1]
    shutil.copy(release / "SHA256SUMS", release / "portway")
    (release / "SHA256SUMS").write_text("")
    assert ends(told[0]) == 1
