"""A kernel for flows: datagram sockets and epoll behave as Linux's do, at their worst.

Any call may say EAGAIN although the event promised more, a send fails for any reason, ICMP errors wait on a
socket for the next call (and in its error queue, where that was asked for), sockets and watches run out, the
number of a closed fd comes back at once. Trains are queued whole where UDP_GRO is set when they arrive, and
read as one datagram where it is not set any more; without it they are queued one by one.
"""

import errno
import os
import random
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from socket import (
    AF_INET6,
    CMSG_SPACE,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPV6_PKTINFO,
    MSG_DONTWAIT,
    MSG_ERRQUEUE,
    MSG_TRUNC,
    SO_RCVBUF,
    SO_SNDBUF,
    SOL_SOCKET,
    SOL_UDP,
)
from typing import Protocol

from appliance.net.datagram_sockets import (
    DATAGRAM,
    IP_PKTINFO,
    SO_MEMINFO,
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
)
from appliance.net.reactor import ERR, IN, MAX_EVENTS
from appliance.net.trains import UDP_GRO, UDP_SEGMENT

FIRST_FD = 1 << 20

RECVERR = {(IPPROTO_IP, 11), (IPPROTO_IPV6, 25)}
"""IP_RECVERR, IPV6_RECVERR."""

LARGEST = 65_507

GROWN = 40
"""Datagrams that fit a receive buffer which was asked for."""

Address = tuple[str, int] | tuple[str, int, int, int]
Control = tuple[int, int, bytes]
Parts = list[bytes]
"""The datagrams of a train, or one datagram."""


class Witness(Protocol):
    """Who sees what passes between the gateway and its sockets."""

    def taken(self, port: "Listening", item: "Item", *, cut: bool) -> None:
        """A client's datagrams were handed to the gateway."""

    def may_cut(self, port: "Listening", item: "Item") -> bool:
        """Say whether it may be told that a datagram is longer than the buffer."""

    def sent(self, port: "Connected", parts: Parts) -> None:
        """The gateway has sent datagrams to an endpoint."""

    def not_sent(self, port: "Connected", parts: Parts, number: int) -> None:
        """It has not: the errno."""

    def read(self, port: "Connected", parts: Parts) -> None:
        """An endpoint's datagrams were handed to the gateway."""

    def answered(self, port: "Listening", parts: Parts, to: Address, local: bytes) -> None:
        """The gateway has sent datagrams to a client, from an address of the listener's."""

    def not_answered(self, port: "Listening", parts: Parts, to: Address, local: bytes, number: int) -> None:
        """It has not: the errno."""

    def told(self, port: "Connected", number: int) -> None:
        """The gateway was told of an error of an earlier datagram."""

    def refused(self, number: int) -> None:
        """A socket or a watch was refused: the errno."""

    def off(self, port: "Port") -> None:
        """UDP_GRO was taken off."""


@dataclass(eq=False)
class Kernel:
    """What all fakes of one run share."""

    dice: random.Random
    witness: Witness
    now: float = 1000.0
    hesitation: float = 0.0
    """How often a read says EAGAIN for no reason."""
    failing: float = 0.0
    """How often a send fails."""
    exhaustion: float = 0.0
    """How often there is no socket, no port, or no watch."""
    has_gro: bool = True
    unroutable: set[Address] = field(default_factory=set)
    cursed: "Connected | None" = None
    """The next read of it raises: a bug."""
    bugs: int = 0
    """How often that happened."""
    ports: "dict[int, Port]" = field(default_factory=dict)
    watched: dict[int, int] = field(default_factory=dict)

    def number(self, port: "Port") -> int:
        """Give the lowest free fd."""
        fd = next(fd for fd in range(FIRST_FD, FIRST_FD + 1000) if fd not in self.ports)
        self.ports[fd] = port
        return fd

    def socket(self, family: int, kind: int) -> "Connected":
        """Make a flow's socket, as `net.contact` asks for it."""
        assert kind == DATAGRAM
        if self.dice.random() < self.exhaustion:
            self._refuse(self.dice.choice((errno.EMFILE, errno.ENOBUFS)))
        return Connected(self, family)

    def _refuse(self, number: int) -> None:
        self.witness.refused(number)
        raise OSError(number, os.strerror(number))

    # -- epoll ----------------------------------------------------------------------------------------

    def register(self, fd: int, events: int) -> None:
        assert fd in self.ports, "EBADF"
        assert fd not in self.watched, "EEXIST"
        if self.dice.random() < self.exhaustion and isinstance(self.ports[fd], Connected):
            self._refuse(errno.ENOSPC)
        self.watched[fd] = events

    def unregister(self, fd: int) -> None:
        del self.watched[fd]

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        assert (timeout, most) == (0.0, MAX_EVENTS)
        batch = list(self.ready())
        self.dice.shuffle(batch)
        return batch[: self.dice.randint(1, len(batch))] if batch else []

    def ready(self) -> Iterator[tuple[int, int]]:
        """Give the fds that have events, and these."""
        for fd, wanted in self.watched.items():
            if events := self.ports[fd].events() & (wanted | ERR):
                yield fd, events

    def close(self) -> None:
        """The epoll set is closed."""


