"""Where the single file unpacks itself, and what it says where it cannot."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance import __version__
from tests.e2e import needs
from tests.e2e.datagram_peers import free_ports
from tests.e2e.gateway import PATIENCE, wait_for, workers_of
from tests.e2e.peers import is_refused
from tests.program import program

MOUNT = """\
set -e
mount --bind "$0" "$0"
mount -o remount,ro,bind "$0"
mount -t tmpfs -o "$1" none "$0/tmp"
exec chroot "$0" /portway --version
"""
"""In a mount namespace of its own: a read-only root with nothing but the binary, and a /tmp with options."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with the binary and an empty folder."""
    needs.root()
    (single,) = program("single")
    shutil.copy(single, tmp_path / "portway")
    (tmp_path / "tmp").mkdir()
    return tmp_path


def run_in(root: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run `--version` where /tmp is mounted with these options."""
    command = [needs.program("unshare"), "-m", "sh", "-c", MOUNT, str(root), ",".join(options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("options", ["noexec", "ro", "size=1m"])
def test_another_place_is_taken(tmp_path: Path, options: str) -> None:
    """A TMPDIR that is noexec, read-only or too small is passed over."""
    needs.root()
    (single,) = program("single")
    script = f'mount -t tmpfs -o {options} none "$0" && TMPDIR=$0 "{single}" --version && ls "$0"'
    done = subprocess.run(
        [needs.program("unshare"), "-m", "sh", "-c", script, str(tmp_path)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, f"portway, version {__version__}\n", "")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("noexec", "Permission denied"),
        ("ro", "Read-only file system"),
        ("size=1m", "No space left on device"),
    ],
)
def test_no_place_is_fit(root: Path, options: str, reason: str) -> None:
    """Where no place is fit, it says which and why, and what helps, and ends with 1."""
    done = run_in(root, options)
    assert (done.returncode, done.stdout) == (1, "")
    first, hint = done.stderr.splitlines()
    assert first == f"portway: cannot unpack itself into /tmp: {reason}"
    assert hint.startswith("  hint: name a folder with ")


def test_an_empty_root(root: Path) -> None:
    """With nothing but the binary in a root - no /proc, /dev, /tmp, no C library - it proves itself."""
    (root / "tmp").rmdir()
    listen = free_ports(2, "127.0.0.1")
    rules = f'[[rule]]\nname = "web"\nlisten = "127.0.0.1:{listen}"\nto = "127.0.0.1:{listen + 1}"\n'
    (root / "rules.toml").write_text(rules)
    done = subprocess.run(
        [needs.program("chroot"), str(root), "/portway", "demo", "--once", "/rules.toml"],
        env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Everything arrived as it was sent." in done.stdout
    assert sorted(path.name for path in root.iterdir()) == ["portway", "rules.toml"]


def test_closed_standard_fds(tmp_path: Path) -> None:
    """Started with fds 0 to 2 closed, it works: what is opened meanwhile takes no place of theirs."""
    (single,) = program("single")
    port = free_ports(1, "127.0.0.1")
    script = f'exec 0<&- 1>&- 2>&-; exec "{single}" forward 127.0.0.1:{port} 127.0.0.1:9'
    process = subprocess.Popen(["sh", "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        wait_for("it listens", lambda: not is_refused(("127.0.0.1", port)))
        wait_for("it hears signals", lambda: workers_of(process.pid))
        links = {os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in (0, 1, 2)}  # noqa: PTH115  no file
        assert links == {"/dev/null"}
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert list(tmp_path.iterdir()) == []
