"""The client's address at the endpoint (`source = "client"`): a socket that leaves from there.

With IP_TRANSPARENT a socket may be bound to an address that is not this host's (IP_TRANSPARENT(2const)), if
its process has CAP_NET_RAW or CAP_NET_ADMIN. IP_FREEBIND asks for neither, but then IPv4 routing refuses the
address as a source (FLOWI_FLAG_ANYSRC, net/ipv4/route.c). That answers come back to this host is a matter of
the network; that the kernel takes them for its own is one of the lines of `portway source`.
"""

from collections.abc import Callable
from socket import AF_INET, AF_INET6, AF_UNIX, IPPROTO_IP, IPPROTO_IPV6, AddressFamily, inet_pton
from typing import Final

from appliance.net.sockets import Endpoint, Socket
from appliance.outcome import Cause

IP_TRANSPARENT: Final = 19
IP_BIND_ADDRESS_NO_PORT: Final = 24
IPV6_TRANSPARENT: Final = 75
"""linux/in.h, linux/in6.h; Python 3.11 names the first one only."""

_OPTIONS: Final = {AF_INET: (IPPROTO_IP, IP_TRANSPARENT), AF_INET6: (IPPROTO_IPV6, IPV6_TRANSPARENT)}

SockAddr = tuple[str, int] | tuple[str, int, int, int]

_NOT_ALLOWED: Final = (
    'source = "client": this process may not send from the addresses of clients; '
    "give it CAP_NET_RAW (docs/client-address.md)"
)
_NOT_BOUND: Final = 'source = "client": the address of {} cannot be used: {}'
_FAMILY: Final = (
    'source = "client": {} is of another family than the endpoint {}; '
    "give the rule an endpoint of each family that it listens on"
)
_NO_ANSWER: Final = (
    'source = "client": {} did not answer in time; its answers must come back through this host: '
    "see what `portway source --check` says, and docs/client-address.md"
)


class Transparency:
    """Has the endpoints of one worker see the clients' addresses; says each kind of trouble once."""

    __slots__ = ("_report", "_said")

    def __init__(self, report: Callable[[str], None]) -> None:
        """`report` is given a sentence for the operator."""
        self._report = report
        self._said: set[str] = set()

    def lend(self, connection: Socket, endpoint: Endpoint, client: object) -> Cause | None:
        """Bind a socket that is to be connected to the client's address; give why that cannot be.

        `client` is its address as accept(2) gives it. One without an address (a unix socket's) is dialled for
        as usual, and so is a unix endpoint. The port is the client's where it is free.
        """
        address = _internet(client)
        if address is None or endpoint.family == AF_UNIX:
            return None
        family = _family(address)
        if family != endpoint.family:
            return self._refuse(_FAMILY, address[0], endpoint.text)
        try:
            connection.setsockopt(*_OPTIONS[family], 1)
        except OSError:
            return self._refuse(_NOT_ALLOWED)
        try:
            _bind(connection, address)
        except OSError as error:
            return self._refuse(_NOT_BOUND, address[0], error.strerror)
        return None

    def probe(self) -> None:
        """Say so now, and not with the first client, where this process lacks the right."""
        probe = Socket(AF_INET)
        try:
            probe.setsockopt(*_OPTIONS[AF_INET], 1)
        except OSError:
            self._refuse(_NOT_ALLOWED)
        finally:
            probe.close()

    def unanswered(self, endpoint: Endpoint) -> None:
        """Say what may be the matter where an endpoint does not answer."""
        self._refuse(_NO_ANSWER, endpoint.text)

    def _refuse(self, what: str, *about: object) -> Cause:
        if what not in self._said:
            self._said.add(what)
            self._report(what.format(*about))
        return Cause.SOURCE_UNAVAILABLE


def _bind(connection: Socket, address: SockAddr) -> None:
    """Take the client's port; where that is taken here, or for root only, one that connect(2) picks."""
    try:
        connection.bind(address)
    except OSError:
        connection.setsockopt(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        connection.bind((address[0], 0, *address[2:]))


def _internet(client: object) -> SockAddr | None:
    """Give an address as bind(2) takes it; IPv4 on a socket of both families is IPv4 (ipv6(7)).

    It must be one in numbers: Python would look up a name, and wait for it. A gateway tells its agents who a
    client is, so this is what the network says.
    """
    match client:
        case (str(host), int(port), int(), int()) if host.startswith("::ffff:") and "." in host:
            address: SockAddr = (host[7:], port)
        case (str(host), int(port), int(), int(scope)):
            address = (host, port, 0, scope)
        case (str(host), int(port)):
            address = (host, port)
        case _:
            return None
    try:
        inet_pton(_family(address), address[0])
    except OSError:
        return None
    return address


def _family(address: SockAddr) -> AddressFamily:
    return AF_INET6 if len(address) == 4 else AF_INET  # noqa: PLR2004  (host, port, flow, scope)
