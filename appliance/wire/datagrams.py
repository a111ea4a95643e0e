"""The datagrams of a flow in a stream: a length of 2 bytes, big-endian, and so many bytes.

    00 05 68 65 6c 6c 6f    "hello"
    00 00                   an empty datagram, which UDP has
    ff ff                   the end of the flow

No stream is wrong: a datagram that the way on does not take (65,507 bytes are the most over IPv4) is dropped
there, as any other.
"""

from typing import Final

HEADER_BYTES: Final = 2
MAX_DATAGRAM: Final = 65534

END: Final = b"\xff\xff"
"""The length that no datagram has (65,527 bytes are the most that UDP carries, over IPv6)."""

_END_LENGTH: Final = MAX_DATAGRAM + 1

Bytes = bytes | bytearray | memoryview


def header(length: int) -> bytes:
    """Give what goes before a datagram. Raises OverflowError for one longer than MAX_DATAGRAM."""
    if length > MAX_DATAGRAM:
        raise OverflowError(f"a datagram of {length} bytes")
    return length.to_bytes(HEADER_BYTES, "big")


def framed(datagram: Bytes) -> bytes:
    """Give a datagram with its length, as one piece. Raises OverflowError, as above."""
    return b"".join((header(len(datagram)), datagram))


class DatagramReader:
    """Cuts a stream into datagrams; holds less than one of them.

    What is whole within one read is given as a view of it, uncopied. Only the datagram that a read ends in
    the middle of is put together here.
    """

    __slots__ = ("_held", "is_over", "is_overrun")

    def __init__(self) -> None:
        self._held = bytearray()
        self.is_over = False
        """The flow's end was read."""
        self.is_overrun = False
        """So was something behind it."""

    @property
    def buffered(self) -> int:
        """How many bytes are held: 0 where the stream may end."""
        return len(self._held)

    def feed(self, data: Bytes) -> list[memoryview]:
        """Give every datagram that is whole now. The views are good while what `data` shows is."""
        view = memoryview(data)
        found: list[memoryview] = []
        at = self._complete(view, found) if self._held else 0
        end = len(view)
        while at + HEADER_BYTES <= end and not self.is_over:
            begin = at + HEADER_BYTES
            length = view[at] << 8 | view[at + 1]
            if length == _END_LENGTH:
                self.is_over = True
                at = begin
                break
            after = begin + length
            if after > end:
                break
            found.append(view[begin:after])
            at = after
        if self.is_over:
            self.is_overrun = self.is_overrun or at < end
        else:
            self._held += view[at:]
        return found

    def _complete(self, view: memoryview, found: list[memoryview]) -> int:
        """Put the datagram that is held together; say how much of the read that took."""
        held = self._held
        at = max(HEADER_BYTES - len(held), 0)
        held += view[:at]
        if len(held) < HEADER_BYTES:
            return at
        length = held[0] << 8 | held[1]
        if length == _END_LENGTH:
            self.is_over = True
            held.clear()
            return at
        missing = HEADER_BYTES + length - len(held)
        rest = view[at : at + missing]
        held += rest
        if len(rest) == missing:
            self._held = bytearray()  # a new one: the view keeps the old one
            found.append(memoryview(held)[HEADER_BYTES:])
        return at + len(rest)
