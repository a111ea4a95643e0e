"""How a data channel that is not encrypted begins: `PWT1`, and which of the gateway's workers it is for."""

from typing import Final

MAGIC: Final = b"PWT1"
PRELUDE_BYTES: Final = len(MAGIC) + 1


def prelude(worker: int) -> bytes:
    """Give what the agent sends first."""
    return MAGIC + bytes((worker,))


def could_be_plain(data: bytes) -> bool:
    """Say whether the first bytes of a connection are such a beginning, or may become one."""
    return bool(data) and data[: len(MAGIC)] == MAGIC[: len(data)]


def worker_of(data: bytes) -> int | None:
    """Give the worker; None where there are not enough bytes yet."""
    return data[len(MAGIC)] if len(data) >= PRELUDE_BYTES else None
