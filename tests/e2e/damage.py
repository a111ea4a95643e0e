"""Messages with damage, by a seeded random: what a peer might send that has lost its mind, or uses it."""

import json
import random
from typing import Any

import msgspec

from appliance.wire.messages import framed

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    10**9,
    2**53 + 1,
    2**64,
    0.0,
    -0.5,
    1e300,
    "",
    "x",
    "\n\r\x1b[31m\x00",
    "é" * 400,
    "a" * 10_000,
    "127.0.0.1:0",
    "127.0.0.1:1-65535",
    "127.0.0.1:70000",
    "unix:/var/run/docker.sock",
    "http://127.0.0.1:80/",
    "[::ffff:127.0.0.1]:9",
    "[fe80::1%lo]:9",
    f"{'a' * 300}:9",
    f"{'a.' * 120}x:9",
    "tcp",
    "udp",
    "v1",
    "v3",
    "client",
    "none",
    [],
    ["127.0.0.1/33:1"] * 3,
    {"type": "open"},
)
"""What is put into a field."""

RAW = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'{"type":1}',
    b'{"type":"hello"}',
    b"\xff\xfe\xfd",
    b"[" * 5000,
    b'{"number":1e400}',
)
"""Bodies that are no message."""


def damaged(source: random.Random, message: msgspec.Struct) -> bytes:
    """Give a message with its length, and something wrong with it more often than not."""
    whole = framed(message)
    ways = (
        lambda: whole,
        lambda: whole[: source.randrange(len(whole))],
        lambda: source.randbytes(2) + whole[2:],
        lambda: _with_other_bytes(source, whole),
        lambda: with_length(source.choice(RAW)),
        lambda: whole * source.randint(2, 40),
        lambda: _with_other_fields(source, whole),
        lambda: _with_other_fields(source, whole),
    )
    return source.choice(ways)()


def _with_other_bytes(source: random.Random, whole: bytes) -> bytes:
    changed = bytearray(whole)
    for _ in range(source.randint(1, 4)):
        changed[source.randrange(2, len(changed))] = source.randrange(256)
    return bytes(changed)


def _with_other_fields(source: random.Random, whole: bytes) -> bytes:
    told = json.loads(whole[2:])
    for key in source.sample(sorted(told), min(len(told), source.randint(1, 2))):
        if source.random() < 0.2:
            del told[key]
        elif key != "type":
            told[key] = source.choice(VALUES)
    return with_length(json.dumps(told).encode())


def with_length(body: bytes) -> bytes:
    """Put a length before a body, as well as it can be said."""
    return min(len(body), 65535).to_bytes(2, "big") + body
