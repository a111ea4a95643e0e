"""The swap device in RAM."""

import struct
import subprocess
from pathlib import Path

from appliance.machine.drivers import Drivers
from appliance.machine.swap import header, total
from tests.e2e import needs


def test_the_header_is_mkswaps(tmp_path: Path) -> None:
    """The first page is byte for byte what mkswap writes, but for the UUID."""
    image = tmp_path / "swap"
    image.write_bytes(bytes(1 << 20))
    subprocess.run([needs.program("mkswap"), "-p", "4096", str(image)], check=True, capture_output=True)
    wanted = bytearray(image.read_bytes()[:4096])
    wanted[1024 + 12 : 1024 + 28] = bytes(16)
    assert header(1 << 20, 4096) == bytes(wanted)
    assert struct.unpack_from("=II", header(1 << 20, 4096), 1024) == (1, 255)


def test_how_much_memory_there_is() -> None:
    """/proc/meminfo counts in KiB."""
    assert total("MemTotal:         77132 kB\nMemFree: 5 kB\n") == 77132 * 1024


def test_a_module_that_is_missing_is_no_fault() -> None:
    """An image without zram leaves it at that."""
    drivers = Drivers({})
    drivers.need("lzo_rle", "zram")
    assert drivers.failed == []
