"""Large files with a checksum."""

import hashlib
import random
from pathlib import Path

PIECE = 1 << 20


def write_random(path: Path, size: int, seed: int = 1) -> str:
    """Write a file in which no two pieces are equal; give its SHA-256. Sizes are multiples of a piece."""
    piece = bytearray(random.Random(seed).randbytes(PIECE))
    checksum = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(size // PIECE):
            piece[:8] = number.to_bytes(8)
            checksum.update(piece)
            file.write(piece)
    return checksum.hexdigest()


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
