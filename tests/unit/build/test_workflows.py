"""What CI does is what anybody does: the workflows call the make targets, and nothing else."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / ".github" / "workflows").glob("*"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
INSTALL = "apt-get update -qq && apt-get install -qqy ca-certificates git make python3"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_runs_make_targets_only(path: Path) -> None:
    """Every command is a target of the Makefile or .ci/run, but for the one that installs make."""
    commands = re.findall(r"^\s*(?:- )?run: (.*)$", path.read_text(), re.MULTILINE)
    assert commands
    others = [one for one in commands if one not in {".ci/run", INSTALL}]
    assert [one for one in others if one.removeprefix("make ") not in TARGETS] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_everything_from_elsewhere_is_pinned(path: Path) -> None:
    """Actions are named by commit, with the version beside, and images by digest."""
    text = path.read_text()
    used = re.findall(r"uses: (.*)$", text, re.MULTILINE)
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", one)] == []
    images = re.findall(r"image: (.*)$", text, re.MULTILINE)
    assert [one for one in images if not re.search(r"@sha256:[0-9a-f]{64}$", one)] == []
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")


def test_there_are_workflows() -> None:
    """The search above finds them."""
    assert [path.name for path in FILES] == ["ci.yml", "release.yml"]
