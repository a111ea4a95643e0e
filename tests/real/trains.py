"""Trains: datagrams of one size, the last perhaps shorter, in one system call (udp(7): UDP_SEGMENT, UDP_GRO).

QUIC stacks send and receive so. aioquic does not, so here is what does: datagrams that make trains of every
kind, a sender that has no more on the way than a socket's buffer holds, and a server that sends them back.
"""

import random
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.real.programs import Address

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
MOST_SEGMENTS = 64
"""In one call (UDP_MAX_SEGMENTS of kernels before 6.9)."""
LARGEST = 65_507
"""What one call may send, which is also the largest datagram."""
SIZES = (1, 2, 17, 100, 512, 1200, 1399, 1472, 4000, 9000, 32_000)
WINDOW, MOST_WAITING = 64 << 10, 96
"""Bytes and datagrams on the way: both fit a buffer of 208 KiB, the default, with what the kernel adds."""
PATIENCE = 20.0


@dataclass
class Rails:
    """A socket that sends and receives trains, or single datagrams."""

    socket: socket.socket
    has_trains: bool

    def __post_init__(self) -> None:
        """Let the kernel join what arrives."""
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(SOL_UDP, UDP_GRO, int(self.has_trains))

    def send(self, datagrams: Sequence[bytes], to: Address) -> None:
        """Send datagrams, as few trains or one by one."""
        if not self.has_trains:
            for each in datagrams:
                self.socket.sendto(each, to)
            return
        for train in trains(datagrams):
            control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(train[0])))] if len(train) > 1 else []
            self.socket.sendmsg([b"".join(train)], control, 0, to)

    def receive(self) -> tuple[list[bytes], Address]:
        """Receive one datagram, or a train of them."""
        data, control, _, sender = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(4))
        size = next((struct.unpack("=i", value)[0] for *_, value in control), 0) or max(1, len(data))
        return [data[at : at + size] for at in range(0, max(1, len(data)), size)], sender


def datagrams(count: int, seed: int) -> list[bytes]:
    """Make datagrams in runs of one size; a run may end with a shorter one, or with one of nothing."""
    dice, made = random.Random(seed), list[bytes]()
    while len(made) < count:
        size = dice.choice(SIZES)
        made += [dice.randbytes(size) for _ in range(dice.randint(1, min(80, 200_000 // size)))]
        if dice.random() < 0.5:
            made.append(dice.randbytes(dice.randint(0, size)))
    return [*made[: count - 1], dice.randbytes(LARGEST)]


def trains(datagrams: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Cut datagrams into the longest trains that one call may send."""
    train = list[bytes]()
    for each in datagrams:
        if train and not fits(train, each):
            yield train
            train = []
        train.append(each)
    if train:
        yield train


def fits(train: Sequence[bytes], datagram: bytes) -> bool:
    """Whether a datagram may follow a train: none is longer than the first, and only the last shorter."""
    size = len(train[0])
    return (
        len(train) < MOST_SEGMENTS
        and size == len(train[-1])
        and 0 < len(datagram) <= size
        and len(train) * size + len(datagram) <= LARGEST
    )


def windows(datagrams: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Cut datagrams into lots that may be on the way at once."""
    lot, held = list[bytes](), 0
    for each in datagrams:
        if lot and (held + len(each) > WINDOW or len(lot) == MOST_WAITING):
            yield lot
            lot, held = [], 0
        lot.append(each)
        held += len(each)
    if lot:
        yield lot


def exchange(rails: Rails, sent: Sequence[bytes], to: Address) -> list[bytes]:
    """Send datagrams to a server that sends each back; give what came."""
    came = list[bytes]()
    awaited = 0
    for lot in windows(sent):
        rails.send(lot, to)
        awaited += len(lot)
        while len(came) < awaited:
            came += rails.receive()[0]
    return came


def give_back(rails: Rails, count: int) -> list[bytes]:
    """Send back so many datagrams, each train as it came; give them."""
    came = list[bytes]()
    while len(came) < count:
        train, sender = rails.receive()
        rails.send(train, sender)
        came += train
    return came
