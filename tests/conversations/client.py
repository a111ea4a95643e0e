"""The clients of conversations: PORT SEED FIRST COUNT AT_ONCE REPORT.

Conversation n comes from an address of its own in 127.64.0.0/10, so its record is known by it.
"""

import errno
import socket
import sys
from itertools import islice
from pathlib import Path

from tests.conversations.peer import Loop
from tests.conversations.plan import Side


def address_of(number: int) -> str:
    """Give the address that a conversation's client has."""
    return f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def connect(port: int, number: int) -> socket.socket:
    """Start connecting."""
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    client.bind((address_of(number), 0))
    result = client.connect_ex(("127.0.0.1", port))
    if result not in {0, errno.EINPROGRESS}:
        raise OSError(result, f"conversation {number} cannot connect")
    return client


def main(port: int, seed: int, first: int, count: int, at_once: int, report: Path) -> None:
    """Hold the conversations `first` to `first + count - 1`, so many at once."""
    waiting = iter(range(first, first + count))

    def begin(most: int = 1) -> None:
        for number in islice(waiting, most):
            loop.add(connect(port, number), number)

    loop = Loop(seed, Side.CLIENT, begin)
    begin(at_once)
    while loop.ends:
        loop.turn(lambda _: None)
    loop.report(report)


if __name__ == "__main__":
    _port, _seed, _first, _count, _at_once = map(int, sys.argv[1:6])
    main(_port, _seed, _first, _count, _at_once, Path(sys.argv[6]))
