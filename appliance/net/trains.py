"""Trains: datagrams of one size in a row, taken and given with one system call for all of them.

A program that sends much by UDP (QUIC, WireGuard, iperf3) gives the kernel a buffer and a segment size
(UDP_SEGMENT, udp(7)), and the kernel makes datagrams of it as late as it can: over loopback and veth never.
With UDP_GRO the receiver gets the buffer whole, and network cards' bursts joined into one as well. A train of
32 then costs what one datagram does.

A socket with UDP_GRO must be read by recvmsg(2), whose control message tells the segment size, and that is
0.3 us dearer than recv(2). So it is asked for only where it pays (`Sense`): after a run of equal datagrams in
one turn, which is what the kernel makes of a train for a socket without it; and given up after a while in
which no train came. Each try in vain makes the next one rarer.

Boundaries are kept exactly: what was one datagram leaves as one, and the last of a train may be shorter.

UDP_GRO is both what has the kernel queue trains whole and what has it tell their segment size: a train that
was queued before it went off would be read as one datagram. So it is taken off only where nothing waits.

Where the way on refuses a train (EIO: no checksum offload; EINVAL, EMSGSIZE: segments longer than the MTU,
an IPsec route; udp_send_skb in net/ipv4/udp.c), its datagrams are sent one by one.
"""

import errno
import struct
import sys
from socket import SOL_UDP, SocketType
from typing import Final

from appliance.net.datagram_sockets import is_drained

UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
"""linux/udp.h, since Linux 4.18 and 5.0; Python 3.11 does not name them."""

Controls = list[tuple[int, int, bytes]]
"""Control messages of sendmsg(2): level, type, data."""

RUN: Final = 4
"""So many equal datagrams in a row are taken for a train."""

PATIENCE: Final = 64
"""So many reads without a train end the asking for them."""

LONGEST_WAIT: Final = 4096
"""Runs that go by at the most before the next try."""

REFUSED: Final = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP, errno.ENOPROTOOPT})


class Sense:
    """Whether one socket is asked for trains."""

    __slots__ = ("_in_vain", "_missed", "_socket", "_wait", "asks")

    def __init__(self, receiver: SocketType) -> None:
        self._socket = receiver
        self.asks = False
        """UDP_GRO is set: the socket is to be read with recvmsg(2)."""
        self._missed = 0
        self._wait = 0
        """Runs to let go by before it is set."""
        self._in_vain = 1

    def run_came(self) -> None:
        """Note a run of equal datagrams: ask for trains, unless that was in vain lately."""
        if self._wait:
            self._wait -= 1
            return
        try:
            self._socket.setsockopt(SOL_UDP, UDP_GRO, 1)
        except OSError:  # before Linux 5.0
            self._wait = sys.maxsize
            return
        self.asks = True
        self._missed = 0

    def train_came(self) -> None:
        """Note that asking paid."""
        self._missed = 0
        self._in_vain = 1

    def single_came(self) -> None:
        """Note a datagram on its own: ask no more, after so many of them."""
        self._missed += 1
        if self._missed < PATIENCE:
            return
        self._missed = 0
        self._socket.setsockopt(SOL_UDP, UDP_GRO, 0)
        if not is_drained(self._socket):  # what waits may be a train: another time
            self._socket.setsockopt(SOL_UDP, UDP_GRO, 1)
            return
        self.asks = False
        self._wait = self._in_vain = min(self._in_vain * 4, LONGEST_WAIT)


def segment_size(controls: Controls) -> int:
    """Give the size of a received train's datagrams; 0 for a datagram on its own."""
    for level, kind, data in controls:
        if kind == UDP_GRO and level == SOL_UDP:
            return int.from_bytes(data, sys.byteorder)
    return 0


def segments(count: int, size: int) -> int:
    """Say how many datagrams of `size` make a train of `count` bytes; without a size it is one datagram."""
    return (count + size - 1) // size if 0 < size < count else 1


def segment_control(size: int) -> tuple[int, int, bytes]:
    """Make the control message that has a buffer sent as datagrams of `size`."""
    return SOL_UDP, UDP_SEGMENT, struct.pack("=H", size)
