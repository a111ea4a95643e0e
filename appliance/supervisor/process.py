"""What the gateway's process sees to before it opens anything."""

import os
import resource
from pathlib import Path
from typing import Final

STDERR: Final = 2


def raise_fd_limit() -> None:
    """Lift the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_standard_fds() -> None:
    """Open what is closed of fds 0, 1 and 2 on /dev/null, or a session's socket would become "stdout"."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(fd)


def local_ports() -> int:
    """Count the ports that the kernel may give to sockets that ask for none (ip(7), ip_local_port_range)."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return last - first + 1
