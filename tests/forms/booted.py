"""A host of its own that systemd has booted, in namespaces: what is done there leaves no trace on this one.

Its files are this machine's, with whatever it writes kept in memory (overlayfs); it has its own processes,
mounts, host name, loopback network and cgroups. /tmp, /run and /dev are empty ones.

    with booted() as host:
        host.run("portway", "install", "--now")
"""

import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.e2e import needs
from tests.e2e.gateway import children, wait_for

SYSTEMD: Final = Path("/lib/systemd/systemd")

CGROUPS: Final = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
"""Where cgroup v2 is: beside version 1, or alone."""

BOOT: Final = r"""
set -eu
base=$1
mount -t tmpfs none "$base"
mkdir "$base/up" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/up,workdir=$base/work" "$base/root"
cd "$base/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for empty in run tmp var/tmp dev; do mount -t tmpfs tmpfs $empty; done
for node in null zero full random urandom tty; do
    touch dev/$node
    mount --bind /dev/$node dev/$node
done
mkdir dev/pts dev/shm old
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
# Only what a service needs, and nothing else that this machine has enabled.
rm -rf etc/systemd/system/*
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=systemd-journald.service\n' \
    >etc/systemd/system/test.target
ip link set lo up
pivot_root . old
umount -l old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --system --unit=test.target --log-target=journal --show-status=false
"""


class Host:
    """The booted host, from outside."""

    def __init__(self, init: int) -> None:
        self.init = init
        """The pid of its systemd."""

    def attempt(self, *command: str, text: bytes = b"") -> "subprocess.CompletedProcess[str]":
        """Run a command there, as root, with this standard input."""
        inside = ("nsenter", f"--target={self.init}", "--all", "--root", "--wd")
        environment = (
            "env",
            "-i",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG=C.UTF-8",
        )
        done = subprocess.run([*inside, *environment, *command], input=text, capture_output=True, check=False)
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def run(self, *command: str, text: bytes = b"") -> str:
        """Run a command that must succeed; give its stdout."""
        done = self.attempt(*command, text=text)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, content: bytes, mode: str = "644") -> None:
        """Put a file there."""
        self.run(
            "sh",
            "-c",
            'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"',
            "sh",
            path,
            mode,
            text=content,
        )

    def show(self, name: str) -> str:
        """Give a property of the service."""
        return self.run("systemctl", "show", "portway", f"--property={name}", "--value").strip()

    def journal(self) -> str:
        """Give what the service has said."""
        return self.run("journalctl", "--unit=portway", "--output=cat", "--no-pager")


@contextmanager
def booted() -> Iterator[Host]:
    """Boot a host; end it, and everything in it."""
    needs.root()
    for program in ("unshare", "nsenter", "setpriv", "ip", "pivot_root"):
        needs.program(program)
    if not SYSTEMD.exists():
        needs.lack("systemd is not installed")
    within = next((place for place in CGROUPS if (place / "cgroup.procs").exists()), None)
    if within is None:
        needs.lack("this machine has no cgroup v2")
    assert within is not None
    cgroup = within / f"portway-test-{secrets.token_hex(4)}"
    cgroup.mkdir()
    try:
        with tempfile.TemporaryDirectory(prefix="portway-test-") as base:
            yield from _run(base, cgroup)
    finally:
        for folder in [*sorted(cgroup.rglob("*/"), reverse=True), cgroup]:
            folder.rmdir()


def _run(base: str, cgroup: Path) -> Iterator[Host]:
    # A test run that is killed takes its host along.
    into = (
        "setpriv",
        "--pdeathsig=KILL",
        "sh",
        "-c",
        'echo $$ >"$0"; exec "$@"',
        str(cgroup / "cgroup.procs"),
    )
    spaces = ("--cgroup", "--mount", "--pid", "--net", "--uts", "--ipc", "--propagation=private")
    process = subprocess.Popen(
        [*into, "unshare", *spaces, "--fork", "--kill-child", "sh", "-c", BOOT, "sh", base],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # at its end, unshare finds its signals unusual
    )
    init = 0
    try:
        wait_for("a process in the new host", lambda: children(process.pid))
        (init,) = children(process.pid)
        host = Host(init)
        wait_for("systemd to have booted", lambda: _is_up(host, process))
        yield host
    finally:
        if init:
            os.kill(init, signal.SIGKILL)  # the kernel takes the rest of its pid namespace along
        else:
            process.kill()
        process.wait()
        wait_for(
            "every process there to be gone", lambda: "populated 0" in (cgroup / "cgroup.events").read_text()
        )


def _is_up(host: Host, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "the host did not boot"
    return host.attempt("systemctl", "is-active", "--quiet", "test.target").returncode == 0
