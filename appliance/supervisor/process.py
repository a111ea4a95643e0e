"""What the gateway's process sees to before it opens anything."""

import os
import resource
import socket
from pathlib import Path
from typing import Final

STDERR: Final = 2

LOCAL_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def raise_fd_limit() -> None:
    """Lift the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_standard_fds() -> None:
    """Open what is closed of fds 0, 1 and 2 on /dev/null, or a session's socket would become "stdout"."""
    while (fd := _nowhere()) <= STDERR:
        pass
    os.close(fd)


def _nowhere() -> int:
    try:
        return os.open(os.devnull, os.O_RDWR)
    except FileNotFoundError:  # an empty chroot: what is written to a socket without a peer goes nowhere, too
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC).detach()


def local_ports() -> int:
    """Count the ports that the kernel may give to sockets that ask for none (ip(7), ip_local_port_range)."""
    try:
        first, last = map(int, LOCAL_PORTS.read_text().split())
    except FileNotFoundError:  # an empty chroot
        first, last = 32768, 60999
    return last - first + 1
