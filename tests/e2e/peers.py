"""Clients and endpoints that do exactly what a test tells them: accept, wait, send n, FIN, RST, pause.

They are plain blocking sockets with a deadline, driven step by step by the test itself, so what happens is
what the test reads; only what must go on beside the test (an echo, a bulk transfer) has a thread.
"""

import hashlib
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

from tests.e2e.gateway import PATIENCE, cpu_seconds, wait_for

SMALL_BUFFER = 8192
"""SO_RCVBUF or SO_SNDBUF of a peer that is to clog soon."""

Address = tuple[str, int] | str

_ABORT = struct.pack("ii", 1, 0)


def payload(size: int, seed: int = 0) -> bytes:
    """Make bytes in which every displacement shows."""
    return random.Random(seed).randbytes(size)


def digest(data: bytes) -> str:
    """Name bytes shortly: a failing comparison must not print megabytes."""
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"


class Endpoint:
    """A server that only listens; the test accepts when it wants."""

    def __init__(self, address: Address = ("127.0.0.1", 0), *, backlog: int = 128, receive: int = 0) -> None:
        """Listen; `receive` is the SO_RCVBUF its connections inherit, 0 for the system's."""
        family = _family(address)
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        try:
            self.socket.bind(address)
            self.socket.listen(backlog)
        except OSError:
            self.socket.close()
            raise

    @property
    def port(self) -> int:
        """The port it got."""
        return int(self.socket.getsockname()[1])

    @property
    def to(self) -> str:
        """Its address as a ruleset writes it."""
        name = self.socket.getsockname()
        if isinstance(name, str):
            return f"unix:{name}"
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    def accept(self) -> socket.socket:
        """Take the next connection."""
        connection, _ = self.socket.accept()
        connection.settimeout(PATIENCE)
        return connection

    def close(self) -> None:
        """Stop listening: further dials are refused."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _family(address: Address) -> socket.AddressFamily:
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


@contextmanager
def refusing() -> Iterator[int]:
    """Hold a port where every connection is refused: bound, so nobody else gets it, and not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def blackhole() -> Iterator[int]:
    """Hold a port where connect(2) gets no answer: it listens, its queue is full, and it never accepts."""
    with Endpoint(backlog=0) as endpoint, ExitStack() as queue:
        for _ in range(2):  # listen(2) with 0 lets one in; the kernel drops every SYN after it
            filler = queue.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", endpoint.port))
        yield endpoint.port


def connect(address: Address, *, receive: int = 0, source: str = "") -> socket.socket:
    """Connect a client; `receive` is its SO_RCVBUF, 0 for the system's."""
    client = socket.socket(_family(address), socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    if receive:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    if source:
        client.bind((source, 0))
    try:
        client.connect(address)
    except OSError:
        client.close()
        raise
    return client


def reset(connection: socket.socket) -> None:
    """Close with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    connection.close()


def finish(connection: socket.socket) -> None:
    """Send FIN and go on reading."""
    connection.shutdown(socket.SHUT_WR)


def name_of(client: socket.socket) -> str:
    """Write a client's address as the log does."""
    host, port = client.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """Read so many bytes, no fewer."""
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 1 << 20))
        assert piece, f"EOF after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def read_to_end(connection: socket.socket) -> bytes:
    """Read until EOF."""
    data = bytearray()
    while piece := connection.recv(1 << 20):
        data += piece
    return bytes(data)


def read_to_reset(connection: socket.socket) -> bytes:
    """Read until ECONNRESET, and fail on an orderly EOF."""
    data = bytearray()
    try:
        while piece := connection.recv(1 << 20):
            data += piece
    except ConnectionResetError:
        return bytes(data)
    raise AssertionError(f"an orderly EOF after {len(data)} bytes, not a reset")


def turned_away(address: Address) -> bool:
    """Connect; say whether the connection is reset without a byte, which connect(2) itself may tell."""
    try:
        with connect(address) as client:
            return read_to_reset(client) == b""
    except ConnectionResetError:
        return True


def is_refused(address: Address) -> bool:
    """Say whether a connect is refused right now."""
    try:
        connect(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except ConnectionResetError:
        return False
    return False


def clog(connection: socket.socket, piece: bytes = bytes(65536), looks: int = 20) -> int:
    """Send until nothing is taken in `looks` looks in a row; return how many bytes were taken."""
    sent = blocked = 0
    connection.setblocking(False)
    while blocked < looks:
        try:
            sent += connection.send(piece)
            blocked = 0
        except BlockingIOError:
            blocked += 1
            time.sleep(0.01)
    connection.settimeout(PATIENCE)
    return sent


class Sending(threading.Thread):
    """A transfer beside the test: sends everything, and then does what it was told."""

    def __init__(
        self, connection: socket.socket, data: bytes, then: Callable[[socket.socket], object] | None = None
    ) -> None:
        """`then`: `finish`, `reset`, `socket.socket.close`."""
        super().__init__(daemon=True)
        self.connection = connection
        self.data = data
        self.then = then
        self.error: OSError | None = None
        self.start()

    def run(self) -> None:
        """Send."""
        try:
            self.connection.sendall(self.data)
            if self.then is not None:
                self.then(self.connection)
        except OSError as error:
            self.error = error

    def done(self) -> None:
        """Wait until everything was taken, without an error."""
        self.join(PATIENCE)
        assert not self.is_alive(), "the sender is stuck"
        assert self.error is None, self.error


class Echo:
    """An endpoint that sends back what it gets, FIN included; one loop in one thread for all connections."""

    def __init__(self, address: Address = ("127.0.0.1", 0), greeting: bytes = b"") -> None:
        """`greeting` is sent first on each connection."""
        self._endpoint = Endpoint(address, backlog=4096)
        self._endpoint.socket.setblocking(False)
        self._greeting = greeting
        self._selector = selectors.DefaultSelector()
        self._ending = threading.Event()
        self.accepted = 0
        self.to = self._endpoint.to
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def port(self) -> int:
        """The port it got."""
        return self._endpoint.port

    def _run(self) -> None:
        self._selector.register(self._endpoint.socket, selectors.EVENT_READ)
        while not self._ending.is_set():
            for key, _ in self._selector.select(0.1):
                if key.fileobj is self._endpoint.socket:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._serve(key.fileobj)

    def _accept(self) -> None:
        connection, _ = self._endpoint.socket.accept()
        connection.settimeout(PATIENCE)
        self.accepted += 1
        self._selector.register(connection, selectors.EVENT_READ)
        if self._greeting:
            connection.sendall(self._greeting)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if data := connection.recv(1 << 16):
                connection.sendall(data)
                return
        self._selector.unregister(connection)
        connection.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(PATIENCE)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        self._endpoint.close()


def echoes(client: socket.socket, data: bytes = b"ping") -> bool:
    """Say whether a session passes data there and back."""
    client.sendall(data)
    return read_exactly(client, len(data)) == data


def busy_share(pid: int, seconds: float) -> float:
    """Measure the share of one core that a process uses over a time: only time can show it."""
    before, start = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - start)


def assert_idle(pid: int, seconds: float = 0.5, most: float = 0.2) -> None:
    """Fail when a process does not come to rest: a spinning loop takes all of a core, or its share of it.

    It is measured again while it is busy, since what came before may still be settling.
    """
    shares: list[float] = []

    def at_rest() -> bool:
        shares.append(round(busy_share(pid, seconds), 2))
        return shares[-1] < most

    try:
        wait_for("idle", at_rest, timeout=8 * seconds)
    except AssertionError:
        raise AssertionError(f"process {pid} spins: shares of a core {shares}") from None
