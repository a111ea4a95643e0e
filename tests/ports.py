"""A port number that a test needs for more than one address, as when both families listen on it."""

import os
import socket
from itertools import count


def free_for_both_families(start: int = 0) -> int:
    """Find a port that IPv4 and IPv6 can be bound at.

    Not one of the kernel's choice: of those (net.ipv4.ip_local_port_range, from 32768) any other test's
    outgoing connection may have taken the IPv4 half. `start` is how many to pass over: nothing holds a port.
    """
    for offset in count(start):
        port = 12_000 + (os.getpid() * 7 + offset) % 20_000
        try:
            with (
                socket.create_server(("0.0.0.0", port)),
                socket.create_server(("::", port), family=socket.AF_INET6),
            ):
                return port
        except OSError:
            continue
    raise AssertionError
