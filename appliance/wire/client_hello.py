"""The server name in a ClientHello, out of the bytes that wait in a socket and stay there (MSG_PEEK).

Whoever terminates the connection reads the ClientHello anew, so nothing here replaces a check of its own:
this only says to whom the connection goes. What is no ClientHello is known as early as its first wrong byte.
(RFC 8446, 4.1.2 and 5.1; RFC 6066, 3.)
"""

from dataclasses import dataclass
from typing import Final

LONGEST: Final = 16384 + 5
"""Bytes that are looked at: one record of the greatest length, or several that are as long together.

OpenSSL's is 0.3 to 0.6 kB, 1.8 with the keys of ML-KEM; sent in several records it is no longer.
"""

MOST_RECORDS: Final = 16
"""A ClientHello in records of one byte would be looked at anew for each: 2,700 times, 5 s of CPU in all."""

_RECORD_HEADER: Final = 5
_LONGEST_RECORD: Final = 16384
_HANDSHAKE: Final = 22
_HANDSHAKE_HEADER: Final = 4
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_PRE_SHARED_KEY: Final = 41
_HOST_NAME: Final = 0
_LONGEST_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Needs:
    """More is needed: look again once there are `total` bytes, those there are now included.

    So it is the SO_RCVLOWAT to set: more than there are, and at most LONGEST. An end of the stream comes
    without them, and is the caller's to notice: then there are no more bytes than before.
    """

    total: int


@dataclass(frozen=True, slots=True)
class NotTls:
    """No ClientHello begins like this; `why` is a clause for the log."""

    why: str


@dataclass(frozen=True, slots=True)
class ClientHello:
    """A whole ClientHello; `server_name` is in lower case, None where it has none."""

    server_name: str | None
    resumes: bool = False
    """It offers to resume a session (RFC 8446, 4.2.11)."""


class _WrongError(Exception):
    """Why this is no ClientHello."""


class _ShortError(Exception):
    """How many bytes there must be."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.total = total


def look(data: bytes) -> Needs | NotTls | ClientHello:
    """Say what the first bytes of a connection are. Takes any bytes, looks at LONGEST of them at the most."""
    try:
        return _of_body(_message(data))
    except _ShortError as short:
        return Needs(short.total)
    except _WrongError as wrong:
        return NotTls(str(wrong))


def _message(data: bytes) -> bytes:
    """Give the body of the ClientHello, put together from its records."""
    message = b""
    at = 0
    for _ in range(MOST_RECORDS):
        fragment = _fragment(data, at)
        at += _RECORD_HEADER + len(fragment)
        message += fragment
        if len(message) >= _HANDSHAKE_HEADER:
            size = _HANDSHAKE_HEADER + int.from_bytes(message[1:_HANDSHAKE_HEADER], "big")
            if len(message) > size:
                raise _WrongError("something follows the ClientHello in its record")
            if len(message) == size:
                return message[_HANDSHAKE_HEADER:]
            if at + _RECORD_HEADER + size - len(message) > LONGEST:
                raise _WrongError(f"a ClientHello of {size} bytes")
    raise _WrongError("a ClientHello in too many records")


def _fragment(data: bytes, at: int) -> bytes:
    """Give what the record at an offset holds."""
    begin = at + _RECORD_HEADER
    head = data[at:begin]
    # Each byte that is there counts: who sends "GET / HTTP/1.1", and waits, is answered at once.
    if head[:1] and head[0] != _HANDSHAKE:
        raise _WrongError(f"no TLS: byte {at} is 0x{head[0]:02x}")
    if (head[1:2] and head[1] != 3) or (head[2:3] and head[2] > 4):  # noqa: PLR2004  3.0 to 3.4: SSL 3 to TLS 1.3
        raise _WrongError("no version of TLS")
    if len(head) < _RECORD_HEADER:
        raise _ShortError(begin)
    size = int.from_bytes(head[3:], "big")
    if not 0 < size <= min(_LONGEST_RECORD, LONGEST - begin):
        raise _WrongError(f"a record of {size} bytes")
    if at == 0 and data[begin : begin + 1] not in {b"", bytes((_CLIENT_HELLO,))}:
        raise _WrongError(f"a handshake that begins with message {data[begin]}")
    if len(data) < begin + size:
        raise _ShortError(begin + size)
    return data[begin : begin + size]


class _Fields:
    """Reads one field after the other; raises where there is not as much as the field says."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def is_empty(self) -> bool:
        """Say whether nothing is left."""
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        """Give the next bytes."""
        found = self._data[self._at : self._at + size]
        if len(found) != size:
            raise _WrongError("a field that is longer than what holds it")
        self._at += size
        return found

    def number(self, size: int) -> int:
        """Give a number of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, head: int, least: int = 0, most: int = 65535) -> bytes:
        """Give what follows its own length, a number of `head` bytes."""
        size = self.number(head)
        if not least <= size <= most:
            raise _WrongError(f"a field of {size} bytes")
        return self.take(size)


def _of_body(body: bytes) -> ClientHello:
    fields = _Fields(body)
    fields.take(2 + 32)  # legacy_version, random
    fields.vector(1, most=32)  # session id
    if len(fields.vector(2, least=2)) % 2:  # cipher suites
        raise _WrongError("half a cipher suite")
    fields.vector(1, least=1)  # compression methods
    if fields.is_empty():  # before TLS 1.2 there need be no extensions
        return ClientHello(None)
    extensions = _Fields(fields.vector(2))
    if not fields.is_empty():
        raise _WrongError("something follows the extensions")
    return _of_extensions(extensions)


def _of_extensions(extensions: _Fields) -> ClientHello:
    name: str | None = None
    seen: set[int] = set()
    while not extensions.is_empty():
        kind = extensions.number(2)
        value = extensions.vector(2)
        if kind in seen:
            raise _WrongError(f"extension {kind} twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _host_name(value)
    return ClientHello(name, _PRE_SHARED_KEY in seen)


def _host_name(value: bytes) -> str:
    """Read the extension: a list of one name, since no other kind of name was ever defined."""
    whole = _Fields(value)
    names = _Fields(whole.vector(2, least=1))
    kind = names.number(1)
    name = names.vector(2, least=1, most=_LONGEST_NAME)
    if kind != _HOST_NAME or not names.is_empty() or not whole.is_empty():
        raise _WrongError("no server name in its extension")
    if not name.isascii() or not (text := name.decode("ascii")).isprintable():
        raise _WrongError("a server name that is no host name")
    return text.lower()
