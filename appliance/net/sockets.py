"""Sockets: how they are made, what their options are, and what their errors mean.

`Socket` is the C class under `socket.socket`. Accepting through the Python class costs 2 us more for each
client (two enum conversions and a second constructor), and nothing of what it adds is used here.

Reads and writes carry MSG_DONTWAIT, so an accepted client needs no system call to be made non-blocking:
accept4(2) in CPython passes SOCK_CLOEXEC only. O_NONBLOCK itself is set when a direction starts to splice,
since splice(2) looks at nothing else.
"""

import errno
import socket
import stat
import struct
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from socket import SocketType
from typing import Final

from appliance.outcome import Cause
from appliance.values import MAX_PORT, Address

Socket = SocketType
"""See above."""


class Sealed:
    """Marks a socket whose own bytes are not those on the wire (`tls`): it cannot be spliced.

    A mark, so that who relays plain sockets need not import OpenSSL to ask.
    """

    __slots__ = ()

    def pending(self) -> bool:
        """Say whether there is something to read, be it the end, that epoll knows nothing of."""
        raise NotImplementedError


STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
DONTWAIT: Final = int(socket.MSG_DONTWAIT)
LINGER_ABORT: Final = struct.pack("ii", 1, 0)
"""With this SO_LINGER, close(2) sends RST and drops what is unsent (socket(7))."""

BACKLOG: Final = 4096
"""Clients that may wait for accept; the kernel cuts it to net.core.somaxconn, 4096 since Linux 5.4."""

KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""A peer that vanished without FIN or RST is noticed 2 minutes after its last byte (tcp(7))."""

TCP_RTO_MAX_MS: Final = 44
"""Linux 6.15 (linux/tcp.h); Python has no name for it."""

RESUMES: Final = (
    (socket.IPPROTO_TCP, TCP_RTO_MAX_MS, 2000),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000),
)
"""What was lost in a cut is sent again every 2 s, not after twice the time that the cut has lasted so far.

But the kernel's 15 tries (net.ipv4.tcp_retries2) are over after 27 s then, so it is told how long to try: as
long as it does where there is nothing to send.
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address to dial, ready for connect(2)."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | str
    text: str


def endpoint_of(address: Address) -> Endpoint:
    """Make the endpoint of a numeric or unix address."""
    if address.path:
        return Endpoint(int(socket.AF_UNIX), address.path, str(address))
    info = socket.getaddrinfo(
        address.host,
        address.first_port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
    family, _, _, _, sockaddr = info[0]
    return Endpoint(int(family), _inet(sockaddr), str(address))


def endpoint_named(family: int, sockaddr: object) -> Endpoint:
    """Make the endpoint of one answer of getaddrinfo(3)."""
    return Endpoint(int(family), _inet(sockaddr), peer_text(sockaddr))


def _inet(sockaddr: object) -> tuple[str, int] | tuple[str, int, int, int]:
    match sockaddr:
        case (str(host), int(port)):
            return host, port
        case (str(host), int(port), int(flow), int(scope)):
            return host, port, flow, scope
    raise TypeError(f"not an internet address: {sockaddr!r}")


def peer_text(sockaddr: object) -> str:
    """Write an address of accept(2) as in the log: 203.0.113.9:51022, [2001:db8::1]:51022, unix."""
    if isinstance(sockaddr, tuple):
        if len(sockaddr) == 2:  # noqa: PLR2004  (host, port): IPv4
            return f"{sockaddr[0]}:{sockaddr[1]}"
        host = str(sockaddr[0])
        if host.startswith("::ffff:") and "." in host:  # IPv4 on a socket of both families (ipv6(7))
            return f"{host[7:]}:{sockaddr[1]}"
        return f"[{host}]:{sockaddr[1]}"
    return "unix"


def sockaddr_of(text: str) -> tuple[str, int] | tuple[str, int, int, int] | str:
    """Give the address that `peer_text` wrote, as accept(2) would; "" for what is none, such as "unix"."""
    host, _, port = text.rpartition(":")
    is_ipv6 = host.startswith("[")
    try:  # what is no number would be looked up by name
        if is_ipv6:
            host = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host[1:-1]))
        else:
            socket.inet_pton(socket.AF_INET, host)
        number = int(port)
    except (OSError, ValueError):
        return ""
    if not 0 < number <= MAX_PORT:
        return ""
    return (host, number, 0, 0) if is_ipv6 else (host, number)


