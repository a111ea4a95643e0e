"""Telling systemd how it goes (sd_notify(3)).

The protocol is one datagram to the socket named in NOTIFY_SOCKET; the libraries for it on PyPI add to these
lines nothing but their own upkeep.
"""

import os
import socket


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
