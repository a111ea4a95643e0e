"""The clients of the UDP loads, a program of its own: asks through a relay, counts what comes back.

`python -m bench.sender HOST PORT PLAN`, the plan as JSON. It prints a Tally, as JSON.
"""

import select
import socket
import struct
import sys
from collections import deque
from contextlib import closing
from time import perf_counter_ns

import msgspec

from bench.echo import LARGEST, SOL_UDP, SPACE, UDP_GRO, UDP_SEGMENT, roomy, segment_size
from bench.process import Address

# What is not back by then is lost.
LOST_AFTER_NS = 1_000_000_000
LOOK_EVERY_S = 0.1
NUMBER = struct.Struct("!Q")


class Plan(msgspec.Struct, frozen=True):
    """How to ask: `asking` of the `clients` at a time, each with `window` sends of `train` datagrams.

    With fewer asking than there are clients they take turns: who was answered goes to the end of the line.
    """

    clients: int
    asking: int
    window: int
    size: int
    seconds: float
    train: int = 1


class Tally(msgspec.Struct, frozen=True):
    """What came of it, in datagrams of one direction; latency runs from a datagram's send to its return.

    `strays` came to somebody who did not wait for them: too late, twice, cut short, joined, or another's.
    """

    asked: int
    answered: int
    lost: int
    strays: int
    duration_ns: int
    p50_ns: int
    p99_ns: int


class Clients:
    """The clients: their sockets, what they asked and what came back."""

    def __init__(self, address: Address, plan: Plan) -> None:
        self._plan, self._size = plan, plan.size
        self._question = bytearray(plan.size * plan.train)
        self._answer = bytearray(LARGEST)
        clients = [self._client(address) for _ in range(plan.clients)]
        self._by_fd = {sock.fileno(): sock for sock in clients}
        self._line = deque(clients)
        self._back = dict.fromkeys(clients, 0)
        # By a datagram's number: the client that waits for it, since when.
        self._waiting: dict[int, tuple[socket.socket | None, int]] = {}
        self._latencies: list[int] = []
        self._asked = self._lost = self._strays = 0

    def _client(self, address: Address) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        if self._plan.train > 1:
            roomy(sock)
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            sock.setsockopt(SOL_UDP, UDP_SEGMENT, self._size)
        sock.connect(address)
        return sock

    def _ask(self, sock: socket.socket) -> None:
        """Send a datagram or, in one go, a train: the kernel cuts it. Each datagram has a number."""
        number, now = self._asked, perf_counter_ns()
        for start in range(0, len(self._question), self._size):
            NUMBER.pack_into(self._question, start, number)
            self._waiting[number] = sock, now
            number += 1
        self._asked = number
        sock.send(self._question)

    def _take(self, sock: socket.socket) -> int:
        """Count what has come in one go, a datagram or some of a train: as many as were waited for."""
        if self._plan.train > 1:
            length, told, _, _ = sock.recvmsg_into([self._answer], SPACE)
            # One datagram as long as a train is none: a relay must keep them apart.
            each = segment_size(told, length)
        else:
            length = each = sock.recv_into(self._answer)
        now, answered = perf_counter_ns(), 0
        for start in range(0, max(length, 1), max(each, 1)):
            number = NUMBER.unpack_from(self._answer, start)[0]
            asker, asked = self._waiting.get(number, (None, 0))
            if asker is sock and min(each, length - start) == self._size:
                del self._waiting[number]
                self._latencies.append(now - asked)
                answered += 1
            else:
                self._strays += 1
        return answered

    def _go_on(self, sock: socket.socket, back: int, more: bool) -> None:
        """Note that `back` datagrams of a client's are no longer on the way; for each train the next asks."""
        back += self._back[sock]
        while back >= self._plan.train:
            back -= self._plan.train
            self._line.append(sock)
            following = self._line.popleft()
            if more:
                self._ask(following)
        self._back[sock] = back

    def _give_up(self, now: int, more: bool) -> None:
        """Count as lost what did not come in time."""
        late = [number for number, (_, asked) in self._waiting.items() if now - asked > LOST_AFTER_NS]
        for number in late:
            sock, _ = self._waiting.pop(number)
            self._lost += 1
            if sock is not None:
                self._go_on(sock, 1, more)

    def run(self) -> Tally:
        """Ask for as long as the plan says, and wait for the answers that are still due."""
        start = now = last = perf_counter_ns()
        end, look = start + int(self._plan.seconds * 1e9), start
        with select.epoll() as epoll:
            for fd in self._by_fd:
                epoll.register(fd, select.EPOLLIN)
            for sock in [self._line.popleft() for _ in range(self._plan.asking)]:
                for _ in range(self._plan.window):
                    self._ask(sock)
            while now < end or self._waiting:
                events = epoll.poll(LOOK_EVERY_S)
                for fd, _ in events:
                    sock = self._by_fd[fd]
                    self._go_on(sock, self._take(sock), now < end)
                now = perf_counter_ns()
                last = now if events else last
                if now > look:
                    look = now + int(LOOK_EVERY_S * 1e9)
                    self._give_up(now, now < end)
        return self._tally(last - start)

    def close(self) -> None:
        """Close every client's socket."""
        for sock in self._by_fd.values():
            sock.close()

    def _tally(self, duration_ns: int) -> Tally:
        latencies = sorted(self._latencies) or [0]
        return Tally(
            asked=self._asked,
            answered=len(self._latencies),
            lost=self._lost,
            strays=self._strays,
            duration_ns=duration_ns,
            p50_ns=latencies[len(latencies) // 2],
            p99_ns=latencies[len(latencies) * 99 // 100],
        )


def main(host: str, port: str, plan: str) -> None:
    """Ask as the command line says and print the tally."""
    with closing(Clients((host, int(port)), msgspec.json.decode(plan, type=Plan))) as clients:
        print(msgspec.json.encode(clients.run()).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
