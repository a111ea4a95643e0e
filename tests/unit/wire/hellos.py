"""ClientHellos: OpenSSL's own, and such as are made byte by byte."""

import ssl
from contextlib import suppress


def of_openssl(server_name: str | None, *alpn: str) -> bytes:
    """Give what OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    handshake = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()


def vector(head: int, data: bytes) -> bytes:
    """Put the length before the data."""
    return len(data).to_bytes(head, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    """Make an extension."""
    return kind.to_bytes(2, "big") + vector(2, data)


def named(name: bytes, kind: int = 0) -> bytes:
    """Make the extension that holds a server name."""
    return extension(0, vector(2, bytes((kind,)) + vector(2, name)))


def body(
    extensions: bytes | None, *, session: bytes = b"", suites: bytes = b"\x13\x01", methods: bytes = b"\0"
) -> bytes:
    """Make what a ClientHello holds; None: no extensions at all."""
    rest = b"" if extensions is None else vector(2, extensions)
    return b"\x03\x03" + bytes(32) + vector(1, session) + vector(2, suites) + vector(1, methods) + rest


def message(content: bytes, kind: int = 1) -> bytes:
    """Make a handshake message."""
    return bytes((kind,)) + vector(3, content)


def record(content: bytes, kind: int = 22, minor: int = 1) -> bytes:
    """Make a record."""
    return bytes((kind, 3, minor)) + vector(2, content)


def records(content: bytes, *sizes: int) -> bytes:
    """Make several records of the sizes given, and one of the rest."""
    made, at = b"", 0
    for size in sizes:
        made += record(content[at : at + size])
        at += size
    return made + (record(content[at:]) if at < len(content) else b"")
