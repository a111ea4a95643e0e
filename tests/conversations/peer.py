"""Both ends of conversations: an epoll loop, and one `End` for each connection."""

import errno
import hashlib
import heapq
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from tests.conversations.plan import HEADER, MAGIC, Part, Pause, Side, block, plan

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
READ_BYTES: Final = 256 * 1024
ABORT: Final = struct.pack("ii", 1, 0)
STALLED: Final = 40.0
"""Seconds without any byte, connection or end after which a run counts as stuck."""

RESETS: Final = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})
"""ENOTCONN: shutdown(2) of a connection that was reset."""

Ended = Literal["eof", "reset", "aborted"]


class Account(msgspec.Struct, frozen=True):
    """What an end has to say about its conversation afterwards."""

    number: int
    """-1 for a client that left before it said which one it was."""
    sent: int
    """Bytes, without the header."""
    sent_sha256: str
    received: int
    received_sha256: str
    ended: Ended
    """`eof`: both FINs passed; `reset`: by the other end, or what is between; `aborted`: by this one."""


class Report(msgspec.Struct, frozen=True):
    """What a process has to say at its end."""

    accounts: list[Account]
    strangers: int = 0
    """Connections that ended without having said a number."""


class Loop:
    """One epoll set, pauses, and the ends that are live."""

    def __init__(self, seed: int, side: Side, done: Callable[[], object]) -> None:
        self.seed = seed
        self.side = side
        self.block = block(seed)
        self.buffer = bytearray(READ_BYTES)
        self.view = memoryview(self.buffer)
        self.accounts: list[Account] = []
        self.strangers = 0
        self.ends: dict[int, End] = {}
        self.epoll = select.epoll()
        self.moved = time.monotonic()
        """When anything happened last."""
        self._done = done
        self._pauses: list[tuple[float, int, End, int]] = []
        self._count = 0

    def add(self, connection: socket.socket, number: int | None) -> None:
        """Begin a conversation; its number is None where the header has yet to come."""
        end = End(self, connection, number)
        self.ends[end.fd] = end
        self.epoll.register(end.fd, end.interest)

    def pause(self, end: "End", events: int, seconds: float) -> None:
        """Take no `events` of this end for a while."""
        self._count += 1
        heapq.heappush(self._pauses, (time.monotonic() + seconds, self._count, end, events))

    def turn(self, others: Callable[[int], object]) -> None:
        """Wait for events once; those of fds that are no end's go to `others`."""
        wait = self._pauses[0][0] - time.monotonic() if self._pauses else 1.0
        for fd, events in self.epoll.poll(max(0.0, min(wait, 1.0))):
            end = self.ends.get(fd)
            if end is None:
                others(fd)
            else:
                end.on_event(events)
        now = time.monotonic()
        while self._pauses and self._pauses[0][0] <= now:
            _, _, end, events = heapq.heappop(self._pauses)
            end.resume(events)
        if self.ends and now > self.moved + STALLED:
            stuck = "\n".join(map(repr, self.ends.values()))
            sys.exit(f"{self.side.name}: nothing moved for {STALLED} s; seed {self.seed}:\n{stuck}")

    def remove(self, end: "End", account: Account | None) -> None:
        """Take an end that has ended off the list."""
        del self.ends[end.fd]
        if account is None:
            self.strangers += 1
        else:
            self.accounts.append(account)
        self._done()

    def report(self, path: Path) -> None:
        """Write what every end had to say."""
        path.write_bytes(msgspec.json.encode(Report(self.accounts, self.strangers)))