@dataclass(eq=False)
class Item:
    """One buffer of a receive queue: a datagram, or a train that was queued whole."""

    parts: Parts
    client: Address | None = None
    local: bytes = b""


class Port:
    """A datagram socket as the gateway holds it."""

    def __init__(self, kernel: Kernel, family: int) -> None:
        dice = kernel.dice
        self.kernel = kernel
        self.family = family
        self.fd = kernel.number(self)
        self.queue: deque[Item] = deque()
        self.room = dice.choice((3, 10, GROWN))
        self.lost = 0
        self.joins = False
        """UDP_GRO is set."""
        self.longest = dice.choice((1 << 16, 1 << 16, 60))
        self.no_trains = dice.choice((0, 0, 0, errno.EIO, errno.EINVAL))
        self.closed = False

    def fileno(self) -> int:
        return -1 if self.closed else self.fd

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        del self.kernel.ports[self.fd]
        self.kernel.watched.pop(self.fd, None)

    def events(self) -> int:
        return IN if self.queue else 0

    # -- the network ----------------------------------------------------------------------------------

    def arrive(self, parts: Parts, client: Address | None = None, local: bytes = b"") -> None:
        """Queue a datagram or a train, as far as there is room."""
        for each in [parts] if self.joins else [[part] for part in parts]:
            if len(self.queue) < self.room:
                self.queue.append(Item(each, client, local))
            else:
                self.lost += 1

    # -- options --------------------------------------------------------------------------------------

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert not self.closed, "EBADF"
        if (level, option) == (SOL_UDP, UDP_GRO):
            if not self.kernel.has_gro:
                raise OSError(errno.ENOPROTOOPT, "before Linux 5.0")
            self.joins = bool(value)
            if not value:
                self.kernel.witness.off(self)
        elif (level, option) == (SOL_SOCKET, SO_RCVBUFFORCE):
            if self.kernel.dice.random() < 0.5:
                raise PermissionError(errno.EPERM, "no CAP_NET_ADMIN")
            self.room = GROWN
        elif (level, option) == (SOL_SOCKET, SO_RCVBUF):
            self.room = GROWN
        elif (level, option) == (SOL_SOCKET, SO_SNDBUFFORCE):
            raise PermissionError(errno.EPERM, "no CAP_NET_ADMIN")
        elif (level, option) == (SOL_SOCKET, SO_SNDBUF):
            pass
        else:
            self._set_other(level, option)

    def _set_other(self, level: int, option: int) -> None:
        raise AssertionError(f"setsockopt({level}, {option})")

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes | int:
        if (level, option) == (SOL_SOCKET, SO_RCVBUF):
            return 0
        assert (level, option) == (SOL_SOCKET, SO_MEMINFO)
        return struct.pack("=9I", 768 * len(self.queue), *[0] * 7, self.lost)[:size]

    # -- calls ----------------------------------------------------------------------------------------

    def take(self) -> Item:
        """Read as recv(2) does."""
        assert not self.closed, "EBADF"
        if self.kernel.dice.random() < self.kernel.hesitation:
            raise BlockingIOError(errno.EAGAIN, "the dice say so")
        self.raise_error()
        if not self.queue:
            raise BlockingIOError(errno.EAGAIN, "nothing to read")
        return self.queue.popleft()

    def raise_error(self) -> None:
        """Tell an error that waits."""

    def size_control(self, item: Item) -> list[Control]:
        """Give what UDP_GRO tells of a train."""
        if self.joins and len(item.parts) > 1:
            return [(SOL_UDP, UDP_GRO, struct.pack("=i", len(item.parts[0])))]
        return []

    def refusal(self, parts: Parts) -> int:
        """Say why datagrams are not sent; 0: they are."""
        assert not self.closed, "EBADF"
        if len(parts) > 1 and self.no_trains:
            return self.no_trains
        if len(parts[0]) > self.longest:
            return errno.EMSGSIZE
        if self.kernel.dice.random() < self.kernel.failing * (1 if len(parts) == 1 else 3):
            return self.kernel.dice.choice((errno.EAGAIN, errno.ENOBUFS, errno.EPERM))
        return 0


