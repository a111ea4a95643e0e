"""Small proxies in threads: each does with its first client what its script says."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from appliance.net.sockets import Socket
from appliance.values import TargetAddress
from tests.unit.net.loop import PATIENCE


@dataclass
class Proxy:
    """A proxy's address, and what its client said."""

    address: TargetAddress
    heard: list[bytes] = field(default_factory=list)


Script = Callable[[socket.socket, Proxy], object]


@contextmanager
def proxy(script: Script) -> Iterator[Proxy]:
    """Run a script with the first client; the client's end ends it, and so does its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = Proxy(TargetAddress.parse(f"127.0.0.1:{listening.getsockname()[1]}"))

        def serve() -> None:
            try:
                client, _ = listening.accept()
            except OSError:  # nobody came
                return
            with client:
                client.settimeout(PATIENCE)
                try:
                    script(client, made)
                    while client.recv(4096):
                        pass
                except ConnectionError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield made
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
            assert not thread.is_alive()


def until(client: socket.socket, end: bytes) -> bytes:
    """Read until something ends what came."""
    heard = b""
    while not heard.endswith(end):
        part = client.recv(4096)
        if not part:
            break
        heard += part
    return heard


def exactly(client: Socket, size: int) -> bytes:
    """Read so many bytes; MSG_WAITALL does not on a socket with a time-out."""
    heard = b""
    while len(heard) < size and (part := client.recv(size - len(heard))):
        heard += part
    return heard


def in_pieces(client: socket.socket, data: bytes, size: int) -> None:
    """Send in pieces, each in a segment of its own as far as TCP goes."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(data), size):
        client.sendall(data[at : at + size])


def connect(answer: bytes, size: int = 10**6) -> Script:
    """Answer a CONNECT."""

    def script(client: socket.socket, made: Proxy) -> None:
        made.heard.append(until(client, b"\r\n\r\n"))
        in_pieces(client, answer, size)

    return script


def socks(reply: bytes, size: int = 10**6, *, password: bytes = b"") -> Script:
    """Answer a SOCKS 5 request to an IPv4 address; with a password, ask for it."""

    def script(client: socket.socket, made: Proxy) -> None:
        greeting = exactly(client, 2)
        methods = exactly(client, greeting[1])
        made.heard.append(greeting + methods)
        if password:
            in_pieces(client, b"\5\2", size)
            made.heard.append(exactly(client, len(password)))
            in_pieces(client, b"\1\0" if made.heard[-1] == password else b"\1\1", size)
        else:
            in_pieces(client, b"\5\0", size)
        made.heard.append(exactly(client, 10))
        in_pieces(client, reply, size)

    return script
