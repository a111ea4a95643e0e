"""The forms have Debian's `cryptography`, which is older than the one that the other tests run on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from build import freeze
from tests.e2e import needs

ROOT = Path(__file__).parents[2]
TESTS = ("tests/unit/tunnel", "tests/unit/net")


@pytest.mark.timeout(300)
def test_the_tunnel_works_with_the_one_that_is_frozen(tmp_path: Path) -> None:
    """What tests of certificates and TLS promise holds with that one, too."""
    if not (freeze.DISTRIBUTION / "cryptography").exists() or sys.version_info[:2] != (3, 11):
        needs.lack("Debian's python3-cryptography for this interpreter (`build/setup-tools`)")
    freeze.link_debian(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    asked = [sys.executable, "-c", "import cryptography; print(cryptography.__path__[0])"]
    found = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()) == tmp_path / "cryptography"
    tests = [sys.executable, "-m", "pytest", "-q", *TESTS]
    done = subprocess.run(tests, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
