"""What a random conversation is: a pure function of a seed and a number, so both ends know it.

Each end sends its own slice of one random block, in chunks, perhaps pausing, and ends as planned: with a FIN
of its own accord, with a FIN only after the other's, or with RST in mid-stream. Sizes go from nothing to
8 MiB; most are small, so that 10,000 of them are some 5 GB.
"""

import math
import random
import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
LARGEST: Final = 8 * MIB
BLOCK_BYTES: Final = 2 * LARGEST

HEADER: Final = struct.Struct("!4sQ")
"""What a client says first: the magic, and its conversation's number."""
MAGIC: Final = b"talk"

_SIZES: Final = (
    (0.12, 0, 0),
    (0.70, 1, 64 * KIB),
    (0.97, 64 * KIB, MIB),
    (0.995, MIB, LARGEST),
    (1.0, LARGEST, LARGEST),
)
"""Share so far, least and most bytes; log-uniform between."""

ABORTS: Final = 0.08
PAUSES: Final = 0.2
LONGEST_PAUSE: Final = 0.08


class Side(Enum):
    """Who speaks."""

    CLIENT = auto()
    SERVER = auto()


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for `seconds` once `after` bytes have passed."""

    after: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Part:
    """What one end does."""

    offset: int
    """Where its slice of the block begins."""
    size: int
    """How many bytes it sends."""
    chunk: int
    """How many it gives to one send(2) at the most."""
    waits: bool
    """Its FIN follows the other's, never comes first."""
    aborts: bool
    """RST after `size` bytes, instead of a FIN."""
    read_pause: Pause | None
    write_pause: Pause | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Both parts."""

    number: int
    client: Part
    server: Part

    def part(self, side: Side) -> Part:
        """Give the part of one side."""
        return self.client if side is Side.CLIENT else self.server


def block(seed: int) -> memoryview:
    """Give the random bytes that all conversations of a seed are cut from."""
    return memoryview(random.Random(seed).randbytes(BLOCK_BYTES))


def plan(seed: int, number: int) -> Conversation:
    """Throw the dice for one conversation."""
    dice = random.Random(f"{seed}/{number}")
    first = dice.choice((Side.CLIENT, Side.SERVER, None))
    aborter = dice.choice(list(Side)) if dice.random() < ABORTS else None
    parts = [_part(dice, waits=first not in {side, None}, aborts=aborter is side) for side in Side]
    return Conversation(number, *parts)


def _part(dice: random.Random, *, waits: bool, aborts: bool) -> Part:
    size = _size(dice)
    offset = dice.randrange(BLOCK_BYTES - size)
    if aborts:
        size = dice.randint(0, size)
    chunk = _between(dice, 512, 256 * KIB)
    read_pause, write_pause = _pause(dice), _pause(dice)
    return Part(offset, size, chunk, waits and not aborts, aborts, read_pause, write_pause)


def _size(dice: random.Random) -> int:
    share = dice.random()
    least, most = next((least, most) for up_to, least, most in _SIZES if share < up_to)
    return _between(dice, least, most)


def _between(dice: random.Random, least: int, most: int) -> int:
    if least == most:
        return least
    return min(most, int(math.exp(dice.uniform(math.log(least), math.log(most + 1)))))


def _pause(dice: random.Random) -> Pause | None:
    if dice.random() >= PAUSES:
        return None
    return Pause(_between(dice, 1, MIB) - 1, dice.uniform(0.001, LONGEST_PAUSE))
