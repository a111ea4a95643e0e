"""Where answers leave from: the address the client wrote to, or it would take them for somebody else's.

A socket bound to one address sends from there by itself. One that has every address would send from whichever
the routing table prefers. A control message (IP_PKTINFO) tells it better, and costs 0.45 us with each answer;
so a socket bound to that address is made for the sending, one for each of the first few addresses that
clients write to. It must receive nothing, although the kernel would prefer it to the listener's own (it is
bound more closely): it is connected to itself, so only what comes from its own address and port could reach
it. What arrived between bind(2) and connect(2) is handed to the listener. Where several workers share the
port that may be another one's, so they make none.
"""

import socket
from collections.abc import Callable, Iterator
from socket import AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO
from typing import Any, Final

from appliance.net.datagram_sockets import BUFFER_BYTES, DATAGRAM, IP_PKTINFO, grow_send_buffer
from appliance.net.trains import Controls

MOST: Final = 16
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
        self.sendto: Callable[..., int] | None = None if controls else sender.sendto


class Sources:
    """The addresses of one listener, as clients use them."""

    __slots__ = ("_bound", "_known", "_may_make", "_own", "_senders")

    def __init__(self, bound: socket.socket, may_make: Callable[[], bool] = lambda: True) -> None:
        """`may_make` is asked before a socket is made: fds are counted."""
        self._bound = bound
        self._may_make = may_make
        self._own = Source(bound, [])
        self._known: dict[bytes, Source] = {}
        self._senders: list[socket.socket] = []

    def of(self, local: bytes, stray: Callable[[bytes, Any], None]) -> Source:
        """Give the source for an address as in a control message; an empty one is that of the socket itself.

        `stray` is called with datagrams that a new socket caught, and their senders.
        """
        if not any(local):  # none, or that of a datagram which came before the kernel noted it down
            return self._own
        found = self._known.get(local)
        if found is None:
            if len(self._known) >= MOST:
                return Source(self._bound, _controls(local))
            found = self._known[local] = self._made(local, stray)
        return found

    def _made(self, local: bytes, stray: Callable[[bytes, Any], None]) -> Source:
        family = AF_INET if len(local) == _IPV4_BYTES else AF_INET6
        if (
            family != self._bound.family or not self._may_make()
        ):  # an IPv4 client of a socket of both families
            return Source(self._bound, _controls(local))
        try:
            sender = self._sender(local)
        except OSError:  # no fd, no right to the port any more, or a listener's socket that shares with none
            return Source(self._bound, _controls(local))
        self._senders.append(sender)
        source = Source(sender, [])
        for datagram, client in _caught(sender):
            self._known[local] = source
            stray(datagram, client)
        return source

    def _sender(self, local: bytes) -> socket.socket:
        family = AF_INET if len(local) == _IPV4_BYTES else AF_INET6
        sender = socket.socket(family, DATAGRAM)
        try:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            grow_send_buffer(sender)
            if family == AF_INET6:
                sender.setsockopt(IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            address = (socket.inet_ntop(family, local), self._bound.getsockname()[1])
            sender.bind(address)
            sender.connect(address)
        except BaseException:
            sender.close()
            raise
        return sender

    def close(self) -> None:
        """Close the sockets that were made."""
        for sender in self._senders:
            sender.close()


def _caught(sender: socket.socket) -> Iterator[tuple[bytes, Any]]:
    """Take what a socket received before it was connected."""
    while True:
        try:
            yield sender.recvfrom(BUFFER_BYTES)
        except OSError:
            return


def _controls(local: bytes) -> Controls:
    """Make the control message that has an answer leave from an address."""
    if len(local) == _IPV4_BYTES:
        return [(IPPROTO_IP, IP_PKTINFO, bytes(4) + local + bytes(4))]
    return [(IPPROTO_IPV6, IPV6_PKTINFO, local.ljust(_IN6_PKTINFO_BYTES, b"\0"))]
