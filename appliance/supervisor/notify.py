"""Telling systemd how it goes (sd_notify(3)).

The protocol is one datagram to the socket named in NOTIFY_SOCKET; the libraries for it on PyPI add to these
lines nothing but their own upkeep.
"""

import os
import socket
from typing import Final

ALIVE: Final = "WATCHDOG=1"


def notify(state: str) -> None:
    """Send a state such as READY=1; without NOTIFY_SOCKET, or when nobody reads it, nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # the abstract namespace (unix(7))
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagrams:
        try:
            datagrams.sendto(state.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, address)
        except OSError:
            return


def watchdog_pause() -> float | None:
    """Say every how many seconds to send ALIVE, half of what the manager allows (sd_watchdog_enabled(3)).

    None where it does not ask for that, or asks another process: the variables are inherited.
    """
    allowed, meant_for = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    is_meant = meant_for in {"", str(os.getpid())}
    if not (is_meant and allowed.isascii() and allowed.isdecimal() and int(allowed)):
        return None
    return int(allowed) / 1e6 / 2
