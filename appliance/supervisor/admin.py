"""The admin socket: one request, a line of JSON, and one reply a connection, in the master's loop.

A request is `{"verb": "status"}`, perhaps with more keys, which are the verb's own. A reply is what the verb
says, or `{"error": ...}`. Whoever connects cannot hold the master up: nothing here waits, a request has at
most LARGEST_REQUEST bytes, there are MOST connections at a time, and each has PATIENCE seconds. The next
ones wait in the kernel's queue; while they do, those go that have not asked within GRACE.

A path has mode 0660: the gateway's user and group, and root. An abstract address has no mode; there the
kernel says whose the peer is (SO_PEERCRED, unix(7)), and it must be the gateway's user or root.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.sockets import STREAM, AcceptError, classify_accept, remove_stale
from appliance.problem import quoted
from appliance.supervisor.admin_wire import LARGEST_REQUEST, PATIENCE, admin_sockaddr
from appliance.supervisor.status import Failure
from appliance.values.admin import ABSTRACT

MOST: Final = 16
"""Connections at a time."""

GRACE: Final = 0.25
"""Seconds that a connection may be without its request while others wait for their turn."""

BACKLOG: Final = 128
MODE: Final = 0o660

_HINTS: Final = {
    errno.EADDRINUSE: "another program listens there; `ss -lxp` names it",
    errno.EACCES: "name a path in a directory that this user may write to",
    errno.EROFS: 'the file system is read-only; "@" needs no file',
    errno.ENOENT: "the directory does not exist",
    errno.ENOTDIR: "a part of the path is a file",
}

_ABSTRACT_HINTS: Final = {
    errno.EADDRINUSE: "another gateway in this mount namespace has it; give this one a path",
    errno.ENOENT: "it is named after /proc/self/ns/mnt: mount /proc, or give a path",
}

Answer = Callable[[msgspec.Struct], None]
"""Give a verb's reply; once, at any time before the connection's deadline."""

Verb = Callable[[bytes, Answer], None]
"""Do what a request asks for: called with its line, whose keys it may decode (raising msgspec's errors)."""


class _Request(msgspec.Struct):
    verb: str


def admin_socket(address: str) -> socket.socket:
    """Bind the admin socket at a path or `@`, and listen. Raises OSError."""
    name = admin_sockaddr(address)
    if address != ABSTRACT:
        remove_stale(Path(address))
    listening = socket.socket(socket.AF_UNIX, STREAM)
    try:
        listening.bind(name)
        if address != ABSTRACT:
            Path(address).chmod(MODE)  # nobody was let in before: it does not listen yet
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def remove(listening: socket.socket) -> None:
    """Close the admin socket for good, and leave no file behind."""
    if listening.fileno() >= 0 and (name := listening.getsockname()) and isinstance(name, str):
        Path(name).unlink(missing_ok=True)
    listening.close()


def refusal_hint(address: str, error: OSError) -> str | None:
    """Say what to do about an admin socket that cannot be made."""
    if address == ABSTRACT:
        return _ABSTRACT_HINTS.get(error.errno or 0)
    return _HINTS.get(error.errno or 0)


class Admin:
    """The listening side."""

    def __init__(self, reactor: Reactor, listening: socket.socket, verbs: Mapping[str, Verb]) -> None:
        self._reactor = reactor
        self._listening = listening
        self._verbs = verbs
        self._open: dict[_Connection, None] = {}
        """In the order they came."""
        self._is_paused = False
        self._checks_peer = isinstance(listening.getsockname(), bytes)
        reactor.watch(listening.fileno(), IN, self)

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all it is watched for
        """Take one connection."""
        if len(self._open) >= MOST:
            self._pause()
            return
        try:
            peer, _ = self._listening.accept()
        except OSError as error:
            if classify_accept(error.errno) is AcceptError.EXHAUSTED:
                self._pause()
            return
        peer.setblocking(False)
        is_let_in = not self._checks_peer or _uid_of(peer) in {0, os.geteuid()}
        answer = self._answer if is_let_in else _turn_away
        self._open[_Connection(self._reactor, peer, answer, self._has_ended)] = None

    def on_deadline(self, now: float) -> None:
        """Others have waited: make room, and take them."""
        if len(self._open) >= MOST:
            for connection in tuple(self._open):
                connection.make_room(now - GRACE)
        self._resume()

    def on_fault(self) -> None:
        """Nothing ends: the next connection may fare better."""

    def _pause(self) -> None:
        self._is_paused = True
        self._reactor.unwatch(self._listening.fileno())
        self._reactor.arm(self._reactor.now + GRACE, self)

    def _resume(self) -> None:
        if self._is_paused and self._listening.fileno() >= 0:
            self._is_paused = False
            self._reactor.watch(self._listening.fileno(), IN, self)

    def _has_ended(self, connection: "_Connection") -> None:
        del self._open[connection]
        self._resume()

    def _answer(self, line: bytes, answer: Answer) -> None:
        """Have the verb of a request answer it."""
        try:
            verb = msgspec.json.decode(line, type=_Request).verb
            if verb in self._verbs:
                self._verbs[verb](line, answer)
            else:
                answer(Failure(f"there is no verb {quoted(verb)}; there is: {', '.join(self._verbs)}"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            answer(Failure(f"the request is not what is wanted: {error}"))

    def abandon(self) -> None:
        """In a forked child: close its copies."""
        self._listening.close()
        for connection in self._open:
            connection.abandon()


class _Connection:
    """One peer: its request is read, then answered, then the reply is written."""

    __slots__ = ("_answer", "_on_end", "_peer", "_reactor", "_reply", "_request", "_since", "_slot", "_stage")

    def __init__(
        self,
        reactor: Reactor,
        peer: socket.socket,
        answer: Callable[[bytes, Answer], None],
        on_end: Callable[["_Connection"], None],
    ) -> None:
        self._reactor = reactor
        self._peer = peer
        self._answer = answer
        self._on_end = on_end
        self._request = b""
        self._reply = b""
        self._stage = IN
        """What it waits for: IN the request, 0 the answer, OUT room for the reply; -1 when it ended."""
        self._since = reactor.now
        reactor.watch(peer.fileno(), IN, self)
        self._slot = reactor.arm(reactor.now + PATIENCE, self)

    def on_event(self, events: int) -> None:  # noqa: ARG002  the stage says what it is
        """Read or write on; between the two it can only be that the peer has gone (EPOLLHUP)."""
        if self._stage == IN:
            self._read()
        elif self._stage == OUT:
            self._write()
        else:
            self.end()

    def _read(self) -> None:
        try:
            data = self._peer.recv(LARGEST_REQUEST + 1 - len(self._request))
        except BlockingIOError:
            return
        except OSError:
            self.end()
            return
        self._request += data
        line, line_end, _ = self._request.partition(b"\n")
        if len(line + line_end) <= LARGEST_REQUEST and (line_end or (line and not data)):
            self._wait_for(0)
            self._answer(line, self.say)
        elif not data:
            self.end()
        elif len(self._request) > LARGEST_REQUEST:
            self.say(Failure(f"a request is one line of at most {LARGEST_REQUEST} bytes"))

    def _wait_for(self, events: int) -> None:
        if self._stage != events:
            self._stage = events
            self._reactor.rewatch(self._peer.fileno(), events)

    def say(self, reply: msgspec.Struct) -> None:
        """Write the reply and close; too late, and unheard, once the connection has ended."""
        if self._stage in {IN, 0}:
            self._reply = msgspec.json.encode(reply) + b"\n"
            self._write()

    def _write(self) -> None:
        try:
            sent = self._peer.send(self._reply, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.end()
            return
        self._reply = self._reply[sent:]
        if self._reply:
            self._wait_for(OUT)
        else:
            self.end()

    def make_room(self, before: float) -> None:
        """Go, if the request has been waited for since before then."""
        if self._stage == IN and self._since <= before:
            self.say(Failure("too many connections at a time, and no request in this one"))
            self.end()

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  there is one deadline
        """Time is up."""
        if self._stage == IN:
            self.say(Failure(f"no request within {PATIENCE:.0f} s"))
        self.end()

    def on_fault(self) -> None:
        """A verb's code raised: its traceback is in the log."""
        self.say(Failure("a fault in Portway: its log says more"))
        self.end()

    def end(self) -> None:
        """Close; the first time only."""
        if self._stage < 0:
            return
        self._stage = -1
        self._reactor.timers.cancel(self._slot, self)
        # A worker that is being forked may hold a copy for a moment: closing alone would not end the watch.
        self._reactor.unwatch(self._peer.fileno())
        self._reactor.forget(self._peer.fileno(), self._peer.close)
        self._on_end(self)

    def abandon(self) -> None:
        """In a forked child: close its copy."""
        self._peer.close()


def _turn_away(_line: bytes, answer: Answer) -> None:
    """Answer one who may not ask; once he has, since a refusal before would reach him as EPIPE."""
    answer(Failure(f"only user {os.geteuid()}, whose gateway it is, and root may ask"))


def _uid_of(peer: socket.socket) -> int:
    """Give the user whose process connected (struct ucred: pid, uid, gid)."""
    size = struct.calcsize("iII")
    _, uid, _ = struct.unpack("iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)
