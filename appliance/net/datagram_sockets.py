"""Datagram sockets: how they are made, what the kernel tells of them, and what their errors mean."""

import errno
import socket
import struct
import sys
from contextlib import suppress
from typing import Final

from appliance.net.sockets import Endpoint
from appliance.outcome import Cause, Drop

DATAGRAM: Final = int(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

IP_PKTINFO: Final = 8
IP_RECVERR: Final = 11
IPV6_RECVERR: Final = 25
IPV6_MULTICAST_ALL: Final = 29
IP_MULTICAST_ALL: Final = 49
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
SO_MEMINFO: Final = 55
"""linux/in.h, linux/in6.h and asm-generic/socket.h; Python 3.11 does not name them."""

SEND_BUFFER: Final = 16 << 20
"""What a socket that answers many clients asks for. The kernel charges it with what waits for a neighbour to
resolve (208 KiB for each, net.ipv4.neigh.*.unres_qlen_bytes), so with the default two clients that have
vanished from the network while their endpoint went on sending took the answers of all others along."""

BUFFER_BYTES: Final = 1 << 16
"""No datagram and no train is longer: the length fields of UDP and of GRO's buffers have 16 bits."""

_MEMINFO: Final = struct.Struct("=9I")
_QUEUED: Final = 0
_DROPS: Final = 8
"""SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_DROPS (linux/sock_diag.h): what waits to be read, as the kernel
accounts it, and the count that SO_RXQ_OVFL would tell with each datagram."""

_ERROR_BYTES: Final = 128
"""Room for a struct sock_extended_err, whose first field is the errno, and the address of who sent it."""

_TAKE_ERROR: Final = int(socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)

_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})


def datagram_socket(endpoint: Endpoint, *, reuse_port: bool, receive_buffer: int) -> socket.socket:
    """Bind a socket for a listener's datagrams. Raises OSError as bind(2) does."""
    bound = socket.socket(endpoint.family, DATAGRAM)
    try:
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if endpoint.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        grow_receive_buffer(bound, receive_buffer)
        grow_send_buffer(bound)
        if endpoint.sockaddr[0] in _WILDCARDS:  # before bind: it is noted down as a datagram comes
            _report_destination(bound)
        bound.bind(endpoint.sockaddr)
    except BaseException:
        bound.close()
        raise
    return bound


def prepare_datagrams(bound: socket.socket, receive_buffer: int) -> None:
    """Set what a listener's socket needs that came from outside, bound."""
    bound.setblocking(False)
    grow_receive_buffer(bound, receive_buffer)
    grow_send_buffer(bound)
    if is_wildcard(bound):
        _report_destination(bound)


def _report_destination(receiver: socket.socket) -> None:
    """Have the kernel tell with each datagram which address it was sent to, and keep multicast away.

    Where a socket has every address, the answer must leave from that one (ip(7), ipv6(7); RFC 1122, 4.1.3.5).
    What other programs of this host have joined is none of ours, and would come once for each worker.
    """
    if receiver.family == socket.AF_INET6:
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        with suppress(OSError):  # before Linux 4.20
            receiver.setsockopt(socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)
        if receiver.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            return
    receiver.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    receiver.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)


def is_wildcard(bound: socket.socket) -> bool:
    """Say whether a socket receives at every address of its family."""
    return bound.getsockname()[0] in _WILDCARDS


def grow_receive_buffer(receiver: socket.SocketType, wanted: int) -> None:
    """Ask for a receive buffer: past net.core.rmem_max with CAP_NET_ADMIN, up to it without."""
    _grow(receiver, SO_RCVBUFFORCE, socket.SO_RCVBUF, wanted)


def grow_send_buffer(sender: socket.SocketType) -> None:
    """Ask for room for what many clients have not taken yet (net.core.wmem_max)."""
    _grow(sender, SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER)


def _grow(grown: socket.SocketType, forced: int, allowed: int, wanted: int) -> None:
    try:
        grown.setsockopt(socket.SOL_SOCKET, forced, wanted)
    except OSError:
        with suppress(OSError):
            grown.setsockopt(socket.SOL_SOCKET, allowed, wanted)


def receive_buffer_of(receiver: socket.SocketType) -> int:
    """Tell the receive buffer in bytes, as asked for: the kernel doubles that for its own use (socket(7))."""
    return receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def kernel_drops(receiver: socket.SocketType) -> int:
    """Count the datagrams that the kernel dropped since the socket was made: its receive buffer was full."""
    return _meminfo(receiver, _DROPS)


def is_drained(receiver: socket.SocketType) -> bool:
    """Say whether no datagram waits to be read. Where the kernel does not tell, one may."""
    return _meminfo(receiver, _QUEUED, unknown=1) == 0


def _meminfo(receiver: socket.SocketType, index: int, unknown: int = 0) -> int:
    told = receiver.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size)  # since Linux 4.12
    return int(_MEMINFO.unpack(told)[index]) if len(told) == _MEMINFO.size else unknown


def report_errors(connection: socket.SocketType, family: int) -> None:
    """Have every ICMP error reported, those that may pass (host unreachable) too, and queued (ip(7))."""
    if family == socket.AF_INET6:
        connection.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        connection.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def queued_errors(connection: socket.SocketType) -> list[int]:
    """Take the errors of `report_errors` off their queue, as errno, the oldest first."""
    errors = []
    with suppress(OSError):
        while True:
            _, controls, _, _ = connection.recvmsg(0, _ERROR_BYTES, _TAKE_ERROR)
            errors += [int.from_bytes(data[:4], sys.byteorder) for _, _, data in controls]
    return errors


_LOST: Final = {
    errno.ECONNREFUSED: Cause.ENDPOINT_REFUSED,  # ICMP port unreachable
    errno.EHOSTUNREACH: Cause.ENDPOINT_UNREACHABLE,
    errno.ENETUNREACH: Cause.ENDPOINT_UNREACHABLE,
    errno.EHOSTDOWN: Cause.ENDPOINT_UNREACHABLE,
    errno.ENETDOWN: Cause.ENDPOINT_UNREACHABLE,
    errno.ENONET: Cause.ENDPOINT_UNREACHABLE,
    errno.ENOPROTOOPT: Cause.ENDPOINT_UNREACHABLE,  # ICMP protocol unreachable
    errno.EOPNOTSUPP: Cause.ENDPOINT_UNREACHABLE,  # ICMP source route failed
    errno.ENODEV: Cause.ENDPOINT_UNREACHABLE,
}


def endpoint_lost(number: int | None) -> Cause | None:
    """Say what an errno of a connected socket means for its endpoint (icmp_err_convert, net/ipv4/icmp.c).

    None: it concerns a datagram, not the endpoint.
    """
    return _LOST.get(number or 0)


_DROPS_BY_ERRNO: Final = {
    errno.EAGAIN: Drop.SEND_FULL,
    errno.ENOBUFS: Drop.SEND_FULL,
    errno.ENOMEM: Drop.SEND_FULL,
    errno.EMSGSIZE: Drop.TOO_LONG,
}


def drop_cause(number: int | None) -> Drop:
    """Say why a datagram was dropped that send(2) did not take."""
    return _DROPS_BY_ERRNO.get(number or 0, Drop.SEND_FAILED)
