"""Memory that is not in use, compressed: a swap device in RAM (zram), where the machine has little of it.

The image lies in RAM, and so do three interpreters; most of both is never looked at again. Without this, a
machine of 112 MB killed its gateway seconds after the start. There, 13.6 MB go into 7.4.
"""

import mmap
import struct
from pathlib import Path
from typing import Final

from appliance.machine.drivers import Drivers
from appliance.machine.syscalls import swap_on

SMALL: Final = 224 << 20
"""Bytes of memory, below which it is worth it: with 256 MB nothing is ever short."""

DEVICE: Final = "/dev/zram0"
SIZE: Final = Path("/sys/block/zram0/disksize")


def header(size: int, page: int) -> bytes:
    """Write the first page of a swap device of so many bytes, as mkswap(8) does (linux/swap.h)."""
    last = size // page - 1
    return (bytes(1024) + struct.pack("=III", 1, last, 0)).ljust(page - 10, b"\0") + b"SWAPSPACE2"


def total(text: str) -> int:
    """Read MemTotal, in bytes, from /proc/meminfo."""
    line = next(line for line in text.splitlines() if line.startswith("MemTotal:"))
    return int(line.split()[1]) << 10


def start(drivers: Drivers) -> str | None:
    """Make the device, as large as the memory, where that is small; a sentence where it cannot be."""
    memory = total(Path("/proc/meminfo").read_text(encoding="ascii"))
    if memory >= SMALL:
        return None
    drivers.need("lzo_rle", "zram")
    size = memory - memory % mmap.PAGESIZE
    try:
        SIZE.write_text(str(size), encoding="ascii")
        with Path(DEVICE).open("r+b", buffering=0) as device:
            device.write(header(size, mmap.PAGESIZE))
        swap_on(DEVICE)
    except OSError as error:
        return f"memory is short ({memory >> 20} MiB) and cannot be compressed: {error.strerror or error}"
    return None
