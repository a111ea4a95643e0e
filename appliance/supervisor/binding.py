"""Binding: the listen addresses of a ruleset become bound sockets, all or none.

The master binds and keeps all sockets, one per worker and address, each with SO_REUSEPORT: the kernel spreads
the clients over them by hash, and a worker's death loses nobody who waits in its socket's queue. A UDP client
stays with its worker that way: the hash is that of both addresses, and the set of sockets never changes.
(One socket shared by all workers, with EPOLLEXCLUSIVE, wakes the last waiter first and piles the load on it.)
A unix socket, and one that came from outside, exists once: those are shared; but a UDP socket from outside is
read by the first worker alone, or a client's datagrams would go now to one and now to another.

SO_REUSEPORT would also let a second gateway of the same user bind the same port and take every other client.
So each address is first bound without it, which fails where anybody listens, and given up again.

On a reload the next binder takes over the sockets of the addresses that the former one has bound, with who
waits in their queues. Until the new ruleset is in force both have them; `release` then closes the rest.
"""

import errno
import os
import socket
from collections import defaultdict, deque
from collections.abc import Container, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from appliance.net.datagram_sockets import (
    datagram_socket,
    grow_receive_buffer,
    prepare_datagrams,
    receive_buffer_of,
)
from appliance.net.sockets import (
    Endpoint,
    endpoint_of,
    listening_socket,
    peer_text,
    prepare_listener,
    remove_stale,
)
from appliance.ruleset import Protocol, Rule, Ruleset
from appliance.supervisor.tunnels import TUNNEL, tunnel_rules
from appliance.values import ListenAddress

FIRST_INHERITED: Final = 3
"""SD_LISTEN_FDS_START (sd_listen_fds(3))."""

TRIES_FOR_A_PORT: Final = 16
"""How often a port that the kernel picked for IPv4 is tried for IPv6."""

LARGEST_BUFFER: Final = (1 << 30) - 1
"""What the kernel grants anybody: twice that is the largest int (sock_setsockopt)."""

_HINTS: Final = {
    errno.EADDRINUSE: "another program listens there; `ss -l{}np` names it",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE, a unix socket a directory one may write to",
    errno.EADDRNOTAVAIL: "no interface of this host has that address; `ip address` lists them",
    errno.EMFILE: "more listeners than this process may have files; raise `ulimit -n`",
    errno.ENOENT: "the unix socket's directory does not exist",
    errno.EAFNOSUPPORT: "this host has no IPv6",
    socket.EAI_NONAME: "no interface of this host has that name; `ip link` lists them",
}

_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


_Port: TypeAlias = tuple[Protocol, int, int]
"""A protocol, a family of addresses, and a port."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An address that could not be bound."""

    rule: str
    address: str
    error: OSError
    protocol: Protocol = Protocol.TCP

    @property
    def what(self) -> str:
        """Say what failed."""
        where = f"{self.address}/udp" if self.protocol is Protocol.UDP else self.address
        whose = self.rule if self.rule == TUNNEL else f'rule "{self.rule}"'
        return f"{whose}: cannot listen on {where}: {_reason(self.error)}"

    @property
    def hint(self) -> str | None:
        """Say what to do about it."""
        hint = _HINTS.get(self.error.errno or 0)
        return hint and hint.replace("{}", "u" if self.protocol is Protocol.UDP else "t")


