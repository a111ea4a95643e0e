"""The reason of a restart, kept on the PORTWAY partition: `crash.log`, one JSON object a line, the last ones.

It also says how often in a row, so that a machine which cannot live does not restart in a tight loop.
"""

from pathlib import Path
from typing import Final

import msgspec

NAME: Final = "crash.log"
MARK: Final = "restarted"
"""An empty file: the restart is not over until the gateway was ready for SETTLED, or somebody stopped it."""
UNKNOWN_PAUSE: Final = 10.0
"""Seconds before a restart where nothing tells how many there were."""
LARGEST: Final = 64 << 10
"""Bytes that are kept: the latest records that fit."""
SETTLED: Final = 600.0
"""Seconds: a machine that ran so long has started well; its next crash is the first one again."""
LONGEST_PAUSE: Final = 300.0


class Crash(msgspec.Struct, frozen=True, omit_defaults=True):
    """One crash. `time` is RFC 3339; `uptime` seconds; `attempt` counts crashes that followed one another."""

    time: str
    uptime: float
    reason: str
    attempt: int = 1
    version: str = ""
    lines: tuple[str, ...] = ()


def last(text: bytes) -> Crash | None:
    """Give the last record that can be read."""
    for line in reversed(text.splitlines()):
        try:
            return msgspec.json.decode(line, type=Crash)
        except (msgspec.DecodeError, UnicodeDecodeError):  # cut short by a power failure, or damaged
            continue
    return None


def attempt_after(before: Crash | None, uptime: float) -> int:
    """Say how many crashes in a row this one makes."""
    return 1 if before is None or uptime >= SETTLED else before.attempt + 1


def pause(attempt: int) -> float:
    """Say how many seconds to wait before the restart: 1, 2, 4 ... 300."""
    return min(2.0 ** min(attempt - 1, 16), LONGEST_PAUSE)


def appended(text: bytes, crash: Crash) -> bytes:
    """Give the file with one more record, and only as many old ones as fit."""
    lines = [*text.splitlines(keepends=True), msgspec.json.encode(crash) + b"\n"]
    if len(lines) > 1 and not lines[-2].endswith(b"\n"):
        lines[-2] += b"\n"
    size = 0
    kept: list[bytes] = []
    for line in reversed(lines):
        size += len(line)
        if kept and size > LARGEST:
            break
        kept.append(line)
    return b"".join(reversed(kept))


def was_short_of_memory(counters: Path = Path("/proc/vmstat")) -> bool:
    """Say whether the kernel has killed a process for its memory since it started (proc(5))."""
    try:
        lines = counters.read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    return any(line.startswith("oom_kill ") and not line.endswith(" 0") for line in lines)


def read(folder: Path) -> bytes:
    """Read the file; a missing or broken one is empty."""
    try:
        with (folder / NAME).open("rb") as file:
            return file.read(2 * LARGEST)
    except OSError:
        return b""
