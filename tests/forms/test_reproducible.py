"""Two builds of the last commit give the same bytes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)  # two builds, each with a virtual environment of its own
def test_the_binary_is_the_same_wherever_it_is_built() -> None:
    """Folder, umask, time zone, locale and hash seed leave no trace in the file and the tarball."""
    told = subprocess.run(
        [sys.executable, "-m", "build.reproduce", "binary"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert [line.split()[1] for line in told.stdout.splitlines()[-2:]] == ["same", "same"]
