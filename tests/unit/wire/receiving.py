"""A receiver of the PROXY protocol, written from the specification; what is behind the header comes back."""

import socket
from dataclasses import dataclass

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


@dataclass(frozen=True)
class Header:
    """What a header said; no addresses: not known."""

    family: str
    source: tuple[str, int] | None
    destination: tuple[str, int] | None
    unique_id: bytes = b""


def receive(data: bytes) -> tuple[Header, bytes]:
    """Read a header of either version."""
    if data.startswith(SIGNATURE):
        return _binary(data)
    line, _, rest = data.partition(b"\r\n")
    assert len(line) + 2 <= 107
    word, family, *said = line.decode("ascii").split(" ")
    assert word == "PROXY"
    if family == "UNKNOWN":
        return Header(family, None, None), rest
    source, destination, source_port, destination_port = said
    kind = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}[family]
    for address in (source, destination):
        socket.inet_pton(kind, address)
    return Header(family, (source, int(source_port)), (destination, int(destination_port))), rest


def _binary(data: bytes) -> tuple[Header, bytes]:
    version, command = divmod(data[12], 16)
    assert version == 2
    length = int.from_bytes(data[14:16], "big")
    block, rest = data[16 : 16 + length], data[16 + length :]
    assert len(block) == length
    family, size, kind = {
        0x00: ("UNSPEC", 0, None),
        0x11: ("TCP4", 4, socket.AF_INET),
        0x21: ("TCP6", 16, socket.AF_INET6),
    }[data[13]]
    if command == 0:
        assert kind is None
        return Header("LOCAL", None, None, _unique_id(block)), rest
    assert command == 1
    assert kind is not None
    source, destination = (socket.inet_ntop(kind, block[at : at + size]) for at in (0, size))
    ports = [int.from_bytes(block[2 * size + at : 2 * size + at + 2], "big") for at in (0, 2)]
    unique = _unique_id(block[2 * size + 4 :])
    return Header(family, (source, ports[0]), (destination, ports[1]), unique), rest


def _unique_id(block: bytes) -> bytes:
    found = b""
    while block:
        length = int.from_bytes(block[1:3], "big")
        value = block[3 : 3 + length]
        assert len(value) == length
        if block[0] == 5:
            assert not found
            assert len(value) <= 128
            found = value
        block = block[3 + length :]
    return found
