"""The relay: two directions, each one moving the bytes of its source to its sink.

Theory of operation
-------------------
A `Direction` reads `source` and writes `sink`; the session's other one, `back`, has the two swapped. It is
the handler of its source's fd: IN is its own business, OUT belongs to `back`, whose sink that socket is.

The rule is that of the 2015 article, per direction. Nothing held: read, and write at once. What the sink
does not take is *held*, the source is *throttled* (IN off) and the sink watched for OUT. Once the sink has
taken everything, OUT goes off and IN on. Held bytes are bounded by one read: COPY_BYTES copied
(BUFFER_BYTES where a side is sealed), or the capacity of one pipe spliced; the rest waits in the kernel's
socket buffers, which is what pushes back on the peer. IN must go off while bytes are held: it is
level-triggered and would spin a core.

Two movers. *Copy*: recv_into one buffer that all sessions share, then send. *Splice*: socket, pipe, socket;
the bytes never enter this process. Splicing costs two more system calls' worth of pipe bookkeeping, so it
pays above about 16 KiB a read: a direction begins by copying, splices once a read took SPLICE_FROM or more,
and goes back after reads under SPLICE_LEAST. CPU of the relay for four streams over loopback: splicing
0.13 s/GB, copying 0.5.

splice(2) returns EAGAIN for an empty source as well as for a full pipe. Here the pipe is empty whenever it
is filled (held bytes come first), so EAGAIN means that it finds nothing to read. It is not the last word,
nor is its 0: tcp_read_sock, which splice reads with, never passes an urgent mark (MSG_OOB), so one such byte
made a worker spin and lose what followed. recv(2) passes it, and tells the end from it: it is asked then.

Ends. EOF is read only when nothing is held, so everything before it has been delivered by then; it is
passed on with shutdown(SHUT_WR), and when both directions had theirs the session closes, in order. A reset
of either side resets the other one. When a sink refuses bytes (EPIPE, ECONNRESET), what it had sent before
may still be unread in our kernel, a server's "413, go away" while the client is uploading: that is
delivered first. A sink that is sealed (`sealed`) is told of an EOF by bytes, and may have no room for them:
the direction is *ending* then, throttled like one that holds bytes.

EPOLLHUP and EPOLLERR cannot be switched off. HUP means both FINs have passed, or that a unix peer closed:
there may be bytes to read before the end, so with IN on it is a reason to read, never to close (a first
prototype lost the end of 32 of 132 transfers). With IN off it would be reported in every turn: the fd
leaves the epoll set and comes back with its interest. ERR with IN off is a reset; but where nothing can be
written to that side any more it tells no more than reading the rest will, and is treated as HUP.
"""

import errno
import os
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from socket import SHUT_WR
from typing import Final, Protocol

from appliance.net.pipes import Pipe, PipePool
from appliance.net.reactor import ERR, HUP, IN, OUT, Reactor
from appliance.net.sockets import DONTWAIT, Socket

COPY_BYTES: Final = 1 << 16
"""One read of a copying direction."""

BUFFER_BYTES: Final = 1 << 18
"""What is read into: as much as a sealed direction reads at once (`sealed`), which cannot splice. It is
mapped, so that a worker that never reads so much at once has no memory for it."""

SPLICE_FROM: Final = 1 << 15
"""A copied read of so many bytes starts splicing. Waiting for one that fills the buffer can be for ever: a
loopback segment has 65,483 bytes, so a direction that keeps up with its source never reads 65,536."""

SPLICE_LEAST: Final = 1 << 14
"""Below this a copied read is cheaper than a spliced one."""

SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK

SHORT_READS: Final = 4
"""So many reads under SPLICE_LEAST in a row end splicing: a bulk stream has a short one now and then."""

UNSPLICEABLE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
"""splice(2) does not work between these two files, or is filtered here (seccomp): copy."""


class Relayed(Protocol):
    """The session as its two directions see it."""

    def relay_ended(self, last: "Direction") -> None:
        """Both directions had their EOF and delivered everything; `last` was the second."""

    def relay_reset(self, by: "Direction", *, as_sink: bool) -> None:
        """The source (or, `as_sink`, the sink) of `by` was reset."""

    def sink_lost(self, direction: "Direction") -> None:
        """The direction's sink was reset; what it had sent before is still being delivered."""

    def first_bytes(self, direction: "Direction") -> None:
        """The direction is about to count its first bytes; it says so again while it has moved none."""

    def on_fault(self) -> None:
        """A handler of this session raised."""


