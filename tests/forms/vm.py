"""The form of a virtual machine: the disk image, started by BIOS."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.forms.form import Form
from tests.ports import free_for_both_families
from tests.vm.virtual_machine import HOST, VirtualMachine, disk_of, needed


class Vm(Form):
    """Each start is a machine of its own, with a copy of the image."""

    name = "vm"
    endpoint_host = HOST

    def __init__(self) -> None:
        self._ports: list[int] = []

    def needs(self) -> None:
        """Be built; have QEMU."""
        needed()

    def listen(self) -> str:
        """Give a port that is free on this host; `start` forwards it."""
        port = next(port for start in count() if (port := free_for_both_families(start)) not in self._ports)
        self._ports.append(port)
        return f"0.0.0.0:{port}"

    @contextmanager
    def start(self, rules: str) -> Iterator[VirtualMachine]:
        """Turn it on with rules.toml on its disk, and wait until it is ready and has its address."""
        ports, self._ports = self._ports, []
        with tempfile.TemporaryDirectory(prefix="portway-vm-") as name:
            disk = disk_of(Path(name), rules=rules)
            with VirtualMachine.start(Path(name), disks=[disk], ports=ports) as machine:
                machine.await_text('"event":"ready"')
                machine.await_text('"event":"lease_obtained"')
                yield machine

    def run(self, *words: str, stdin: str = "") -> None:
        """It has no command line."""
