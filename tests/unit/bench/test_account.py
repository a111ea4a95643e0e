"""CPU and memory accounting: the parsers, and what the kernel says of real processes."""

import subprocess
import sys

import pytest

from bench.account import (
    TICKS_PER_SECOND,
    Stat,
    cpu_seconds,
    descendants,
    descriptors,
    outside,
    parse_pss,
    parse_schedstat,
    parse_stat,
    parse_steal,
    user_bytes,
)

BURN = "import time\ndef burn():\n    while time.process_time() < 0.1: pass\n"
IN_A_CHILD = "import os, sys\nif os.fork() == 0:\n    burn()\n    os._exit(0)\nos.wait()\n"
REPORT = "import sys\nprint('burnt', flush=True)\nsys.stdin.read()\n"


def burnt(script: str) -> float:
    """Run a script that says when it has burnt its CPU and then waits; ask what it is charged with."""
    argv = [sys.executable, "-c", BURN + script + REPORT]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "burnt\n"
        seconds = cpu_seconds([process.pid])
        process.communicate()
    return seconds


def test_stat_is_read_past_any_name() -> None:
    """A process name with spaces and brackets shifts no field of /proc/PID/stat."""
    times = [7 * TICKS_PER_SECOND, 3 * TICKS_PER_SECOND, 2 * TICKS_PER_SECOND, TICKS_PER_SECOND]
    stat = parse_stat(f"42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 {' '.join(map(str, times))} 20 0 1 0")
    assert (stat.pid, stat.parent, stat.runnable, stat.own_s, stat.children_s) == (42, 7, False, 10.0, 3.0)


def test_a_process_that_waits_for_its_core_has_work() -> None:
    """State R is work still to do, whether it runs or others hold its core; it is not mistaken for rest."""
    assert parse_stat(f"42 (worker) R 7 {' '.join(['0'] * 20)}").runnable


def test_stolen_time_is_found_in_its_column() -> None:
    """Of the first line of /proc/stat the eighth number is what the hypervisor took."""
    assert parse_steal(f"cpu  1 2 3 4 5 6 7 {2 * TICKS_PER_SECOND} 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n") == 2.0


def test_what_we_started_is_no_disturbance() -> None:
    """The benchmark, its relays and their workers are ours; every other process, our parent too, is not."""
    stats = {
        pid: Stat(pid, parent, False, 0.0, 0.0) for pid, parent in {1: 0, 5: 1, 6: 5, 7: 6, 9: 1}.items()
    }
    assert [stat.pid for stat in outside(5, stats)] == [1, 9]


def test_schedstat_counts_run_time_only() -> None:
    """The time a task waited for a core, the second field, is not CPU it used."""
    assert parse_schedstat("1500000000 900000000 12\n") == 1.5


def test_pss_is_in_bytes() -> None:
    """The kernel's kB of proportional set size become bytes; no other line is mistaken for it."""
    assert parse_pss("Rss:  900 kB\nPss:  12 kB\nPss_Anon:  4 kB\n") == 12 * 1024


def test_pss_that_is_not_there_is_an_error() -> None:
    """A file without the line is refused instead of counted as zero."""
    with pytest.raises(ValueError, match="no Pss"):
        parse_pss("Rss:  900 kB\n")


def test_a_tree_holds_all_below_its_roots_and_nothing_else() -> None:
    """Workers and their children count with their master; processes of others, and ended roots, do not."""
    parents = {10: 1, 11: 10, 12: 11, 20: 1, 21: 20, 30: 1}
    assert sorted(descendants([10, 20, 99], parents)) == [10, 11, 12, 20, 21]


def test_cpu_of_a_living_process_is_counted() -> None:
    """A process that burnt 0.1 s by its own account is charged with at least that."""
    assert burnt("burn()\n") >= 0.1


def test_cpu_of_an_ended_child_is_counted() -> None:
    """What a forked child burnt before it ended and was waited for is its parent's (less two ticks)."""
    assert burnt(IN_A_CHILD) >= 0.1 - 2 / TICKS_PER_SECOND


def test_cpu_of_an_ended_thread_is_counted() -> None:
    """What a thread burnt before it ended is its process's (less two ticks)."""
    script = "import threading\nthread = threading.Thread(target=burn)\nthread.start()\nthread.join()\n"
    assert burnt(script) >= 0.1 - 2 / TICKS_PER_SECOND


def test_user_memory_counts_every_process() -> None:
    """A process and the child it forked have more than nothing, and together hold what both touched."""
    script = (
        "import os, sys, signal\n"
        "data = []\n"
        "pid = os.fork()\n"
        "data = bytearray(b'x' * 8_000_000)\n"
        "if pid == 0:\n    os.write(1, b'child\\n')\n    signal.pause()\n"
        "os.write(1, b'parent\\n')\n"
        "sys.stdin.read()\nos.kill(pid, signal.SIGKILL)\nos.wait()\n"
    )
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert {process.stdout.readline(), process.stdout.readline()} == {"child\n", "parent\n"}
        held = user_bytes([process.pid])
        process.communicate()
    assert held > 16_000_000


def test_descriptors_count_in_every_process() -> None:
    """What a process opened and its child has too counts twice: each has a limit of its own."""
    script = (
        "import os, sys\n"
        "held = [os.dup(0) for _ in range(100)]\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    os.write(1, b'child\\n')\n    sys.stdin.read()\n    os._exit(0)\n"
        "os.write(1, b'parent\\n')\n"
        "os.waitpid(pid, 0)\n"
    )
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert {process.stdout.readline(), process.stdout.readline()} == {"child\n", "parent\n"}
        opened = descriptors([process.pid])
        process.communicate()
    assert 200 + 2 * 3 <= opened < 250
