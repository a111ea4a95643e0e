"""The directions of a session of which one side is sealed (`sockets.Sealed`, in practice `tls`).

Theory of operation
-------------------
A sealed connection outlives its sessions: making one costs a handshake, a hundred times what a message
does. So the ends of a session are said within it, and not by its own end. Each direction is a row of
*pieces*, a length of LENGTH bytes and so many bytes; one of no bytes is the direction's end. When both
have had theirs the connection is as it was before, and may serve the next session.

`Sealing` reads a plain source and writes pieces. It reads behind the place of the length, so that both go out
in one write, and a full buffer makes full records. `Opening` reads pieces, by exact counts: the length,
and then never more than is left of the piece, so nothing of what follows the end is taken.

Who waits for bytes sleeps, and waking it costs as much as sealing a record. So a bulk stream is moved in
strides as long as the buffer, once its sink has taken a MiB without a pause: 256 KiB at a time cost a sixth
less CPU of both ends together than 64 (one stream over loopback: 2.5 s/GB for 3.0). A sink that pauses for
longer than it takes to run dry is slow: it is offered STRIDE, as much as is held for it then. So is any where
there is a crowd: a long stride takes 0.17 ms, for which everybody else waits, and many streams sleep less.

They differ from `relay.Direction` in this, too. They never splice: the bytes pass through OpenSSL. A sealed
source is asked for what has left the kernel already, which epoll does not know. A sealed sink is told of an
EOF even when that ends the session. A connection that ends without the end having been said is a stream that
was cut, and passed on as a reset; so is one whose session ends because a side was reset.

A sealed source goes on being watched after its end, unlike a plain one, where the EOF would be reported in
every turn. Whatever comes then is wrong, while the other direction lives: the peer is gone, or does not keep
to this.
"""

from typing import Final, cast

from appliance.net.reactor import IN
from appliance.net.relay import BUFFER_BYTES, COPY_BYTES, Direction, Relay, Relayed
from appliance.net.sockets import DONTWAIT, Sealed, Socket

LENGTH: Final = 4
"""Bytes of a length, big-endian."""

PIECE: Final = BUFFER_BYTES - LENGTH
"""Bytes of the longest piece: with its length sixteen full records."""

STRIDE: Final = COPY_BYTES - LENGTH
"""Bytes that are read at once to begin with: four full records."""

WITHOUT_A_PAUSE: Final = 1 << 20
"""Bytes that a sink takes before strides get longer. A slow one on loopback reports room when it has some for
850 kB."""

PAUSE: Final = 0.02
"""Seconds in which a quick sink has room again. One stream of 3 Gbit/s over loopback pauses every 2 MB, for
the other end on the same core; one of 100 Mbit/s takes 70 ms to report room."""

FEW: Final = 8
"""Events of a turn in which strides may be long."""

END: Final = bytes(LENGTH)
"""A piece of no bytes."""

MOST_PIECES: Final = 32
"""Pieces of one source in a turn. Those that `Sealing` makes begin with a record, so there is one; a peer
that packs 3,276 of a byte into one would have the worker to itself for 16 ms."""

MOST_READS: Final = 8
"""Reads of one piece in a turn. What there is of one of `Sealing` takes two; in records of a byte it would be
262,140, which take a second."""


