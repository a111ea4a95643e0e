"""What a master and a worker say to each other, over one SOCK_SEQPACKET pair per worker.

A packet is one message, whole or not at all. A worker whose master is gone reads the end of the pair, and so
does a master whose worker died.
"""

import socket
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from appliance.supervisor.status import AgentLink


class Drain(msgspec.Struct, tag="drain", frozen=True):
    """Master to worker: accept no more, let the sessions end, cut what is left."""

    within: float
    """Seconds."""
    replaced: bytes | None = None
    """After a reload: of each address that the worker was given, whether other workers listen on the same
    sockets by now, so that what comes in is theirs (`packed`). None: there was no reload."""


class Cut(msgspec.Struct, tag="cut", frozen=True):
    """Master to worker: end every session now."""


class Ask(msgspec.Struct, tag="ask", frozen=True):
    """Master to worker: say how many there are. The answer also shows that the worker's loop turns."""


class Load(msgspec.Struct, tag="load", frozen=True):
    """Worker to master, asked: who is here at this moment."""

    sessions: int
    flows: int


class AskLinks(msgspec.Struct, tag="ask_links", frozen=True):
    """Master to worker: say which agents are connected to you."""

    number: int
    """Of the question."""


class Links(msgspec.Struct, tag="links", frozen=True):
    """Worker to master, asked: the control channels it has, or some of them."""

    number: int
    links: tuple[AgentLink, ...]
    has_more: bool
    """There is another message for the rest."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """Worker to master: every listener accepts."""

    sessions_max: int
    """How many sessions this worker takes at the same time."""
    flows_max: int = 0
    """How many UDP flows; 0 where no rule carries UDP."""


Order = Drain | Cut | Ask | AskLinks
Message = Drain | Cut | Ask | AskLinks | Load | Links | Ready


def packed(answers: Iterable[bool]) -> bytes:
    """Pack answers, the first one in the lowest bit: a gateway's 60,000 ports, too, fit a message."""
    bits = "".join("1" if answer else "0" for answer in answers)[::-1]
    return int(bits or "0", 2).to_bytes(len(bits) // 8 + 1, "little")


def unpacked(answers: bytes, position: int) -> bool:
    """Give one of them."""
    return bool(answers[position // 8] >> position % 8 & 1)


_DECODER = msgspec.json.Decoder(Message)
_LARGEST = 65536


class Line:
    """One end of the pair."""

    __slots__ = ("_socket",)

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end

    def fileno(self) -> int:
        """Give the fd, for the loop."""
        return self._socket.fileno()

    def say(self, message: Message) -> None:
        """Send a message. Lost: one to a process that is gone, and one more where hundreds wait unread."""
        with suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
            self._socket.send(msgspec.json.encode(message), socket.MSG_NOSIGNAL)

    def hear(self) -> Message | None:
        """Receive a message; None when the other process is gone. Raises BlockingIOError for none yet."""
        try:
            packet = self._socket.recv(_LARGEST)
        except ConnectionResetError:
            return None
        return _DECODER.decode(packet) if packet else None

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def line_pair() -> tuple[Line, Line]:
    """Make both ends."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    return Line(one), Line(other)
