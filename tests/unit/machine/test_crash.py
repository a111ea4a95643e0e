"""The reason of a restart, as it is kept."""

import json
from pathlib import Path

from appliance.machine.crash import (
    LARGEST,
    Crash,
    appended,
    attempt_after,
    last,
    pause,
    read,
    was_short_of_memory,
)


def crash(number: int, lines: tuple[str, ...] = ()) -> Crash:
    """A crash, told apart by its number."""
    return Crash("2026-01-01T00:00:00Z", 12.5, f"reason {number}", number, "1.0", lines)


def test_the_last_one_is_found() -> None:
    """Records are lines of JSON, and the latest is read back."""
    text = appended(appended(b"", crash(1)), crash(2, ("a", "b")))
    assert [json.loads(line)["reason"] for line in text.splitlines()] == ["reason 1", "reason 2"]
    assert last(text) == crash(2, ("a", "b"))


def test_a_line_cut_short() -> None:
    """A record that a power failure cut is passed over, and does not spoil the next one."""
    text = appended(b"", crash(1))
    broken = text + text[:20]
    assert last(broken) == crash(1)
    assert last(appended(broken, crash(2))) == crash(2)
    assert last(b"") is None


def test_a_damaged_line() -> None:
    """A record with bytes that are no UTF-8 is passed over, too."""
    damaged = b'{"time":"\xff","uptime":1,"reason":"x"}\n'
    assert last(damaged) is None
    assert last(appended(b"", crash(1)) + damaged) == crash(1)


def test_the_file_does_not_grow() -> None:
    """Old records go when there is no more room; the newest stays even where it is too large itself."""
    text = b""
    for number in range(200):
        text = appended(text, crash(number, ("x" * 1000,)))
        assert len(text) <= LARGEST
    assert last(text) == crash(199, ("x" * 1000,))
    huge = crash(0, ("y" * LARGEST,))
    assert last(appended(text, huge)) == huge


def test_pauses_grow_while_crashes_follow_one_another() -> None:
    """1, 2, 4 ... 300 s; after ten minutes of life it begins anew."""
    attempts = [attempt_after(None, 5.0)]
    for _ in range(11):
        attempts.append(attempt_after(crash(attempts[-1]), 5.0))
    assert [pause(attempt) for attempt in attempts] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert attempt_after(crash(9), 601.0) == 1


def test_no_file(tmp_path: Path) -> None:
    """A missing file is an empty one."""
    assert read(tmp_path) == b""


def test_memory_that_ran_out(tmp_path: Path) -> None:
    """The kernel's own count of killed processes says so."""
    counters = tmp_path / "vmstat"
    assert not was_short_of_memory(counters)
    counters.write_text("pgfault 12\noom_kill 0\n")
    assert not was_short_of_memory(counters)
    counters.write_text("pgfault 12\noom_kill 2\nother 1\n")
    assert was_short_of_memory(counters)
