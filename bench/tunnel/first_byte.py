"""How long a new session takes to its first byte, a program of its own: one client after another.

`python -m bench.tunnel.first_byte HOST PORT COUNT PAUSE_MS` prints FirstBytes, as JSON.
"""

import socket
import sys
import time
from collections.abc import Sequence

import msgspec

from bench.process import Address

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
TIMEOUT_S = 5.0


class FirstBytes(msgspec.Struct, frozen=True):
    """From a client's connect to the first byte of its answer: of how many sessions, p50 and p99."""

    sessions: int
    p50_ns: int
    p99_ns: int


def first_byte_ns(address: Address) -> int:
    """Take a session to the end of its answer: nanoseconds to the first byte; OSError without one."""
    began = time.perf_counter_ns()
    with socket.create_connection(address, TIMEOUT_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(REQUEST)
        got = client.recv(4096)
        took = time.perf_counter_ns() - began
        if not got:
            raise OSError("a session ended without an answer")
        while client.recv(4096):
            pass
    return took


def summary(taken: Sequence[int]) -> FirstBytes:
    """Sum samples up; there must be one."""
    ordered = sorted(taken)
    return FirstBytes(len(ordered), ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100])


def main(host: str, port: str, count: str, pause_ms: str) -> None:
    """Open sessions one after the other, rested between as those of people are; print what they took."""
    taken: list[int] = []
    for _ in range(int(count)):
        taken.append(first_byte_ns((host, int(port))))
        time.sleep(int(pause_ms) / 1e3)
    print(msgspec.json.encode(summary(taken)).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
