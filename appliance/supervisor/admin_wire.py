"""The admin socket as both of its ends see it: where it is, and one line of JSON each way.

Little is imported here: `portway status --healthy` runs every few seconds.
"""

import os
import socket
import struct
from contextlib import suppress
from typing import Final

from appliance.values.admin import ABSTRACT

LARGEST_REQUEST: Final = 4096
"""Bytes, the line's end included."""

PATIENCE: Final = 5.0
"""Seconds that a connection may take, from accept to the reply's last byte."""


def admin_sockaddr(address: str) -> str:
    """Give what connect(2) and bind(2) take for a path or `@`. Raises OSError where there is no /proc.

    Abstract addresses belong to a network namespace, which containers may share with their host: so the name
    has the inode of the mount namespace, which is what else a path would belong to.
    """
    if address != ABSTRACT:
        return address
    return f"\0portway/{os.stat('/proc/self/ns/mnt').st_ino}"  # noqa: PTH116  pathlib takes 5 ms to import


def ask(address: str, request: bytes, patience: float = PATIENCE) -> bytes:
    """Send a request, a line without its end; give the whole reply. Raises OSError, TimeoutError for silence.

    The time-outs are the kernel's: with Python's, connect(2) would not wait while the backlog is full.
    """
    timeout = struct.pack("ll", int(patience), int(patience % 1 * 1e6))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        try:
            line.connect(admin_sockaddr(address))
            with suppress(BrokenPipeError):  # refused before it was read; the reply says why
                line.sendall(request + b"\n", socket.MSG_NOSIGNAL)
            return b"".join(iter(lambda: line.recv(65536), b""))
        except BlockingIOError:
            raise TimeoutError from None
