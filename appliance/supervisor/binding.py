"""Binding: the listen addresses of a ruleset become listening sockets, all or none.

The master binds and keeps all sockets, one per worker and address, each with SO_REUSEPORT: the kernel spreads
the clients over them by hash, and a worker's death loses nobody who waits in its socket's queue.
(One socket shared by all workers, with EPOLLEXCLUSIVE, wakes the last waiter first and piles the load on it.)
A unix socket, and one that came from outside, exists once: those are shared.

SO_REUSEPORT would also let a second gateway of the same user bind the same port and take every other client.
So each address is first bound without it, which fails where anybody listens, and given up again.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance.net.sockets import endpoint_of, listening_socket, peer_text, prepare_listener
from appliance.ruleset import Rule, Ruleset
from appliance.values import ListenAddress

FIRST_INHERITED: Final = 3
"""SD_LISTEN_FDS_START (sd_listen_fds(3))."""

TRIES_FOR_A_PORT: Final = 16
"""How often a port that the kernel picked for IPv4 is tried for IPv6."""

_HINTS: Final = {
    errno.EADDRINUSE: "another program listens there; `ss -ltnp` names it",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE, a unix socket a directory one may write to",
    errno.EADDRNOTAVAIL: "no interface of this host has that address; `ip address` lists them",
    errno.EMFILE: "more listeners than this process may have files; raise `ulimit -n`",
    errno.ENOENT: "the unix socket's directory does not exist",
    errno.EAFNOSUPPORT: "this host has no IPv6",
    socket.EAI_NONAME: "no interface of this host has that name; `ip link` lists them",
}

_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An address that could not be bound."""

    rule: str
    address: str
    error: OSError

    @property
    def what(self) -> str:
        """Say what failed."""
        return f'rule "{self.rule}": cannot listen on {self.address}: {_reason(self.error)}'

    @property
    def hint(self) -> str | None:
        """Say what to do about it."""
        return _HINTS.get(self.error.errno or 0)


@dataclass(frozen=True, slots=True)
class Bound:
    """One address of a rule, bound."""

    rule: Rule
    address: str
    """As in the log, with the port the kernel gave."""
    offset: int
    """Which port of the rule's range, from 0."""
    sockets: tuple[socket.socket, ...]
    """One per worker, or the shared one."""
    shared: bool
    """There is one socket, which every worker accepts from."""
    inherited: bool

    def socket_for(self, worker: int) -> socket.socket:
        """Give the socket that this worker accepts from."""
        return self.sockets[0 if self.shared else worker]

    def close(self) -> None:
        """Close every socket."""
        for listening in self.sockets:
            listening.close()

    def remove(self) -> None:
        """Close for good: a unix socket that this process made leaves no file behind."""
        for listening in self.sockets:
            if listening.family == socket.AF_UNIX and not self.inherited:
                with suppress(OSError):
                    Path(listening.getsockname()).unlink()
        self.close()


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


