"""A DHCP server's messages, built byte by byte for the tests."""

import struct
from ipaddress import IPv4Address

from appliance.machine.dhcp_message import MessageType, Option

MAC = bytes.fromhex("525400123456")
COOKIE = b"\x63\x82\x53\x63"


def options_of(message: bytes) -> dict[int, bytes]:
    """Take a client's message apart: its options by code."""
    assert message[236:240] == COOKIE
    found, at = {}, 240
    while message[at] != Option.END:
        code, size = message[at], message[at + 1]
        found[code] = message[at + 2 : at + 2 + size]
        at += 2 + size
    return found


def xid_of(message: bytes) -> int:
    """Give a message's transaction."""
    (xid,) = struct.unpack_from("!I", message, 4)
    return int(xid)


def encoded(options: list[tuple[int, bytes]]) -> bytes:
    """Write options."""
    return b"".join(bytes((code, len(value))) + value for code, value in options)


def reply(
    kind: MessageType,
    xid: int,
    *more: tuple[int, bytes],
    address: str = "192.0.2.50",
    server: str = "192.0.2.1",
    seconds: int = 1000,
    file: bytes = b"",
    sname: bytes = b"",
) -> bytes:
    """Build a server's message; `more` are options beyond type, server, lease time and mask."""
    head = struct.pack(
        "!BBBBIHH4s4s4s4s16s64s128s4s",
        *(2, 1, 6, 0, xid, 0, 0, bytes(4), IPv4Address(address).packed, bytes(4), bytes(4)),
        *(MAC, sname, file, COOKIE),
    )
    own = [
        (Option.MESSAGE_TYPE, bytes((kind,))),
        (Option.SERVER, IPv4Address(server).packed),
        (Option.LEASE_TIME, struct.pack("!I", seconds)),
        (Option.SUBNET_MASK, bytes((255, 255, 255, 0))),
    ]
    return head + encoded([*own, *more]) + b"\xff"