class Relay:
    """What all sessions of a worker share: the loop, the copy buffer, the pipes."""

    __slots__ = ("can_splice", "pipes", "reactor", "view")

    def __init__(self, reactor: Reactor, pipes: PipePool) -> None:
        self.reactor = reactor
        self.pipes = pipes
        self.view = memoryview(mmap(-1, BUFFER_BYTES, MAP_PRIVATE | MAP_ANONYMOUS))
        self.can_splice = True


class Direction:
    """One way of a session: counts and holds its bytes, and is the handler of its source's fd."""

    __slots__ = (
        "active",
        "back",
        "detached",
        "ended",
        "ending",
        "fd",
        "held",
        "interest",
        "moved",
        "over",
        "pipe",
        "relay",
        "rest",
        "session",
        "short_reads",
        "sink",
        "source",
        "splicing",
        "throttled",
    )

    back: "Direction"

    def __init__(self, relay: Relay, session: Relayed, source: Socket, sink: Socket) -> None:
        self.relay = relay
        self.session = session
        self.source = source
        self.sink = sink
        self.fd = source.fileno()
        self.interest = IN
        """What the source's fd is watched for."""
        self.detached = False
        """The source's fd is out of the epoll set: it would spin on HUP."""
        self.moved = 0
        """Bytes written to the sink."""
        self.held = 0
        """Bytes read and not yet written: in `rest` or in `pipe`."""
        self.rest = b""
        self.pipe: Pipe | None = None
        self.throttled = False
        """IN is off and the sink is watched for OUT."""
        self.splicing = False
        self.short_reads = 0
        self.ended = False
        """EOF was read and passed on, or the sink takes nothing any more."""
        self.ending = False
        """EOF was read, and the sink has no room for it yet: watched for OUT."""
        self.over = False
        """The session has ended."""
        self.active = relay.reactor.now
        """When bytes last moved."""

    # -- events ---------------------------------------------------------------------------------------

    def on_event(self, events: int) -> None:
        """Take the events of the source's fd."""
        if events == IN and not self.splicing:
            self._copy()
            return
        if events & OUT:
            self.back.flush()
            if self.over:
                return
        if self.interest & IN:
            if events & ~OUT:
                self.fill()
        elif events & ERR and not self.back.ended:
            self.session.relay_reset(self, as_sink=False)
        elif events & (ERR | HUP):
            self._hang_up()

    def on_fault(self) -> None:
        """End the session: one of its handlers raised."""
        self.session.on_fault()

    def _hang_up(self) -> None:
        """HUP or ERR, and nothing may be read for now: leave the epoll set, unless its sink role explains it.

        The fd comes back when what is held has gone, is read to its end, and recv(2) tells which end it is.
        """
        if self.back.held or self.back.ending:
            self.back.flush()
        elif not self.detached:
            self.relay.reactor.unwatch(self.fd)
            self.detached = True

    def want(self, interest: int) -> None:
        """Have the source's fd watched for `interest`."""
        if self.detached:
            if interest:
                self.relay.reactor.watch(self.fd, interest, self)
                self.detached = False
        elif interest != self.interest:
            self.relay.reactor.rewatch(self.fd, interest)
        self.interest = interest

    # -- movers ---------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Read the source once and write what came. Nothing may be held."""
        if self.splicing:
            self._splice()
        else:
            self._copy()

    def _copy(self) -> None:
        """Move up to COPY_BYTES through the shared buffer."""
        relay = self.relay
        try:
            count = self.source.recv_into(relay.view, COPY_BYTES, DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.session.relay_reset(self, as_sink=False)
            return
        if not count:
            self._end()
            return
        self.active = relay.reactor.now
        try:
            sent = self.sink.send(relay.view[:count], DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._sink_reset()
            return
        if not self.moved:
            self.session.first_bytes(self)
        self.moved += sent
        if sent < count:
            self.rest = bytes(relay.view[sent:count])
            self._hold(count - sent)
        elif count >= SPLICE_FROM and relay.can_splice and not self.splicing:
            self._start_splicing()

    def _start_splicing(self) -> None:
        os.set_blocking(self.fd, False)
        os.set_blocking(self.back.fd, False)
        self.splicing = True
        self.short_reads = 0

    def _splice(self) -> None:
        """Move up to a pipe's capacity inside the kernel."""
        relay = self.relay
        pipe = relay.pipes.borrow()
        if pipe is None:
            self._copy()
            return
        try:
            count = os.splice(self.fd, pipe.write_fd, pipe.capacity, flags=SPLICE_FLAGS)
        except BlockingIOError:
            relay.pipes.give_back(pipe)
            self._copy()
            return
        except OSError as error:
            relay.pipes.give_back(pipe)
            self._splice_failed(error)
            return
        if not count:
            relay.pipes.give_back(pipe)
            self._copy()
            return
        self.active = relay.reactor.now
        self.pipe = pipe
        self.held = count
        self._judge(count)
        if not self._give() and not self.ended:
            self._hold(self.held)

    def _judge(self, count: int) -> None:
        """Go back to copying when reads stay small."""
        if count >= SPLICE_LEAST:
            self.short_reads = 0
        else:
            self.short_reads += 1
            self.splicing = self.short_reads < SHORT_READS

    def _splice_failed(self, error: OSError) -> None:
        if error.errno not in UNSPLICEABLE:
            self.session.relay_reset(self, as_sink=False)
            return
        self.relay.can_splice = self.splicing = False
        self._copy()

    # -- back-pressure --------------------------------------------------------------------------------

    def _hold(self, count: int) -> None:
        """Keep what the sink did not take: throttle the source, watch the sink for OUT."""
        self.held = count
        if not self.throttled:
            self.throttled = True
            self.want(self.interest & ~IN)
            self.back.want(self.back.interest | OUT)

    def flush(self) -> None:
        """Give the sink what is held. Once all is out, read on, and only then unthrottle.

        A sink slower than its source blocks again right after the next read: changing the interests
        back before it would cost two epoll_ctl, and their opposites, at each such turn.
        """
        if self.held and not self._give():
            return
        if self.ending:
            self._end()
        elif not self.ended:
            self.fill()
        if self.over or self.held or self.ending:
            return
        self.throttled = False
        self.back.want(self.back.interest & ~OUT)
        if not self.ended:
            self.want(self.interest | IN)

    def _give(self) -> bool:
        """Write what is held; True when all of it is out."""
        pipe = self.pipe
        try:
            if pipe is None:
                sent = self.sink.send(self.rest, DONTWAIT)
                self.rest = self.rest[sent:]
            else:
                sent = os.splice(pipe.read_fd, self.back.fd, self.held, flags=SPLICE_FLAGS)
        except BlockingIOError:
            return False
        except OSError:
            self._sink_reset()
            return False
        self.active = self.relay.reactor.now
        self.held -= sent
        if not self.held and pipe is not None:
            self.relay.pipes.give_back(pipe)
            self.pipe = None
        if not self.moved:
            self.session.first_bytes(self)
        self.moved += sent
        return not self.held

    # -- ends -----------------------------------------------------------------------------------------

    def _end(self) -> None:
        """EOF of the source, and everything before it is delivered: pass it on."""
        self.ended = True
        if self.back.ended:
            self.session.relay_ended(self)
            return
        try:
            self.sink.shutdown(SHUT_WR)
        except OSError:  # ENOTCONN: the sink was reset meanwhile
            self._sink_reset()
            return
        self._watch_ended()

    def _watch_ended(self) -> None:
        """Read the source no more: its EOF would be reported in every turn."""
        self.want(self.interest & ~IN)

    def _sink_reset(self) -> None:
        """The sink takes no more: this way is over; what the sink had sent before is delivered first."""
        self.ended = True
        self.ending = False
        self._drop_held()
        if self.back.ended:
            self.session.relay_reset(self, as_sink=True)
            return
        self.session.sink_lost(self)
        self.throttled = False
        self.want(self.interest & ~IN)
        self.back.want(self.back.interest & ~OUT)

    def _drop_held(self) -> None:
        self.held = 0
        self.rest = b""
        if self.pipe is not None:
            self.relay.pipes.discard(self.pipe)
            self.pipe = None

    def hand_back(self) -> bool:
        """The session is over, and its source goes on: have it watched for IN. False: it has hung up."""
        if self.detached:
            return False
        self.want(IN)
        return True

    def stop(self) -> int:
        """The session has ended: hold nothing, break the circle of references, return the bytes moved.

        Left to the garbage collector, the circle of session and directions cost 3 us a session.
        """
        self.over = True
        if self.held:
            self._drop_held()
        del self.back
        return self.moved
