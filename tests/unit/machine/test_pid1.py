"""What PID 1 decides: when a trial is well, what a fault ends in, how the machine goes down."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.machine import grubenv, pid1, upgrade
from appliance.machine.config import LAST_GOOD, RULES, Place
from appliance.machine.disks import ConfigDisk
from appliance.machine.pid1 import Machine
from appliance.machine.rules import candidates
from appliance.machine.screen import InterfaceLine
from appliance.machine.syscalls import Restart

GOOD = b'[[rule]]\nname = "web"\nlisten = ":8080"\nto = "10.0.0.5:80"\n'
ON_TRIAL = "portway.disk=0x1 portway.slot=b portway.trial -- machine"


class Wired:
    """A network whose interface has an address."""

    host_name = ""
    time_servers = name_servers = ()

    def shown(self) -> list[InterfaceLine]:
        """Give the one interface."""
        return [InterfaceLine("eth0", ["192.0.2.1/24"], "", has_carrier=True)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine on trial that has come up well, with an empty PORTWAY partition."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    device = os.open(os.devnull, os.O_WRONLY)
    monkeypatch.setattr(pid1, "open_pipe", lambda _uid, _gid: (reading, writing))
    monkeypatch.setattr(pid1, "open_device", lambda: device)
    monkeypatch.setattr(pid1, "on_failure", lambda _keep: None)
    made = Machine(lambda *_: 0, str, 0)
    made._command_line = ON_TRIAL
    made._storage.disk = ConfigDisk("/dev/vda1", tmp_path)
    made._network = Wired()  # type: ignore[assignment]
    made._is_healthy = True
    yield made
    made._reactor.close()
    for fd in (reading, writing, device):
        os.close(fd)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whenever the slot is kept."""
    calls: list[str] = []

    def keep(command_line: str, _disk: ConfigDisk | None) -> list[str]:
        calls.append(command_line)
        return []

    monkeypatch.setattr(upgrade, "keep", keep)
    return calls


def run_last(machine: Machine, folder: Path) -> None:
    """Have the machine run the last of the rules that it may try: the built-in ones."""
    *_, machine._candidate = candidates([Place("PORTWAY", folder)], folder, str, [])


def test_a_trial_without_rules_is_kept(machine: Machine, kept: list[str], tmp_path: Path) -> None:
    """Where the operator has no rules, the built-in ones are what is to run; it is kept once."""
    run_last(machine, tmp_path)
    machine._keep_slot()
    machine._keep_slot()
    assert kept == [ON_TRIAL]


@pytest.mark.parametrize("name", [RULES, LAST_GOOD])
def test_a_trial_that_refuses_the_rules(machine: Machine, kept: list[str], tmp_path: Path, name: str) -> None:
    """A version that runs the built-in rules in the place of the operator's is not well, and not kept."""
    (tmp_path / name).write_bytes(GOOD)
    run_last(machine, tmp_path)
    machine._keep_slot()
    assert kept == []


def test_a_trial_that_does_not_find_the_disk(machine: Machine, tmp_path: Path) -> None:
    """It has not seen whether there are rules: it is not well when its time is over."""
    run_last(machine, tmp_path)
    machine._storage.disk = None
    machine._keep_slot()
    machine._end_trial()
    assert machine._down is Restart.AUTOBOOT


def test_keeping_is_tried_again(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot is kept when that is on the disk, not before; what is in the way is told once."""
    run_last(machine, tmp_path)

    def refuse(_line: str, _disk: ConfigDisk | None) -> list[str]:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(upgrade, "keep", refuse)
        machine._keep_slot()
        machine._keep_slot()
    assert machine._problems == ["keeping the new slot: Input/output error"]
    assert not machine._is_kept
    monkeypatch.setattr(upgrade, "keep", lambda _line, _disk: [])
    machine._keep_slot()
    assert machine._is_kept


def test_a_fault_after_the_gateways_end(machine: Machine) -> None:
    """A fault before anything was decided still restarts the machine: nothing else would."""
    machine._report_fault(RuntimeError("a bug"))
    assert machine._down is Restart.AUTOBOOT
    assert machine._reactor.timers.due <= machine._reactor.now + 11


def test_a_fault_beside_the_gateway(machine: Machine) -> None:
    """A fault while a gateway runs ends nothing."""
    machine._gateway = 1
    machine._report_fault(RuntimeError("a bug"))
    assert machine._down is None


@pytest.mark.parametrize(
    ("first", "then", "how"),
    [
        (Restart.AUTOBOOT, Restart.POWER_OFF, Restart.POWER_OFF),
        (Restart.POWER_OFF, Restart.AUTOBOOT, Restart.POWER_OFF),
        (Restart.AUTOBOOT, Restart.AUTOBOOT, Restart.AUTOBOOT),
    ],
)
def test_off_is_off(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, first: Restart, then: Restart, how: Restart
) -> None:
    """The power button turns the machine off, also in the pause before a restart."""
    went: list[Restart] = []
    monkeypatch.setattr(pid1, "go_down", lambda how, _before: went.append(how))
    machine._down = first
    machine._go_down(then, "power button")
    assert went == [how]


def test_a_grubenv_without_room(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be entered is told, and the machine goes on without the upgrade."""

    def offer(_line: str, _disk: ConfigDisk | None) -> upgrade.Outcome:
        grubenv.render({"x": "y" * grubenv.SIZE})
        return upgrade.Outcome()

    monkeypatch.setattr(upgrade, "offer", offer)
    machine._offer()
    assert "do not fit into a GRUB environment block" in machine._problems[0]