def check_room(controls: Sequence[Control], room: int) -> None:
    """Hold that no control message is cut."""
    assert sum(CMSG_SPACE(len(data)) for _, _, data in controls) <= room, "MSG_CTRUNC"


def copied(buffer: bytearray, item: Item) -> int:
    """Copy what was received; it has no bounds."""
    data = b"".join(item.parts)
    buffer[: len(data)] = data
    return len(data)


def segmented(buffers: Sequence[memoryview], controls: Sequence[Control]) -> Parts:
    """Give the datagrams that sendmsg(2) is to send."""
    data = b"".join(bytes(buffer) for buffer in buffers)
    size = len(data)
    for level, kind, value in controls:
        if (level, kind) == (SOL_UDP, UDP_SEGMENT):
            (size,) = struct.unpack("=H", value)
            assert size, "EINVAL"
    return [data[at : at + size] for at in range(0, len(data), size)] if data else [b""]


class Connected(Port):
    """A flow's socket, and its endpoint at the other end."""

    def __init__(self, kernel: Kernel, family: int) -> None:
        super().__init__(kernel, family)
        self.peer: Address | None = None
        self.error = 0
        """SO_ERROR."""
        self.errors: deque[int] = deque()
        """The error queue."""
        self.reports = False
        self.heard = 0
        """Datagrams that the endpoint got."""

    def connect_ex(self, peer: Address) -> int:
        kernel = self.kernel
        self.peer = peer
        if kernel.dice.random() < kernel.exhaustion:
            number = kernel.dice.choice((errno.EAGAIN, errno.EADDRNOTAVAIL))
            kernel.witness.refused(number)
            return number
        return errno.ENETUNREACH if peer in kernel.unroutable else 0

    def _set_other(self, level: int, option: int) -> None:
        assert (level, option) in RECVERR
        self.reports = True

    def icmp(self, number: int, *, lasts: bool) -> None:
        """ICMP brings an error; one that may pass is not told unless that was asked for (udp_err)."""
        if self.reports:
            self.errors.append(number)
            self.error = number
        elif lasts:
            self.error = number

    def events(self) -> int:
        return super().events() | (ERR if self.error or self.errors else 0)

    def raise_error(self) -> None:
        if self.kernel.cursed is self and self.fd in self.kernel.watched:
            self.kernel.cursed = None
            self.kernel.bugs += 1
            raise RuntimeError("a bug")
        error, self.error = self.error, 0
        if error:
            self.kernel.witness.told(self, error)
            raise OSError(error, os.strerror(error))

    def recv_into(self, buffer: bytearray) -> int:
        item = self.take()
        self.kernel.witness.read(self, item.parts)
        return copied(buffer, item)

    def recvmsg_into(self, buffers: Sequence[bytearray], room: int) -> tuple[int, list[Control], int, None]:
        item = self.take()
        controls = self.size_control(item)
        check_room(controls, room)
        self.kernel.witness.read(self, item.parts)
        return copied(buffers[0], item), controls, 0, None

    def recvmsg(self, size: int, room: int, flags: int) -> tuple[bytes, list[Control], int, None]:
        """Read the error queue; once it is empty the socket has no error either (sock_dequeue_err_skb)."""
        assert (size, flags) == (0, MSG_ERRQUEUE | MSG_DONTWAIT)
        if not self.errors:
            raise BlockingIOError(errno.EAGAIN, "no error")
        number = self.errors.popleft()
        self.error = self.errors[0] if self.errors else 0
        self.kernel.witness.told(self, number)
        level, kind = (IPPROTO_IPV6, 25) if self.family == AF_INET6 else (IPPROTO_IP, 11)
        controls = [(level, kind, struct.pack("=IBBBBII", number, 2, 3, 3, 0, 0, 0) + bytes(28))]
        check_room(controls, room)
        return b"", controls, MSG_ERRQUEUE, None

    def send(self, data: memoryview) -> int:
        self._send([bytes(data)])
        return len(data)

    def sendmsg(self, buffers: Sequence[memoryview], controls: Sequence[Control]) -> int:
        self._send(segmented(buffers, controls))
        return sum(map(len, buffers))

    def _send(self, parts: Parts) -> None:
        number, self.error = self.error, 0
        if number:  # of an earlier datagram: these are not sent
            self.kernel.witness.told(self, number)
        if number := number or self.refusal(parts):
            self.kernel.witness.not_sent(self, parts, number)
            raise OSError(number, os.strerror(number))
        self.heard += len(parts)
        self.kernel.witness.sent(self, parts)


