"""Where answers leave from: the address the client wrote to, or it would take them for somebody else's.

A socket bound to one address sends from there by itself. One that has every address would send from whichever
the routing table prefers, so each answer says where from (IP_PKTINFO), which costs 0.45 us. (A socket of its
own for each address, bound and connected to itself so that it receives nothing, would save that. It was tried
and given up: what arrives between bind(2) and connect(2) is another worker's, perhaps, and out of order.)
"""

import socket
from socket import IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO
from typing import Final

from appliance.net.datagram_sockets import IP_PKTINFO
from appliance.net.trains import Controls

MOST: Final = 64
"""Addresses of one listener that are remembered."""

_IPV4_BYTES: Final = 4
_IN6_PKTINFO_BYTES: Final = 20


class Source:
    """One address that answers leave from."""

    __slots__ = ("controls", "sendmsg", "sendto")

    def __init__(self, sender: socket.socket, controls: Controls) -> None:
        self.sendmsg = sender.sendmsg
        self.controls = controls
        """What sendmsg(2) needs to be told; nothing where `sendto` does as well."""
        self.sendto = None if controls else sender.sendto


class Sources:
    """The addresses of one listener, as clients use them."""

    __slots__ = ("_bound", "_known", "_own")

    def __init__(self, bound: socket.socket) -> None:
        self._bound = bound
        self._own = Source(bound, [])
        self._known: dict[bytes, Source] = {}

    def of(self, local: bytes) -> Source:
        """Give the source for an address as in a control message; an empty one is the socket's own."""
        if not any(local):  # none, or that of a datagram which came before the kernel noted it down
            return self._own
        found = self._known.get(local)
        if found is None:
            found = Source(self._bound, _controls(local))
            if len(self._known) < MOST:
                self._known[local] = found
        return found


def _controls(local: bytes) -> Controls:
    """Make the control message that has an answer leave from an address."""
    if len(local) == _IPV4_BYTES:
        return [(IPPROTO_IP, IP_PKTINFO, bytes(4) + local + bytes(4))]
    return [(IPPROTO_IPV6, IPV6_PKTINFO, local.ljust(_IN6_PKTINFO_BYTES, b"\0"))]