class SealedDirection(Direction):
    """What both ways have in common."""

    __slots__ = ("_most", "_paused", "_taken")

    def __init__(self, relay: Relay, session: Relayed, source: Socket, sink: Socket) -> None:
        super().__init__(relay, session, source, sink)
        self._most = STRIDE
        """Bytes that are read at once, without a crowd."""
        self._taken = 0
        """Bytes that the sink took without a pause."""
        self._paused = -PAUSE
        """When the last one began."""

    def _stride(self) -> int:
        """Say how much to read at once."""
        return self._most if self.relay.reactor.crowd <= FEW else STRIDE

    def _start_splicing(self) -> None:
        """Go on copying."""

    def _send(self, size: int) -> int:
        """Write so many bytes of the buffer, and hold what is not taken. Give how many were."""
        view = self.relay.view
        try:
            sent = self.sink.send(view[:size], DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._sink_reset()
            return 0
        if not self.moved:
            self.session.first_bytes(self)
        if sent < size:
            self.rest = bytes(view[sent:size])
            self._hold(size - sent)
            self._most, self._taken, self._paused = STRIDE, 0, self.relay.reactor.now
        elif self._most == STRIDE:
            self._taken += size
            if self._taken >= WITHOUT_A_PAUSE or self.relay.reactor.now - self._paused < PAUSE:
                self._most = PIECE
        return sent


class Sealing(SealedDirection):
    """From a plain source into a sealed sink."""

    __slots__ = ("_is_length_held",)

    back: "Opening"

    def __init__(self, relay: Relay, session: Relayed, source: Socket, sink: Socket) -> None:
        super().__init__(relay, session, source, sink)
        self._is_length_held = False
        """The length is among the bytes that are held. `moved` counts without it."""

    def _copy(self) -> None:
        """Make a piece of what one read gives."""
        relay = self.relay
        try:
            count = self.source.recv_into(relay.view[LENGTH:], self._stride(), DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.session.relay_reset(self, as_sink=False)
            return
        if not count:
            self._end()
            return
        self.active = relay.reactor.now
        relay.view[:LENGTH] = count.to_bytes(LENGTH, "big")
        sent = self._send(count + LENGTH)
        if sent:
            self.moved += sent - LENGTH
        else:
            self._is_length_held = True

    def _give(self) -> bool:
        """Write what is held."""
        moved = self.moved
        is_out = super()._give()
        if self._is_length_held and self.moved > moved:
            self._is_length_held = False
            self.moved -= LENGTH
        return is_out

    def _end(self) -> None:
        """EOF of the source, and everything before it is delivered: say so.

        Unless the source was lost: an EOF that is read once its error was met by a write is none.
        """
        if not self.back.is_sink_lost:
            try:
                self.sink.send(END, DONTWAIT)
            except BlockingIOError:
                self.ending = True
                self._hold(0)
                return
            except OSError:
                self._sink_reset()
                return
        self.ending = False
        self.ended = True
        if self.back.ended:
            self.session.relay_ended(self)
        else:
            self._watch_ended()


class Opening(SealedDirection):
    """From a sealed source into a plain sink."""

    __slots__ = ("_is_cut", "_is_going_on", "_left", "_length", "_pending", "is_sink_lost")

    back: "Sealing"

    def __init__(self, relay: Relay, session: Relayed, source: Socket, sink: Socket) -> None:
        super().__init__(relay, session, source, sink)
        self._pending = cast("Sealed", source).pending
        self._length = b""
        """What there is of the next piece's length."""
        self._left = 0
        """Bytes of the piece that have not come yet."""
        self._is_cut = False
        """The source ended, or was reset, behind bytes that had to be delivered first."""
        self._is_going_on = False
        """It reads on in another turn."""
        self.is_sink_lost = False

    def _copy(self) -> None:
        """Move what there is of a piece, and what the source has taken from the kernel beyond it.

        The kernel is not asked again: who writes as fast as it is read would have the worker to itself.
        """
        if self.ended:
            self._look_on()
            return
        for number in range(MOST_PIECES):
            try:
                count = self._open(asks_kernel=not number)
            except BlockingIOError:
                return
            except OSError:
                self.session.relay_reset(self, as_sink=False)
                return
            if not count:
                self._end()
                if not self.over and self._pending():
                    self._look_on()
                return
            self.active = self.relay.reactor.now
            self.moved += self._send(count)
            if not self._can_read() or not (self._is_cut or self._pending()):
                return
        if not self._is_going_on:
            self._is_going_on = True
            self.relay.reactor.defer(self._go_on)

    def _go_on(self) -> None:
        """Read what the source has taken from the kernel, and epoll does not tell of."""
        self._is_going_on = False
        if self._can_read():
            self._copy()

    def _can_read(self) -> bool:
        return not (self.held or self.over or self.ended)

    def _open(self, *, asks_kernel: bool) -> int:
        """Read what there is of a piece; 0 is the direction's end.

        Without `asks_kernel` it must be `pending`, and no more than that is read.
        Raises BlockingIOError where there is nothing, OSError where the stream was cut.
        """
        if not self._left and not self._begin():
            return 0
        got = 0 if self._is_cut else self._read(asks_kernel=asks_kernel)
        self._left -= got
        if got:
            return got
        raise ConnectionResetError if self._is_cut else BlockingIOError

    def _read(self, *, asks_kernel: bool) -> int:
        """Read on in the piece; that the source was cut behind some bytes is kept for the next time."""
        relay, left = self.relay, min(self._left, self._stride())
        got = 0
        for _ in range(MOST_READS):
            if not (asks_kernel or self._pending()):
                break
            try:
                count = self.source.recv_into(relay.view[got:], left - got, DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                count = 0
            self._is_cut = not count
            got += count
            if self._is_cut or got == left:
                break
        return got

    def _begin(self) -> int:
        """Read the next piece's length. Raises OSError for one that no piece has, too."""
        got = b"" if self._is_cut else self.source.recv(LENGTH - len(self._length), DONTWAIT)
        if not got:
            raise ConnectionResetError
        self._length += got
        if len(self._length) < LENGTH:
            raise BlockingIOError
        self._left = int.from_bytes(self._length, "big")
        self._length = b""
        if self._left > PIECE:
            raise ConnectionResetError
        return self._left

    def _look_on(self) -> None:
        """Something came after the end."""
        try:
            self.source.recv(1, DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            pass
        self.session.relay_reset(self, as_sink=False)

    def _watch_ended(self) -> None:
        """Go on watching the source: nothing is due, and what comes is wrong (`_look_on`)."""
        self.want(self.interest | IN)

    def _sink_reset(self) -> None:
        self.is_sink_lost = True
        super()._sink_reset()