class Binder:
    """Binds the addresses of a ruleset for a number of workers."""

    def __init__(self, workers: int, inherited: Iterable[socket.socket] = ()) -> None:
        self._workers = workers
        self.unused = list(inherited)
        """Inherited sockets that no rule asked for, so far."""
        self.bound: list[Bound] = []
        self._ports: set[tuple[int, int]] = set()
        self.refused: list[Refusal] = []
        self.without_ipv6: list[str] = []
        """Addresses of both families that got IPv4 only."""

    def bind(self, ruleset: Ruleset) -> None:
        """Bind every address; look at `refused` afterwards. On a refusal the caller closes what was bound."""
        for rule in ruleset.rules:
            for address in rule.listen:
                for offset in range(address.port_count):
                    self._bind_one(rule, _one(address, offset), offset)

    def close(self) -> None:
        """Give everything up."""
        for bound in self.bound:
            bound.remove()
        self.bound.clear()

    def _bind_one(self, rule: Rule, address: ListenAddress, offset: int) -> None:
        try:
            if address.is_unix:
                self._bind_unix(rule, address)
            elif address.host:
                self._bind_inet(rule, address, offset)
            else:
                self._bind_both(rule, address, offset)
        except OSError as error:
            self.refused.append(Refusal(rule.name, str(address), error))

    def _bind_both(self, rule: Rule, address: ListenAddress, offset: int) -> None:
        """Bind IPv4 and IPv6 apart, so that an IPv4 client keeps its IPv4 address and its smaller socket."""
        if (outside := self._take_inherited(replace(address, host="::"))) is not None:
            self._keep(rule, offset, (outside,), inherited=True)
            if not outside.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                return
        else:
            try:
                self._bind_pair(rule, address, offset)
            except OSError as error:
                if error.errno not in _NO_IPV6:
                    raise
                self.without_ipv6.append(str(address))
            else:
                return
        self._bind_inet(rule, replace(address, host="0.0.0.0"), offset)

    def _bind_pair(self, rule: Rule, address: ListenAddress, offset: int) -> None:
        """Bind IPv6, then IPv4 at the same port; where the kernel picks it, it may be free for one only."""
        for attempt in reversed(range(TRIES_FOR_A_PORT)):
            self._bind_inet(rule, replace(address, host="::"), offset)
            port = self.bound[-1].sockets[0].getsockname()[1]
            try:
                self._bind_inet(rule, ListenAddress("0.0.0.0", port, port), offset)
            except OSError as error:
                self.bound.pop().close()
                if address.first_port or error.errno != errno.EADDRINUSE or not attempt:
                    raise
            else:
                return

    def _bind_inet(self, rule: Rule, address: ListenAddress, offset: int) -> None:
        if (outside := self._take_inherited(address)) is not None:
            self._keep(rule, offset, (outside,), inherited=True)
            return
        endpoint = endpoint_of(address)
        with socket.socket(endpoint.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if endpoint.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if (endpoint.family, address.first_port) in self._ports:  # ours, at another address of this host
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(endpoint.sockaddr)
            endpoint = replace(endpoint, sockaddr=probe.getsockname())
        sockets: list[socket.socket] = []
        try:
            sockets.extend(listening_socket(endpoint, reuse_port=True) for _ in range(self._workers))
        except OSError:
            for listening in sockets:
                listening.close()
            raise
        self._ports.add((endpoint.family, sockets[0].getsockname()[1]))
        self._keep(rule, offset, tuple(sockets), inherited=False)

    def _bind_unix(self, rule: Rule, address: ListenAddress) -> None:
        outside = self._take_inherited(address)
        if outside is None:
            _remove_stale(Path(address.path))
            sockets = (listening_socket(endpoint_of(address), reuse_port=False),)
        else:
            sockets = (outside,)
        self._keep(rule, 0, sockets, inherited=outside is not None)

    def _keep(self, rule: Rule, offset: int, sockets: tuple[socket.socket, ...], *, inherited: bool) -> None:
        name = sockets[0].getsockname()
        text = f"unix:{name}" if isinstance(name, str) else peer_text(name)
        shared = inherited or sockets[0].family == socket.AF_UNIX
        self.bound.append(Bound(rule, text, offset, sockets, shared=shared, inherited=inherited))

    def _take_inherited(self, address: ListenAddress) -> socket.socket | None:
        """Find an inherited socket that is bound to exactly this address."""
        for outside in self.unused:
            name = outside.getsockname()
            same = name == address.path if isinstance(name, str) else _same_inet(name, address)
            if same:
                self.unused.remove(outside)
                prepare_listener(outside)
                return outside
        return None


def _same_inet(name: tuple[str, int], address: ListenAddress) -> bool:
    if address.is_unix or name[1] != address.first_port:
        return False
    return name[:2] == endpoint_of(address).sockaddr[:2]


def _one(address: ListenAddress, offset: int) -> ListenAddress:
    """Take one port of a range."""
    if address.is_unix:
        return address
    port = address.first_port + offset
    return replace(address, first_port=port, last_port=port)


def _remove_stale(path: Path) -> None:
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


def inherited_sockets() -> list[socket.socket]:
    """Take the listening sockets that the service manager passed (sd_listen_fds(3)), and forget they came."""
    count = os.environ.pop("LISTEN_FDS", "0")
    meant_for = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if meant_for != str(os.getpid()) or not count.isdecimal():
        return []
    taken = []
    for fd in range(FIRST_INHERITED, FIRST_INHERITED + int(count)):
        try:
            os.set_inheritable(fd, False)
            passed = socket.socket(fileno=fd)
        except OSError:  # EBADF, ENOTSOCK: a FIFO or a file that was meant for something else
            continue
        if passed.type == socket.SOCK_STREAM and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            taken.append(passed)
        else:
            passed.close()
    return taken
