"""What the gateway's process sees to first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.supervisor import process
from appliance.supervisor.process import local_ports

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


@pytest.mark.parametrize(
    ("text", "count"), [("32768\t60999\n", 28_232), ("1024 65535\n", 64_512), ("9\t9\n", 1)]
)
def test_ports_are_counted_as_the_kernel_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, count: int
) -> None:
    """Both ends of ip_local_port_range belong to it."""
    told = tmp_path / "ip_local_port_range"
    told.write_text(text)
    monkeypatch.setattr(process, "LOCAL_PORTS", told)
    assert local_ports() == count


def test_without_proc_the_usual_ports_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty chroot has no /proc."""
    monkeypatch.setattr(process, "LOCAL_PORTS", tmp_path / "ip_local_port_range")
    assert local_ports() == 28_232


def test_without_a_null_device_closed_fds_are_opened_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty chroot has no /dev: what takes their place loses what is written, and keeps nobody waiting."""
    monkeypatch.setattr(os, "devnull", "/nowhere/null")
    fd = process._nowhere()
    try:
        with pytest.raises(OSError, match="not connected"):
            os.write(fd, b"lost")
    finally:
        os.close(fd)


def test_this_hosts_ports_are_counted() -> None:
    """The file is there, and says what it is expected to."""
    assert 0 < local_ports() < 1 << 16