@dataclass(frozen=True, slots=True)
class Bound:
    """One address of a rule, bound."""

    rule: Rule
    protocol: Protocol
    """TCP or UDP."""
    wanted: ListenAddress
    """One port of one family, or a unix socket; port 0 where the kernel was to pick one."""
    address: str
    """As in the log, with the port the kernel gave."""
    offset: int
    """Which port of the rule's range, from 0."""
    sockets: tuple[socket.socket, ...]
    """One per worker or, after a reload to fewer workers, more; or the shared one."""
    workers: int
    shared: bool
    """There is one socket: every worker accepts from it, or, of UDP, the first one reads it."""
    inherited: bool

    def sockets_for(self, worker: int) -> tuple[socket.socket, ...]:
        """Give the sockets that this worker serves: none where that is another worker's business.

        Several, where a reload has left more sockets than there are workers: to close one would reset the
        clients that are about to enter its queue.
        """
        if not self.shared:
            return self.sockets[worker :: self.workers]
        return () if worker and self.protocol is Protocol.UDP else self.sockets

    def close(self) -> None:
        """Close every socket."""
        for listening in self.sockets:
            listening.close()

    def remove(self, but: Container[socket.socket] = ()) -> None:
        """Close for good, but for some: a unix socket that this process made leaves no file behind."""
        for listening in self.sockets:
            if listening in but:
                continue
            if listening.family == socket.AF_UNIX and not self.inherited:
                with suppress(OSError):
                    Path(listening.getsockname()).unlink()
            listening.close()


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