def listening_socket(endpoint: Endpoint, *, reuse_port: bool) -> socket.socket:
    """Bind and listen. What is set here is inherited by each accepted client (tcp(7)), free of charge.

    Raises OSError as bind(2) and listen(2) do.
    """
    listener = socket.socket(endpoint.family, STREAM)
    try:
        if endpoint.family != socket.AF_UNIX:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if endpoint.family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare_listener(listener)
        listener.bind(endpoint.sockaddr)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def prepare_listener(listener: socket.socket) -> None:
    """Set what clients are to inherit, and O_NONBLOCK; also for a socket that came from outside."""
    listener.setblocking(False)
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(listener)


def remove_stale(path: Path) -> None:
    """Take away the file of a unix socket that nobody listens on any more; anything else stays."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # a listener whose backlog is full would keep us waiting
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink()
    except OSError:
        return


def has_address(connection: Socket) -> bool:
    """Say whether this host still has the address that a connection goes out from.

    Where it has not, the kernel drops all that is sent, and says nothing (ip(7)).
    """
    name = connection.getsockname()
    try:
        with socket.socket(connection.family, socket.SOCK_DGRAM) as probe:
            probe.bind((name[0], 0, *name[2:]))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


def keep_alive(connection: Socket) -> None:
    """Let the kernel find out when the peer is gone."""
    for level, option, value in KEEPALIVE:
        connection.setsockopt(level, option, value)


def resume_soon(connection: Socket | socket.socket) -> None:
    """Have a connection go on within 2 s of its network, where the kernel knows how.

    What a listener has of it, those have that it accepts.
    """
    try:
        for level, option, value in RESUMES:
            connection.setsockopt(level, option, value)
    except OSError:  # ENOPROTOOPT, of the first one
        return


def abort_on_close(connection: Socket) -> None:
    """Make the coming close(2) an RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ABORT)


class AcceptError(Enum):
    """What a failed accept(2) asks for."""

    NONE_WAITING = auto()
    """EAGAIN: all clients are taken."""
    CLIENT_GONE = auto()
    """That client failed, the next one may not: accept(2) says to treat these like EAGAIN by retrying."""
    EXHAUSTED = auto()
    """No fd or memory: the client stays queued, and so does the event; polling on would spin."""


_CLIENT_GONE: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EINTR,
        errno.EPROTO,
        errno.EPERM,  # a firewall rule forbade it
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    }
)


def classify_accept(number: int | None) -> AcceptError:
    """Say what an errno of accept(2) asks for.

    The list is that of accept(2), "Error handling"; whatever is not on it is taken for exhaustion
    (EMFILE, ENFILE, ENOBUFS, ENOMEM), because pausing is right for an error nobody foresaw.
    """
    if number == errno.EAGAIN:
        return AcceptError.NONE_WAITING
    if number in _CLIENT_GONE:
        return AcceptError.CLIENT_GONE
    return AcceptError.EXHAUSTED


_DIAL_CAUSES: Final = {
    errno.ECONNREFUSED: Cause.DIAL_REFUSED,
    errno.ECONNRESET: Cause.DIAL_REFUSED,
    errno.ETIMEDOUT: Cause.DIAL_TIMEOUT,
    errno.EMFILE: Cause.FD_LIMIT,
    errno.ENFILE: Cause.FD_LIMIT,
    errno.ENOBUFS: Cause.FD_LIMIT,
    errno.ENOMEM: Cause.FD_LIMIT,
    errno.EADDRNOTAVAIL: Cause.FD_LIMIT,  # every ephemeral port to this endpoint is taken (ip(7))
    errno.EAGAIN: Cause.DIAL_REFUSED,  # a unix listener whose backlog is full (connect(2))
}


def dial_cause(number: int | None) -> Cause:
    """Say what an errno of connect(2), or a SO_ERROR after it, means for the session."""
    return _DIAL_CAUSES.get(number or 0, Cause.DIAL_UNREACHABLE)
