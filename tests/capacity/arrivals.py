"""Clients that come at a steady rate, each for one exchange: RATE SECONDS PORT [PORT...].

Each port gets RATE of them a second, evenly spaced, whether the earlier ones were served or not. Each
connects, sends 8 bytes, gets them back, and closes. Prints as JSON how it went, for each port.
"""

import errno
import json
import select
import socket
import sys
import time

PATIENCE = 10.0
"""Seconds after the last arrival until who has no answer counts as failed."""


class Arrivals:
    """The clients of all ports."""

    def __init__(self, rate: float, seconds: float, ports: list[int]) -> None:
        self.ports = ports
        self.rate = rate * len(ports)
        self.count = int(self.rate * seconds)
        self.begun = 0
        self.epoll = select.epoll()
        self.clients: dict[int, tuple[socket.socket, float, int, bytes]] = {}
        self.took: dict[int, list[float]] = {port: [] for port in ports}
        self.failed = dict.fromkeys(ports, 0)

    def run(self) -> None:
        """Have all of them come and go."""
        start = time.monotonic()
        until = start + self.count / self.rate + PATIENCE
        while self.clients or self.begun < self.count:
            now = time.monotonic()
            if now > until:
                break
            due = min(self.count, int((now - start) * self.rate) + 1)
            while self.begun < due:
                self.begin(start + self.begun / self.rate)
            wait = start + self.begun / self.rate - now if self.begun < self.count else 0.1
            for fd, events in self.epoll.poll(max(wait, 0.0)):
                self.go_on(fd, events)
        for _, _, port, _ in self.clients.values():
            self.failed[port] += 1
        self.seconds = time.monotonic() - start

    def begin(self, due: float) -> None:
        """Connect one; its time counts from when it was due."""
        port = self.ports[self.begun % len(self.ports)]
        token = self.begun.to_bytes(8)
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        client.bind((f"127.0.2.{1 + self.begun % 8}", 0))
        self.begun += 1
        if client.connect_ex(("127.0.0.1", port)) not in {0, errno.EINPROGRESS}:
            self.failed[port] += 1
            client.close()
            return
        self.clients[client.fileno()] = client, due, port, token
        self.epoll.register(client.fileno(), select.EPOLLOUT)

    def go_on(self, fd: int, events: int) -> None:
        """Send, or take the answer."""
        client, due, port, token = self.clients[fd]
        try:
            if events & select.EPOLLOUT:
                client.send(token)
                self.epoll.modify(fd, select.EPOLLIN)
                return
            is_served = client.recv(64) == token
        except OSError:
            is_served = False
        if is_served:
            self.took[port].append(time.monotonic() - due)
        else:
            self.failed[port] += 1
        del self.clients[fd]
        client.close()

    def told(self) -> dict[int, dict[str, float]]:
        """Give the figures."""
        found = {}
        for port in self.ports:
            took = sorted(self.took[port]) or [0.0]
            found[port] = {
                "served": len(self.took[port]),
                "failed": self.failed[port],
                "rate": round(len(self.took[port]) / self.seconds, 1),
                "p50_ms": round(1000 * took[len(took) // 2], 1),
                "p99_ms": round(1000 * took[len(took) * 99 // 100], 1),
            }
        return found


if __name__ == "__main__":
    arrivals = Arrivals(float(sys.argv[1]), float(sys.argv[2]), [int(word) for word in sys.argv[3:]])
    arrivals.run()
    print(json.dumps(arrivals.told()))
