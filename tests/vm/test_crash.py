"""A gateway that is killed: the machine restarts, and keeps the reason."""

from pathlib import Path

from tests.vm.virtual_machine import VirtualMachine, disk_of, get, put


def test_the_reason_is_kept(tmp_path: Path) -> None:
    """Every process but PID 1 killed, by the kernel's key for that: it restarts, and says why, also after."""
    disk = disk_of(tmp_path)
    # Only the test's copy of the disk lets the keyboard do that.
    put(
        disk,
        "grub/grub.cfg",
        get(disk, "grub/grub.cfg").replace('set words="', 'set words="sysrq_always_enabled '),
    )
    with VirtualMachine.start(tmp_path, disks=[disk]) as machine:
        machine.await_text('"event":"ready"')
        machine.press("alt", "sysrq", "i")
        machine.await_text('"signal":"SIGKILL"')
        machine.await_text('"event":"ready"', 2)
        machine.await_text("restarted after: the gateway ended: signal SIGKILL")
        assert machine.stop() == 0
    assert "the gateway ended: signal SIGKILL" in get(disk, "crash.log")
