"""UDP clients and endpoints that do exactly what a test tells them.

They are blocking sockets with a deadline, driven step by step by the test. What the kernel may drop it drops
when a buffer is full, so whoever sends many datagrams keeps no more of them on the way than `WINDOW`: each of
those takes 768 bytes of a receive buffer at the least, and the default buffer has 208 KiB.
"""

import ctypes
import os
import random
import select
import signal
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from appliance.observe.names import deviations
from tests.e2e.gateway import PATIENCE, Gateway, Record, state, wait_for

WINDOW = 100
LARGEST = 65_507
"""Bytes of the largest datagram over IPv4: 65,535 less two headers. IPv6 takes 20 more."""

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
SO_RCVBUFFORCE = 33
LOOPBACK = ("127.0.0.1", 0)

Address = tuple[str, int]
Scoped = tuple[str, int, int, int]
"""With the interface of a link-local address, as the last one."""

Made = TypeVar("Made")

_IP_PKTINFO = 8
"""linux/in.h; Python 3.11 does not name it."""
_KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
_CLONE_NEWNET = 0x40000000
"""linux/sched.h; Python 3.12 has os.setns."""


def text_of(address: tuple[object, ...]) -> str:
    """Write an address as the log does."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


class Peer:
    """A bound UDP socket."""

    def __init__(
        self, address: Address | Scoped = LOOPBACK, *, receive: int = 0, shared: bool = False
    ) -> None:
        """`receive` is its receive buffer, 0 for the system's; `shared`: at the port of a `Held`."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        if shared:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
            with suppress(PermissionError):
                self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive)
        try:
            self.socket.bind(address)
        except OSError:
            self.socket.close()
            raise

    @property
    def port(self) -> int:
        """The port it got."""
        return int(self.socket.getsockname()[1])

    @property
    def to(self) -> str:
        """Its address as a ruleset and the log write it."""
        return text_of(self.socket.getsockname())

    def send(self, data: bytes, to: Address | Scoped) -> None:
        """Send one datagram."""
        self.socket.sendto(data, to)

    def receive(self) -> tuple[bytes, Address]:
        """Take the next datagram, and who sent it."""
        data, sender = self.socket.recvfrom(1 << 16)
        return data, sender[:2]

    def take(self) -> bytes:
        """Take the next datagram."""
        return self.receive()[0]

    def waiting(self) -> bool:
        """Say whether a datagram has come."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def all_waiting(self) -> list[bytes]:
        """Take what has come."""
        taken = []
        while self.waiting():
            taken.append(self.take())
        return taken

    def close(self) -> None:
        """Close: datagrams to it are refused (ICMP) from now on."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def asks(client: Peer, to: Address, data: bytes = b"ping") -> bool:
    """Send a datagram to an echo; say whether it came back, from where it was sent to."""
    client.send(data, to)
    return client.receive() == (data, to)


def same(data: bytes) -> tuple[bytes, ...]:
    """Answer as an echo does."""
    return (data,)


class Answering:
    """An endpoint beside the test: one thread answers each datagram, with as many as `answers` gives."""

    def __init__(
        self,
        address: Address = LOOPBACK,
        answers: Callable[[bytes], Iterable[bytes]] = same,
        *,
        shared: bool = False,
    ) -> None:
        self.peer = Peer(address, receive=1 << 22, shared=shared)
        self.peer.socket.settimeout(0.05)
        self.to = self.peer.to
        self.port = self.peer.port
        self.came: Counter[Address] = Counter()
        """How many datagrams each flow has sent, by its address."""
        self.asked: list[bytes] = []
        """Each datagram that came."""
        self._answers = answers
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                data, flow = self.peer.receive()
            except TimeoutError:
                continue
            self.came[flow] += 1
            self.asked.append(data)
            for answer in self._answers(data):
                self.peer.send(answer, flow)

    def close(self) -> None:
        """Close: datagrams to it are refused (ICMP) from now on."""
        self._ending.set()
        self._thread.join(PATIENCE)
        self.peer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Held:
    """A port that refuses: bound, so nobody else gets it, and connected to itself, so nothing else comes in.

    A `Peer` or `Answering` that is `shared` opens it for as long as it lives.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self._socket.connect(self._socket.getsockname())
        self.address: Address = self._socket.getsockname()[:2]
        self.port = self.address[1]
        self.to = text_of(self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def send_train(sender: Peer, datagrams: Sequence[bytes], to: Address) -> None:
    """Send datagrams of one size, the last perhaps shorter, with one system call (udp(7))."""
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(datagrams[0])))]
    sender.socket.sendmsg([b"".join(datagrams)], control, 0, to)


def take_train(receiver: Peer) -> tuple[list[bytes], Address]:
    """Take the next datagram, or the next train of a socket that has UDP_GRO, as datagrams."""
    data, controls, _, sender = receiver.socket.recvmsg(1 << 16, socket.CMSG_SPACE(4))
    size = next((int(struct.unpack("=i", value)[0]) for *_, value in controls), 0) or max(1, len(data))
    return [data[at : at + size] for at in range(0, max(1, len(data)), size)], sender[:2]


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold a process: what is sent to it meanwhile waits in the kernel."""
    os.kill(pid, signal.SIGSTOP)
    wait_for("the process to stop", lambda: state(pid) in {"T", "t"})
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def flows(gateway: Gateway, count: int, timeout: float = PATIENCE) -> list[Record]:
    """Wait until so many flows have their record, no more, and check each."""
    if gateway.process.poll() is None:
        gateway.sessions(count, timeout)
    records = [each for each in gateway.events("session") if each["protocol"] == "udp"]
    assert len(records) == count, records
    for record in records:
        assert not deviations(record), record
    return records