class End:
    """One end of one conversation."""

    def __init__(self, loop: Loop, connection: socket.socket, number: int | None) -> None:
        self.loop = loop
        self.connection = connection
        self.fd = connection.fileno()
        self.number = number
        self.header = b"" if number is None else HEADER.pack(MAGIC, number)
        self.part: Part | None = None
        self.interest = IN
        self.sent = self.received = 0
        self.sent_hash, self.received_hash = hashlib.sha256(), hashlib.sha256()
        self.has_eof = self.has_finished = self.over = False
        self.read_pause: Pause | None = None
        self.write_pause: Pause | None = None
        if number is not None:
            self._begin(number)
            self.interest |= OUT

    def __repr__(self) -> str:
        return (
            f"{self.number}: sent {self.sent} received {self.received} interest {self.interest} "
            f"eof {self.has_eof} finished {self.has_finished} {self.part}"
        )

    def _begin(self, number: int) -> None:
        self.number = number
        self.part = part = plan(self.loop.seed, number).part(self.loop.side)
        self.read_pause, self.write_pause = part.read_pause, part.write_pause

    def on_event(self, events: int) -> None:
        """Send or read once."""
        self.loop.moved = time.monotonic()
        try:
            if events & OUT and self.interest & OUT:
                self._send()
            if events & ~OUT and not self.over and self.interest & IN:
                self._read()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in RESETS:
                raise
            self._close("reset")

    def resume(self, events: int) -> None:
        """A pause is over."""
        if not self.over:
            self._want(self.interest | events)

    def _want(self, interest: int) -> None:
        if interest != self.interest:
            self.interest = interest
            self.loop.epoll.modify(self.fd, interest)

    # -- sending --------------------------------------------------------------------------------------

    def _send(self) -> None:
        if self.loop.side is Side.CLIENT and self.header:
            self.header = self.header[self.connection.send(self.header) :]
            return
        part = self.part
        assert part is not None
        left = part.size - self.sent
        if left:
            start = part.offset + self.sent
            chunk = self.loop.block[start : start + min(left, part.chunk)]
            count = self.connection.send(chunk)
            self.sent_hash.update(chunk[:count])
            self.sent += count
            left -= count
        if left:
            self._pause_after(self.write_pause, self.sent, OUT)
        else:
            self._finish(part)

    def _finish(self, part: Part) -> None:
        """All is sent: end as planned, now or after the other's end."""
        if part.aborts:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            self._close("aborted")
        elif part.waits and not self.has_eof:
            self._want(self.interest & ~OUT)
        elif not self.has_finished:
            self.has_finished = True
            self.connection.shutdown(socket.SHUT_WR)
            self._want(self.interest & ~OUT)
            self._close_if_done()

    # -- reading --------------------------------------------------------------------------------------

    def _read(self) -> None:
        count = self.connection.recv_into(self.loop.buffer)
        if not count:
            self._take_eof()
            return
        data = self.loop.view[:count]
        if self.number is None:
            data = self._take_header(data)
        self.received_hash.update(data)
        self.received += len(data)
        self._pause_after(self.read_pause, self.received, IN)

    def _take_header(self, data: memoryview) -> memoryview:
        """Collect the header; give what comes after it."""
        missing = HEADER.size - len(self.header)
        self.header += bytes(data[:missing])
        if len(self.header) == HEADER.size:
            magic, number = HEADER.unpack(self.header)
            assert magic == MAGIC, self.header
            self._begin(number)
            self._want(self.interest | OUT)
        return data[missing:]

    def _take_eof(self) -> None:
        self.has_eof = True
        self._want(self.interest & ~IN)
        part = self.part
        if part is None:
            self._close("eof")
        elif self.sent == part.size and not self.header_is_due:
            self._finish(part)
        self._close_if_done()

    @property
    def header_is_due(self) -> bool:
        """Whether a client has yet to say its number."""
        return self.loop.side is Side.CLIENT and bool(self.header)

    # -- pauses and the end ---------------------------------------------------------------------------

    def _pause_after(self, pause: Pause | None, count: int, events: int) -> None:
        if pause is None or count <= pause.after:
            return
        if events == IN:
            self.read_pause = None
        else:
            self.write_pause = None
        self._want(self.interest & ~events)
        self.loop.pause(self, events, pause.seconds)

    def _close_if_done(self) -> None:
        if self.has_eof and self.has_finished and not self.over:
            self._close("eof")

    def _close(self, ended: Ended) -> None:
        self.over = True
        self.connection.close()
        self.loop.remove(self, self._account(ended))

    def _account(self, ended: Ended) -> Account | None:
        if self.number is None:
            return None
        sent, received = self.sent_hash.hexdigest(), self.received_hash.hexdigest()
        return Account(self.number, self.sent, sent, self.received, received, ended)
