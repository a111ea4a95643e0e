"""The workflows under actionlint and zizmor, as `make lint-workflows` runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BAD = """\
name: bad
on: pull_request_target
jobs:
  one:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@main
      - run: echo "${{ github.event.pull_request.title }}" ${{ matrix.nothing }}
"""


def lint(*files: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "build.workflows", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(400)  # the first time it compiles one
def test_nothing_is_wrong_with_them() -> None:
    """Neither has a complaint."""
    told = lint()
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.timeout(400)
def test_both_complain_of_a_bad_one(tmp_path: Path) -> None:
    """A workflow with an injection, a moving action and a name that is not there is found out by both."""
    bad = tmp_path / ".github" / "workflows" / "bad.yml"
    bad.parent.mkdir(parents=True)
    bad.write_text(BAD)
    told = lint(str(bad))
    assert told.returncode == 1
    assert "[expression]" in told.stdout  # actionlint
    assert "template-injection" in told.stdout  # zizmor