def flow(gateway: Gateway) -> Record:
    """Wait for the record of the one flow there was."""
    (record,) = flows(gateway, 1)
    return record


def cut(gateway: Gateway) -> list[Record]:
    """Stop a gateway that has live flows at once; give all session records."""
    gateway.process.send_signal(signal.SIGTERM)
    gateway.await_event("draining")
    gateway.stop()
    return gateway.events("session")


def counts(record: Record) -> tuple[int, int, int, int]:
    """Give what passed: datagrams and bytes up, datagrams and bytes down."""
    return record["up_datagrams"], record["up"], record["down_datagrams"], record["down"]


def await_datagrams(what: str, answering: Answering, count: int) -> None:
    """Wait until an endpoint has had so many datagrams."""
    wait_for(what, lambda: len(answering.asked) >= count)


def inside(pid: int, make: Callable[[], Made]) -> Made:
    """Call `make` in the network namespace of a process: sockets made there stay there, wherever used."""

    def run() -> Made:
        with Path(f"/proc/{pid}/ns/net").open() as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return make()

    with ThreadPoolExecutor(1) as thread:  # setns(2) is for one thread, and this one ends
        return thread.submit(run).result()


def own_host() -> str:
    """Give an address of this host that no other process of tests uses."""
    high, low = divmod(os.getpid() % 65_536, 256)
    return f"127.200.{high}.{low}"


def free_ports(count: int = 1, host: str = "0.0.0.0") -> int:
    """Find ports in a row that are free for UDP and TCP; give the first.

    Below those that the kernel picks for clients (net.ipv4.ip_local_port_range, from 32768): such a one holds
    its port at every address, and comes when it likes.
    """
    start = 12_000 + random.randrange(8_000)
    for first in range(start, 32_000 - count, count):
        with ExitStack() as probes:
            try:
                for port, kind in product(range(first, first + count), _KINDS):
                    probes.enter_context(socket.socket(socket.AF_INET, kind)).bind((host, port))
            except OSError:
                continue
            return first
    raise AssertionError(f"no {count} free ports in a row")


class Crowd:
    """Clients by the thousand with few sockets: a datagram may leave from any address of 127.0.0.0/8."""

    def __init__(self) -> None:
        self._sockets = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(16)]
        for each in self._sockets:
            each.bind(("0.0.0.0", 0))
            each.settimeout(PATIENCE)

    def of(self, number: int) -> Address:
        """Give the address of a client."""
        host = f"127.{100 + number // 62_500 % 100}.{number // 250 % 250}.{1 + number % 250}"
        return host, self._socket(number).getsockname()[1]

    def _socket(self, number: int) -> socket.socket:
        return self._sockets[number % len(self._sockets)]

    def send(self, number: int, data: bytes, to: Address) -> None:
        """Send a datagram as one of the clients."""
        host = bytes([127, 100 + number // 62_500 % 100, number // 250 % 250, 1 + number % 250])
        control = (socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=i4s4s", 0, host, b""))
        self._socket(number).sendmsg([data], [control], 0, to)

    def take(self, number: int) -> bytes:
        """Take the next datagram that came for this client, or for another one of its port."""
        return self._socket(number).recv(1 << 16)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._sockets:
            each.close()
