"""An endpoint that tells a client which address it sees: `python -m tests.real.who HOST PORT`, TCP and UDP.

Its first line says that it is ready. And a client that prints what it is told: `... ask tcp|udp HOST PORT`.
"""

import selectors
import socket
import sys
from typing import Final

PATIENCE: Final = 20.0


def shown(address: tuple[str | int, ...]) -> str:
    """Write an address as the log does."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def serve(host: str, port: int) -> None:
    """Answer whoever asks, until killed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    selector = selectors.DefaultSelector()
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        if kind == socket.SOCK_STREAM:
            bound.listen()
        selector.register(bound, selectors.EVENT_READ, kind)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            if key.data == socket.SOCK_STREAM:
                connection, peer = key.fileobj.accept()
                with connection:
                    connection.sendall(shown(peer).encode())
            else:
                _, peer = key.fileobj.recvfrom(2048)
                key.fileobj.sendto(shown(peer).encode(), peer)


def ask(protocol: str, host: str, port: int) -> None:
    """Print one's own address, and the one that the endpoint sees."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as client:
        client.settimeout(PATIENCE)
        client.connect((host, port))
        if protocol == "udp":
            client.send(b"who am I?")
        print(shown(client.getsockname()))
        print(client.recv(2048).decode())


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        serve(sys.argv[1], int(sys.argv[2]))
