"""The endpoint behind UDP routes, a program of its own: it sends every datagram back to whom it came from.

`python -m bench.echo HOST PORT COUNT` listens on that many ports. What arrives as one train (UDP_GRO) goes
back as one train (UDP_SEGMENT).
"""

import select
import socket
import struct
import sys
from contextlib import suppress

from bench.process import Address

# udp(7): the size of a train's datagrams, given with what is sent and told with what is received.
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
SEGMENT = struct.Struct("H")
TOLD = struct.Struct("i")
SPACE = socket.CMSG_SPACE(TOLD.size)
# What thirty-two clients and a few trains have on the way at once fits, also where each datagram of 1,200
# bytes is charged with the 2,304 that it takes.
BUFFER_BYTES = 4 << 20
LARGEST = 65_536
PROBE_TIMEOUT_S = 1.0


def roomy(sock: socket.socket) -> None:
    """Give a socket a receive buffer that loses nothing: the relay is measured, not the load."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)


def bound(address: Address) -> socket.socket:
    """Make the socket of one port, one that is told of trains."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    roomy(sock)
    sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    sock.bind(address)
    return sock


def segment_size(told: list[tuple[int, int, bytes]], size: int) -> int:
    """Size of the datagrams in what was received; nothing told, it is a single one."""
    return int(TOLD.unpack(told[0][2])[0]) if told else size


def send_back(sock: socket.socket, buffer: memoryview) -> None:
    """Take one datagram or one train and send it back as it came."""
    size, told, _, sender = sock.recvmsg_into([buffer], SPACE)
    with suppress(ConnectionRefusedError):  # a client that is gone by now
        if told:
            segment = SEGMENT.pack(segment_size(told, size))
            sock.sendmsg([buffer[:size]], [(SOL_UDP, UDP_SEGMENT, segment)], 0, sender)
        else:
            sock.sendto(buffer[:size], sender)


def serve(sockets: list[socket.socket]) -> None:
    """Send back for ever; one socket is waited for in recvmsg(2) itself."""
    buffer = memoryview(bytearray(LARGEST))
    if len(sockets) == 1:
        while True:
            send_back(sockets[0], buffer)
    by_fd = {sock.fileno(): sock for sock in sockets}
    with select.epoll() as epoll:
        for fd in by_fd:
            epoll.register(fd, select.EPOLLIN)
        while True:
            for fd, _ in epoll.poll():
                send_back(by_fd[fd], buffer)


def answers(address: Address) -> bool:
    """Whether a datagram sent to `address` comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PROBE_TIMEOUT_S)
        with suppress(OSError):
            sock.connect(address)
            sock.send(b"ready?")
            return sock.recv(64) == b"ready?"
    return False


def main(host: str, port: str, count: str) -> None:
    """Bind the ports named on the command line and serve them."""
    first = int(port)
    serve([bound((host, number)) for number in range(first, first + int(count))])


if __name__ == "__main__":
    main(*sys.argv[1:])