class Binder:
    """Binds the addresses of a ruleset for a number of workers."""

    def __init__(
        self, workers: int, inherited: Iterable[socket.socket] = (), former: Iterable["Binder"] = ()
    ) -> None:
        """`former` have bound other rulesets of this process, the latest first: theirs may be taken over."""
        self._workers = workers
        self._former: dict[Hashable, deque[Bound]] = defaultdict(deque)
        self._taken: set[socket.socket] = set()
        self.unused = list(inherited)
        """Inherited sockets that no rule asked for, so far."""
        self.bound: list[Bound] = []
        self._ports: set[_Port] = set()
        """Those that were bound here, also after they were given up: a worker that drains may have one."""
        self.small_buffers: dict[str, int] = {}
        """Rules whose UDP sockets were granted a smaller receive buffer than they ask for, and how small."""
        self.refused: list[Refusal] = []
        self.without_ipv6: list[str] = []
        """Addresses of both families that got IPv4 only."""
        self._former_ports: set[_Port] = set()
        self._note_down(former)

    def _note_down(self, former: Iterable["Binder"]) -> None:
        known: set[socket.socket] = set()
        for binder in former:
            self._former_ports |= binder._ports  # noqa: SLF001  one of this class
            for bound in binder.bound:
                if bound.sockets[0] not in known:
                    known.add(bound.sockets[0])
                    self._former[_key(bound.rule, bound.protocol, bound.wanted)].append(bound)

    def bind(self, ruleset: Ruleset) -> None:
        """Bind every address; look at `refused` afterwards. On a refusal the caller closes what was bound."""
        for rule in (*ruleset.rules, *tunnel_rules(ruleset)):
            for address in rule.listen:
                for offset in range(address.port_count):
                    self._bind_one(rule, _one(address, offset), offset)
        # Last, and only if all else went well: a client may be in a new socket's queue at once, and would be
        # reset where a refusal closed that again.
        for position, bound in enumerate(self.bound):
            if not self.refused and self.took_over(bound):
                self._fit(position, bound)

    def close(self) -> None:
        """Give everything up."""
        self.release(())

    def release(self, to: Iterable[Bound]) -> None:
        """Give up what another ruleset has not bound as well."""
        theirs = {listening for bound in to for listening in bound.sockets}
        for bound in self.bound:
            bound.remove(but=theirs)
        self.bound.clear()

    def sockets(self) -> set[socket.socket]:
        """Give all the sockets there are."""
        return {listening for bound in self.bound for listening in bound.sockets}

    def took_over(self, bound: Bound) -> bool:
        """Say whether the sockets of this address were another ruleset's before."""
        return bound.sockets[0] in self._taken

    def _bind_one(self, rule: Rule, address: ListenAddress, offset: int) -> None:
        try:
            if address.is_unix:
                self._bind_unix(rule, address)
            else:
                self._bind_port(rule, address, offset)
        except _RefusedError as refused:
            self.refused.append(Refusal(rule.name, str(address), refused.error, refused.protocol))
        except OSError as error:
            self.refused.append(Refusal(rule.name, str(address), error))

    def _bind_port(self, rule: Rule, address: ListenAddress, offset: int) -> None:
        """Bind each protocol and family of a port; one that the kernel picks may not be free for all."""
        for attempt in reversed(range(TRIES_FOR_A_PORT)):
            before = len(self.bound)
            try:
                self._bind_protocols(rule, address, offset)
            except _RefusedError as refused:
                while len(self.bound) > before:
                    self.bound.pop().remove(but=self._taken)
                if address.first_port or refused.error.errno != errno.EADDRINUSE or not attempt:
                    raise
            else:
                return

    def _bind_protocols(self, rule: Rule, address: ListenAddress, offset: int) -> None:
        """Bind IPv4 and IPv6 apart, so that an IPv4 client keeps its IPv4 address and its smaller socket."""
        picked = address
        for protocol in _carried(rule.protocol):
            for host in (address.host,) if address.host else ("::", "0.0.0.0"):
                try:
                    bound = self._bind_inet(rule, protocol, replace(picked, host=host), offset)
                except OSError as error:
                    if address.host or host != "::" or error.errno not in _NO_IPV6:
                        raise _RefusedError(protocol, error) from error
                    if str(address) not in self.without_ipv6:
                        self.without_ipv6.append(str(address))
                    continue
                port = bound.getsockname()[1]
                picked = replace(address, first_port=port, last_port=port)
                if not address.host and host == "::" and _takes_ipv4(bound):
                    break

    def _bind_inet(
        self, rule: Rule, protocol: Protocol, address: ListenAddress, offset: int
    ) -> socket.socket:
        """Bind one protocol at one address, for each worker; give one of the sockets."""
        if (outside := self._take_inherited(rule, protocol, address)) is not None:
            self._keep(rule, protocol, address, offset, (outside,), inherited=True)
            return outside
        if (former := self._take_former(rule, protocol, address)) is not None:
            return self._take_over(rule, former, offset)
        endpoint = self._probed(protocol, endpoint_of(address), address.first_port)
        sockets: list[socket.socket] = []
        try:
            sockets.extend(_bound_socket(rule, protocol, endpoint) for _ in range(self._workers))
        except OSError:
            for listening in sockets:
                listening.close()
            raise
        self._ports.add((protocol, endpoint.family, sockets[0].getsockname()[1]))
        self._keep(rule, protocol, address, offset, tuple(sockets), inherited=False)
        return sockets[0]

    def _take_former(self, rule: Rule, protocol: Protocol, address: ListenAddress) -> Bound | None:
        """Find the address among the former ruleset's. Where the kernel picks, a rule keeps its port."""
        found = self._former.get(_key(rule, protocol, address))
        return found.popleft() if found else None

    def _take_over(self, rule: Rule, former: Bound, offset: int) -> socket.socket:
        """Take a former address's sockets, all of them."""
        sockets = former.sockets
        self._taken.update(sockets)
        if former.protocol is Protocol.UDP:
            for receiver in sockets:
                grow_receive_buffer(receiver, rule.receive_buffer)
        if not former.wanted.is_unix:
            self._ports.add((former.protocol, sockets[0].family, sockets[0].getsockname()[1]))
        self._keep(rule, former.protocol, former.wanted, offset, sockets, inherited=former.inherited)
        return sockets[0]

    def _fit(self, position: int, bound: Bound) -> None:
        """Make more sockets for more workers than the former ruleset had."""
        missing = 0 if bound.shared else self._workers - len(bound.sockets)
        for _ in range(missing):
            one = self.bound[position]
            endpoint = replace(endpoint_of(one.wanted), sockaddr=one.sockets[0].getsockname())
            try:
                fresh = _bound_socket(one.rule, one.protocol, endpoint)
            except OSError as error:
                self.refused.append(Refusal(one.rule.name, one.address, error, one.protocol))
                return
            self.bound[position] = replace(one, sockets=(*one.sockets, fresh))

    def _probed(self, protocol: Protocol, endpoint: Endpoint, port: int) -> Endpoint:
        """Look whether nobody else has the address; give it with the port, which the kernel may pick."""
        kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
        with socket.socket(endpoint.family, kind | socket.SOCK_CLOEXEC) as probe:
            if protocol is Protocol.TCP:  # of UDP it would let two programs have one port (socket(7))
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if endpoint.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            ours = protocol, endpoint.family, port
            if ours in self._ports or ours in self._former_ports:  # at another address of this host, or still
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(endpoint.sockaddr)
            return replace(endpoint, sockaddr=probe.getsockname())

    def _bind_unix(self, rule: Rule, address: ListenAddress) -> None:
        outside = self._take_inherited(rule, Protocol.TCP, address)
        if outside is not None:
            sockets = (outside,)
        elif (former := self._take_former(rule, Protocol.TCP, address)) is not None:
            self._take_over(rule, former, 0)
            return
        else:
            remove_stale(Path(address.path))
            sockets = (listening_socket(endpoint_of(address), reuse_port=False),)
        self._keep(rule, Protocol.TCP, address, 0, sockets, inherited=outside is not None)

    def _keep(
        self,
        rule: Rule,
        protocol: Protocol,
        wanted: ListenAddress,
        offset: int,
        sockets: tuple[socket.socket, ...],
        *,
        inherited: bool,
    ) -> None:
        name = sockets[0].getsockname()
        text = f"unix:{name}" if isinstance(name, str) else peer_text(name)
        shared = inherited or sockets[0].family == socket.AF_UNIX
        self.bound.append(
            Bound(
                rule,
                protocol,
                wanted,
                text,
                offset,
                sockets,
                self._workers,
                shared=shared,
                inherited=inherited,
            )
        )
        buffer = min(rule.receive_buffer, LARGEST_BUFFER)
        if protocol is Protocol.UDP and (granted := receive_buffer_of(sockets[0])) < buffer:
            self.small_buffers.setdefault(rule.name, granted)

    def _take_inherited(self, rule: Rule, protocol: Protocol, address: ListenAddress) -> socket.socket | None:
        """Find an inherited socket that is bound to exactly this address."""
        kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
        for outside in self.unused:
            name = outside.getsockname()
            same = name == address.path if isinstance(name, str) else _same_inet(name, address)
            if same and outside.type == kind:
                self.unused.remove(outside)
                if protocol is Protocol.TCP:
                    prepare_listener(outside)
                else:
                    prepare_datagrams(outside, rule.receive_buffer)
                return outside
        return None


