"""What the gateway's process sees to first."""

import subprocess
import sys

import pytest

STANDARD_FDS = """
import os, sys
from appliance.supervisor.process import open_standard_fds
report = os.dup(1)
os.set_inheritable(report, False)
for fd in {closed}:
    os.close(fd)
before = {{fd: os.fstat(fd).st_rdev for fd in (0, 1, 2) if fd not in {closed}}}
open_standard_fds()
null = os.stat("/dev/null").st_rdev
for fd in (0, 1, 2):
    assert os.fstat(fd).st_rdev == before.get(fd, null)
fresh = os.open("/", os.O_RDONLY)
assert fresh == report + 1, fresh
os.write(report, b"held")
"""


@pytest.mark.parametrize("closed", ["()", "(0,)", "(1, 2)", "(0, 1, 2)"])
def test_standard_fds_are_opened_where_they_are_closed(closed: str) -> None:
    """Afterwards 0, 1 and 2 are open, those that were are what they were, and no other fd is left."""
    code = STANDARD_FDS.format(closed=closed)
    child = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )
    assert (child.returncode, child.stdout) == (0, b"held")
