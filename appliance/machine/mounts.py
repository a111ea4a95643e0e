"""The tree that Portway runs in: kernel file systems, the few files of /etc, a root that stays as it is."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.machine.syscalls import MountFlag, mount

_KERNELS: Final = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system that the kernel makes."""

    target: str
    kind: str
    flags: int = _KERNELS
    data: str = ""


MOUNTS: Final = (
    Mount("/proc", "proc"),
    Mount("/sys", "sysfs"),
    Mount("/dev", "devtmpfs", MountFlag.NOSUID | MountFlag.NOEXEC, "mode=0755"),
    Mount("/run", "tmpfs", data="mode=0755,size=16m"),
)

STATE: Final = "/var/lib/portway"
"""Where the disk labelled PORTWAY-STATE goes, if there is one."""

FOLDERS: Final = (STATE, "/mnt/portway", "/mnt/seed", "/etc")
"""Where disks go: the root is read-only afterwards."""

FILES: Final = {
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
    "/etc/passwd": "root:x:0:0::/:/none\nportway:x:65532:65532::/:/none\n",
    "/etc/group": "root:x:0:\nportway:x:65532:\n",
}
"""What the C library looks at, by path. There is no shell and nobody logs in."""

RESOLV_CONF: Final = "/run/resolv.conf"
"""The root is read-only, and name servers come and go: /etc/resolv.conf is a link to this file."""

SYSCTLS: Final = {
    "kernel/panic": "10",  # also where the command line does not say so
    "kernel/panic_on_oops": "1",
    # What hypervisors ask for through the kernel (Hyper-V, Xen) it asks of a program.
    "kernel/poweroff_cmd": "/portway/app/portway machine --power-off",
    "kernel/printk": "4 4 1 4",  # the console is for the log, and for the kernel's errors
    "vm/swappiness": "150",  # to memory (`swap`): cheaper than reading a file again
    "fs/file-max": "1000000",
    "net/core/somaxconn": "16384",
    "net/core/rmem_max": "67108864",
    "net/core/wmem_max": "67108864",
    "net/ipv4/ip_local_port_range": "10000 65535",
    # The gateway, without capabilities, may listen on 25 or 443, and on addresses that DHCP brings later.
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ip_nonlocal_bind": "1",
    "net/ipv6/ip_nonlocal_bind": "1",
    "net/ipv4/tcp_max_syn_backlog": "16384",
    # A gateway forwards what it accepted itself, never packets; nor does it follow redirects.
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv6/conf/all/accept_redirects": "0",
    "net/ipv4/conf/all/accept_source_route": "0",
}
"""What a gateway wants of the kernel, by path below /proc/sys."""


def make_tree() -> None:
    """Mount what the kernel offers and write the files of /etc. Raises OSError."""
    for each in MOUNTS:
        Path(each.target).mkdir(parents=True, exist_ok=True)
        with suppress(BlockingIOError):  # EBUSY: it is there, in a namespace that a test made
            mount(each.kind, each.target, each.kind, each.flags, each.data)
    for folder in FOLDERS:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for path, text in FILES.items():
        Path(path).write_text(text, encoding="ascii")
    link = Path("/etc/resolv.conf")
    link.unlink(missing_ok=True)
    link.symlink_to(RESOLV_CONF)
    Path(RESOLV_CONF).touch()


def seal_root() -> str | None:
    """Make the root read-only; a sentence where the kernel does not let it be."""
    try:
        mount("", "/", "", MountFlag.REMOUNT | MountFlag.RDONLY)
    except OSError as error:
        return f"the root stays writable: {error.strerror}"
    return None


def set_sysctls() -> list[str]:
    """Tell the kernel what a gateway wants; a sentence for each thing it does not take."""
    refused = []
    for name, value in SYSCTLS.items():
        try:
            Path("/proc/sys", name).write_text(value, encoding="ascii")
        except OSError as error:
            refused.append(f"{name.replace('/', '.')} is not set: {error.strerror}")
    return refused


def writable_by_gateway(path: str, uid: int, gid: int) -> None:
    """Make a folder that belongs to the gateway."""
    Path(path).mkdir(mode=0o750, parents=True, exist_ok=True)
    os.chown(path, uid, gid)