class _RefusedError(Exception):
    """One protocol of an address could not be bound."""

    def __init__(self, protocol: Protocol, error: OSError) -> None:
        super().__init__(protocol, error)
        self.protocol = protocol
        self.error = error


def _key(rule: Rule, protocol: Protocol, wanted: ListenAddress) -> Hashable:
    """Give what tells an address from others; a port that the kernel picked belongs to its rule."""
    if wanted.is_unix:
        return wanted.path
    return protocol, wanted.host, wanted.first_port or rule.name


def _carried(protocol: Protocol) -> list[Protocol]:
    return [one for one in (Protocol.TCP, Protocol.UDP) if one.shared(protocol) is not None]


def _bound_socket(rule: Rule, protocol: Protocol, endpoint: Endpoint) -> socket.socket:
    if protocol is Protocol.TCP:
        return listening_socket(endpoint, reuse_port=True)
    return datagram_socket(endpoint, reuse_port=True, receive_buffer=rule.receive_buffer)


def _takes_ipv4(bound: socket.socket) -> bool:
    """Say whether an IPv6 socket, which came from outside, is that of both families."""
    return not bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


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
        if _can_listen(passed):
            taken.append(passed)
        else:
            passed.close()
    return taken


def _can_listen(passed: socket.socket) -> bool:
    """Say whether a socket is what a rule may listen on: it accepts, or receives at an internet address."""
    if passed.type == socket.SOCK_STREAM:
        return bool(passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return passed.type == socket.SOCK_DGRAM and passed.family in (socket.AF_INET, socket.AF_INET6)
