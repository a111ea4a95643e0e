"""A virtual machine under test: QEMU without hardware help, its serial console in a file, its buttons by QMP.

    with VirtualMachine.start(folder, firmware=Firmware.UEFI, disks=[disk], ports=[port]) as machine:
        machine.await_text("healthy")
        machine.ask_to_stop()
        assert machine.wait() == 0

The machine's network is QEMU's own (slirp): it gets 10.0.2.15 by DHCP, reaches this host as 10.0.2.2, and
what comes to a port of 127.0.0.1 in `ports` goes to the same port of the machine, TCP and UDP.
"""

import json
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Self

import pytest

from tests.e2e import needs
from tests.e2e.gateway import wait_for
from tests.forms.form import Running

DIST = Path(__file__).parent.parent.parent / "dist"
RAW = DIST / "portway.raw"
HOST = "10.0.2.2"
"""This host, as the machine reaches it."""
BOOT_PATIENCE = 60.0
"""Seconds that anything of a boot may take: one takes 5 to 12 on an idle machine."""
ROOM = 72 << 20
"""Bytes of a disk that has room for both slots."""
_OVMF = Path("/usr/share/OVMF")


class Firmware(Enum):
    """What starts the kernel."""

    BIOS = "bios"
    UEFI = "uefi"
    NONE = "direct"
    """QEMU itself loads kernel and initramfs."""


def needed() -> None:
    """Have the image and what starts it."""
    if platform.machine() != "x86_64":
        pytest.skip("the disk image is for x86_64")
    for program in ("qemu-system-x86_64", "qemu-img", "mcopy"):
        needs.program(program)
    if not _OVMF.exists():
        needs.lack("ovmf is not installed")
    if not RAW.exists():
        needs.lack("dist/portway.raw is not built (`make vm`)")


def disk_of(folder: Path, *, image: Path = RAW, size: int = 0, **files: str) -> Path:
    """Copy an image, with other files in its PORTWAY partition: `rules` is rules.toml, and so on."""
    disk = folder / f"{image.stem}-{len(list(folder.iterdir()))}.raw"
    shutil.copy(image, disk)
    if size:
        with disk.open("r+b") as file:
            file.truncate(size)
    for name, text in files.items():
        put(disk, f"{name}.toml", text)
    return disk


def put(disk: Path, name: str, text: str) -> None:
    """Write a file of the PORTWAY partition, as the README says."""
    subprocess.run(["mcopy", "-o", "-i", f"{disk}@@1M", "-", f"::{name}"], input=text.encode(), check=True)


def get(disk: Path, name: str) -> str:
    """Read a file of the PORTWAY partition."""
    command = ["mtype", "-i", f"{disk}@@1M", f"::{name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class VirtualMachine(Running):
    """A machine that was started."""

    def __init__(self, process: "subprocess.Popen[bytes]", console: Path, control: Path) -> None:
        self.process = process
        self._console = console
        self._control = control

    @classmethod
    @contextmanager
    def start(
        cls,
        folder: Path,
        *,
        firmware: Firmware = Firmware.BIOS,
        memory: int = 128,
        disks: Sequence[Path] = (),
        ports: Sequence[int] = (),
        arguments: str = "",
    ) -> Iterator[Self]:
        """Turn it on. `arguments`: further words of the kernel's command line, where there is no firmware."""
        console, control = folder / "console", folder / "control"
        command = _command(folder, firmware, memory, arguments)
        for number, disk in enumerate(disks):
            command += ["-drive", f"if=none,id=d{number},format=raw,file={disk}"]
            order = "" if firmware is Firmware.NONE else f",bootindex={number}"
            command += ["-device", f"virtio-blk-pci,drive=d{number}{order}"]
        forwarded = [
            f"hostfwd={kind}:127.0.0.1:{port}-:{port}"
            for port in sorted(set(ports))
            for kind in ("tcp", "udp")
        ]
        command += ["-nic", ",".join(["user,model=virtio-net-pci", *forwarded])]
        command += ["-serial", f"file:{console}", "-qmp", f"unix:{control},server=on,wait=off"]
        console.write_bytes(b"")
        with (folder / "qemu").open("wb") as complaints:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=complaints)
        machine = cls(process, console, control)
        try:
            yield machine
        finally:
            process.kill()
            process.wait()

    # -- what it shows --------------------------------------------------------------------------------

    def log(self) -> str:
        """Give what the serial console showed so far."""
        return self._console.read_text(errors="replace").replace("\r\n", "\n")

    def await_text(self, text: str, count: int = 1, timeout: float = BOOT_PATIENCE) -> None:
        """Wait until the console has shown a text so often."""

        def there() -> bool:
            shown = self.log()
            if shown.count(text) >= count:
                return True
            assert self.is_running(), f"it went off without {text!r}: {shown[-3000:]}"
            return False

        try:
            wait_for(f"{count} x {text!r}", there, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; the console: {self.log()[-3000:]}") from None

    # -- what is done to it ---------------------------------------------------------------------------

    def is_running(self) -> bool:
        """Say whether it is on."""
        return self.process.poll() is None

    def ask_to_stop(self) -> None:
        """Press the power button."""
        self.order("system_powerdown")

    def press(self, *keys: str) -> None:
        """Press keys of the keyboard together."""
        self.order("send-key", keys=[{"type": "qcode", "data": key} for key in keys])

    def wait(self, timeout: float = BOOT_PATIENCE) -> int:
        """Wait until it is off."""
        return self.process.wait(timeout)

    def order(self, name: str, **arguments: object) -> Mapping[str, object]:
        """Give QEMU an order (QMP) and wait for its answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(BOOT_PATIENCE)
            connection.connect(str(self._control))
            with connection.makefile("rw") as lines:
                lines.readline()
                answer: dict[str, object] = {}
                for execute, given in (("qmp_capabilities", {}), (name, arguments)):
                    lines.write(json.dumps({"execute": execute, "arguments": given}) + "\n")
                    lines.flush()
                    answer = _answer(json.loads(line) for line in lines)
                return answer


def _answer(messages: Iterator[dict[str, object]]) -> dict[str, object]:
    """Pass events over."""
    answer = next(message for message in messages if "event" not in message)
    assert "error" not in answer, answer
    return answer


def _command(folder: Path, firmware: Firmware, memory: int, arguments: str) -> list[str]:
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]
    command += ["-smp", "2", "-m", str(memory), "-display", "none", "-monitor", "none"]
    if firmware is Firmware.UEFI:
        shutil.copy(_OVMF / "OVMF_VARS_4M.fd", folder / "vars")
        for options in (f"readonly=on,file={_OVMF}/OVMF_CODE_4M.fd", f"file={folder}/vars"):
            command += ["-drive", f"if=pflash,format=raw,{options}"]
    if firmware is Firmware.NONE:
        line = f"{arguments} {(DIST / 'vm/cmdline').read_text().strip()}"
        command += ["-kernel", f"{DIST}/vm/vmlinuz", "-initrd", f"{DIST}/vm/initrd", "-append", line]
    return command