class Answering(Port):
    """A socket that answers clients."""

    def sendto(self, data: memoryview, to: Address) -> int:
        self._answer([bytes(data)], to, ())
        return len(data)

    def sendmsg(
        self, buffers: Sequence[memoryview], controls: Sequence[Control], flags: int, to: Address
    ) -> int:
        assert not flags
        self._answer(segmented(buffers, controls), to, controls)
        return sum(map(len, buffers))

    def _answer(self, parts: Parts, to: Address, controls: Sequence[Control]) -> None:
        listening, local = self.listening, self.local(controls)
        if number := self.refusal(parts):
            self.kernel.witness.not_answered(listening, parts, to, local, number)
            raise OSError(number, os.strerror(number))
        self.kernel.witness.answered(listening, parts, to, local)

    @property
    def listening(self) -> "Listening":
        """Give the listener whose clients it answers."""
        raise NotImplementedError

    def local(self, controls: Sequence[Control]) -> bytes:
        """Give the address that an answer leaves from."""
        raise NotImplementedError


class Listening(Answering):
    """A listener's socket, and all its clients at the other end."""

    def __init__(self, kernel: Kernel, family: int, name: Address) -> None:
        super().__init__(kernel, family)
        self.name = name
        self.is_wildcard = name[0] in {"0.0.0.0", "::"}

    def getsockname(self) -> Address:
        return self.name

    def raise_error(self) -> None:
        if self.kernel.dice.random() < self.kernel.failing / 4:
            raise OSError(errno.ENOBUFS, "the dice say so")

    def recvfrom_into(self, buffer: bytearray) -> tuple[int, Address]:
        item = self.take()
        assert item.client is not None
        self.kernel.witness.taken(self, item, cut=False)
        return copied(buffer, item), item.client

    def recvmsg_into(
        self, buffers: Sequence[bytearray], room: int
    ) -> tuple[int, list[Control], int, Address]:
        item = self.take()
        assert item.client is not None
        controls = self.size_control(item)
        if self.is_wildcard:
            controls.append(self._where(item.local))
        check_room(controls, room)
        cut = self.kernel.dice.random() < self.kernel.failing / 4 and self.kernel.witness.may_cut(self, item)
        self.kernel.witness.taken(self, item, cut=cut)
        return copied(buffers[0], item), controls, MSG_TRUNC if cut else 0, item.client

    def _where(self, local: bytes) -> Control:
        """Tell where a datagram was sent to; IPv4 tells twice."""
        if self.family == AF_INET6:
            return IPPROTO_IPV6, IPV6_PKTINFO, local + b"\2\0\0\0"
        written = local if self.kernel.dice.random() < 0.9 else b"\xff\xff\xff\xff"  # a broadcast
        return IPPROTO_IP, IP_PKTINFO, b"\2\0\0\0" + local + written

    @property
    def listening(self) -> "Listening":
        return self

    def local(self, controls: Sequence[Control]) -> bytes:
        """Give the address that a datagram leaves from, as told; nothing is that of the socket."""
        told = [control for control in controls if control[0] != SOL_UDP]
        assert bool(told) is self.is_wildcard
        if not told:
            return b""
        ((level, kind, data),) = told
        if self.family == AF_INET6:
            assert (level, kind, data[16:]) == (IPPROTO_IPV6, IPV6_PKTINFO, bytes(4))
            return data[:16]
        assert (level, kind, data[:4], data[8:]) == (IPPROTO_IP, IP_PKTINFO, bytes(4), bytes(4))
        return data[4:8]
