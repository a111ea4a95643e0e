"""Thousands of clients in one process: PORT COUNT.

Opens all of them, passes a token of its own through each, and says "passed". Does so again for every line
of its stdin, on the same sessions; closes them in order when stdin ends.
"""

import errno
import resource
import select
import socket
import sys
from itertools import islice

AT_ONCE = 128
"""Connections that are being opened at the same time."""
SOURCES = 8
"""Client addresses, 127.0.1.1 and following: each has its own ephemeral ports."""


class Crowd:
    """The clients."""

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.numbers = iter(range(count))
        self.clients: dict[int, tuple[socket.socket, int]] = {}
        self.epoll = select.epoll()
        self.round = 0

    def open_all(self) -> None:
        """Open every session, and pass a token through each as soon as it is open."""
        waiting = self.open(AT_ONCE)
        while waiting:
            for fd, events in self.epoll.poll():
                if events & select.EPOLLOUT:
                    self.send(fd)
                else:
                    self.take(fd)
                    waiting += self.open(1) - 1

    def open(self, most: int) -> int:
        """Start to open a few; give how many."""
        numbers = list(islice(self.numbers, most))
        for number in numbers:
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            client.bind((f"127.0.1.{1 + number % SOURCES}", 0))
            result = client.connect_ex(("127.0.0.1", self.port))
            if result not in {0, errno.EINPROGRESS}:
                raise OSError(result, f"client {number} cannot connect")
            self.clients[client.fileno()] = client, number
            self.epoll.register(client.fileno(), select.EPOLLOUT)
        return len(numbers)

    def pass_all(self) -> None:
        """Pass another token through every session."""
        self.round += 1
        for fd in self.clients:
            self.send(fd)
        waiting = set(self.clients)
        while waiting:
            for fd, _ in self.epoll.poll():
                self.take(fd)
                waiting.remove(fd)

    def token(self, number: int) -> bytes:
        """Give the 8 bytes of one session in this round."""
        return (self.round << 32 | number).to_bytes(8)

    def send(self, fd: int) -> None:
        """Send the token."""
        client, number = self.clients[fd]
        client.send(self.token(number))
        self.epoll.modify(fd, select.EPOLLIN)

    def take(self, fd: int) -> None:
        """Take it back."""
        client, number = self.clients[fd]
        echo = client.recv(4096)
        assert echo == self.token(number), (number, echo)


def main(port: int, count: int) -> None:
    """Serve the lines of stdin."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(port, count)
    crowd.open_all()
    print("passed", flush=True)
    for _ in sys.stdin:
        crowd.pass_all()
        print("passed", flush=True)
    for client, _ in crowd.clients.values():
        client.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
