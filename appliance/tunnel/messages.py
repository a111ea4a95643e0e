"""Messages over a connection: read whole and one at a time, written without waiting.

A message is read by exact counts, its length and then its body, never further: what follows the last one
on a data channel are the session's bytes, which belong to the relay.
"""

from collections.abc import Iterator
from typing import Final, Protocol, TypeVar

import msgspec

from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.sockets import DONTWAIT, Sealed, Socket
from appliance.wire.messages import HEADER_BYTES, decoded, framed, length_of

M = TypeVar("M", bound=msgspec.Struct)

MOST_UNSENT: Final = 1 << 18
"""Bytes that may wait for a peer that does not read. The kernel holds more than the messages of a minute."""


MOST_AT_ONCE: Final = 16
"""Messages of one connection that are taken in a turn."""


class Listener(Protocol):
    """Who takes messages as they come."""

    is_over: bool
    """Whether it wants no more."""

    def on_event(self, events: int) -> None:
        """Take them."""


class ClosedError(Exception):
    """The peer has closed, in order."""


class Messages:
    """The messages of one connection, which is in the epoll set, watched for IN."""

    __slots__ = ("_buffer", "_reactor", "_unsent", "_wanted", "connection", "limit")

    def __init__(self, reactor: Reactor, connection: Socket, limit: int) -> None:
        self._reactor = reactor
        self.connection = connection
        self.limit = limit
        """Bytes of the longest message that is taken."""
        self._buffer = bytearray()
        self._wanted = HEADER_BYTES
        self._unsent = b""

    def take(self, decoder: "msgspec.json.Decoder[M]") -> M | None:
        """Give the next message; None when there is no whole one yet.

        Raises MessageError for what is none, ClosedError at the end, and OSError for a connection that is
        broken.
        """
        while True:
            try:
                data = self.connection.recv(self._wanted - len(self._buffer), DONTWAIT)
            except BlockingIOError:
                return None
            if not data:
                raise ClosedError
            self._buffer += data
            if len(self._buffer) < self._wanted:
                continue
            if self._wanted == HEADER_BYTES:
                self._wanted += length_of(self._buffer, self.limit)
                continue
            body = bytes(memoryview(self._buffer)[HEADER_BYTES:])
            self._buffer.clear()
            self._wanted = HEADER_BYTES
            return decoded(decoder, body)

    def some(self, decoder: "msgspec.json.Decoder[M]", handler: "Listener") -> Iterator[M]:
        """Give the messages that are there, but not more than MOST_AT_ONCE: others want their turn, too.

        Stops when the handler is over. What is left is an event again; where epoll knows nothing of it, the
        handler is called at the end of the turn. Raises as `take` does.
        """
        for _ in range(MOST_AT_ONCE):
            if handler.is_over or (message := self.take(decoder)) is None:
                return
            yield message
        if isinstance(self.connection, Sealed) and self.connection.pending():
            self._reactor.defer(lambda: None if handler.is_over else handler.on_event(IN))

    def say(self, message: msgspec.Struct) -> None:
        """Send a message, now or when there is room. Raises OSError: it is broken, or too slow."""
        was_waiting = bool(self._unsent)
        self._unsent += framed(message)
        if was_waiting:
            if len(self._unsent) > MOST_UNSENT:
                raise TimeoutError("the peer reads nothing")
            return
        self.flush()
        if self._unsent:
            self._reactor.rewatch(self.connection.fileno(), IN | OUT)

    def flush(self) -> None:
        """Send what waits, on OUT. Raises OSError."""
        if not self._unsent:
            return
        try:
            sent = self.connection.send(self._unsent, DONTWAIT)
        except BlockingIOError:
            return
        self._unsent = self._unsent[sent:]

    def on_room(self) -> None:
        """Take an OUT event. Raises OSError."""
        self.flush()
        if not self._unsent:
            self._reactor.rewatch(self.connection.fileno(), IN)

    def say_whole(self, message: msgspec.Struct) -> None:
        """Send a message where nothing can be waiting: a fresh connection takes it. Raises OSError."""
        body = framed(message)
        if self.connection.send(body, DONTWAIT) < len(body):
            raise BlockingIOError("no room for a message")
