"""Which modules devices ask for, and in which order they are loaded."""

import errno
from pathlib import Path
from typing import Any

from appliance.machine.drivers import Arrivals, Drivers, Module, Modules, modalias_of, read_list
from appliance.net.reactor import IN

MODULES: Modules = {
    "virtio_pci": Module("virtio_pci.ko", ("virtio_ring", "virtio"), ("pci:v00001AF4d*sv*sd*bc*sc*i*",)),
    "virtio": Module("virtio.ko"),
    "virtio_ring": Module("virtio_ring.ko", ("virtio",)),
    "virtio_net": Module("virtio_net.ko", ("failover", "virtio"), ("virtio:d00000001v*",)),
    "failover": Module("failover.ko"),
    "button": Module("button.ko", (), ("acpi*:PNP0C0C:*", "acpi*:LNXPWRBN:*")),
}


class Kernel:
    """Takes modules, in order, each once its needs are met."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load(self, file: str) -> None:
        """Note a module."""
        name = file.removesuffix(".ko")
        assert set(MODULES[name].deps) <= set(self.loaded)
        self.loaded.append(name)


def test_needs_come_first_and_everything_once() -> None:
    """A module's needs are loaded before it, whatever their order in the list, and never twice."""
    kernel = Kernel()
    drivers = Drivers(MODULES, load=kernel.load)
    drivers.need("virtio_pci", "virtio_net", "virtio_pci", "not_listed")
    assert kernel.loaded == ["virtio", "virtio_ring", "virtio_pci", "failover", "virtio_net"]


def test_devices_behind_devices() -> None:
    """Devices that appear with a driver get theirs too; one that no module is for is let be."""
    kernel = Kernel()

    def present() -> list[str]:
        devices = [
            "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00",
            "pci:v00008086d000029C0sv*",
            "acpi:PNP0C0C:",
        ]
        return [*devices, "virtio:d00000001v00001AF4"] if "virtio_pci" in kernel.loaded else devices

    drivers = Drivers(MODULES, load=kernel.load)
    drivers.settle(present)
    assert kernel.loaded == ["virtio", "virtio_ring", "virtio_pci", "button", "failover", "virtio_net"]


def test_what_the_kernel_refuses_is_told_and_not_tried_again() -> None:
    """A module that does not load is a sentence; one that is there already is none."""
    tried = []

    def load(file: str) -> None:
        tried.append(file)
        raise FileExistsError if file == "failover.ko" else OSError(errno.ENOEXEC, "Exec format error")

    drivers = Drivers(MODULES, done=["virtio"], load=load)
    drivers.need("virtio_net")
    drivers.need("virtio_net")
    assert tried == ["failover.ko", "virtio_net.ko"]
    assert drivers.failed == ["kernel module virtio_net is not loaded: Exec format error"]


def test_the_list_of_the_image(tmp_path: Path) -> None:
    """The list is JSON; an image without one has no modules."""
    path = tmp_path / "modules.json"
    assert read_list(str(path)) == {}
    path.write_text('{"version":"6.1","modules":{"a":{"file":"/a.ko","deps":["b"],"aliases":["pci:*"]}}}')
    assert read_list(str(path)) == {"a": Module("/a.ko", ("b",), ("pci:*",))}


def test_announcements() -> None:
    """Only a device that was added, and has a modalias, asks for a driver."""
    words = b"\0ACTION=add\0MODALIAS=virtio:d00000002v00001AF4\0SEQNUM=7\0"
    assert modalias_of(b"add@/devices/x" + words) == "virtio:d00000002v00001AF4"
    assert modalias_of(b"remove@/devices/x" + words) is None
    assert modalias_of(b"add@/devices/x\0ACTION=add\0") is None


class _Lost:
    """A socket that has lost announcements."""

    def recv(self, _size: int) -> bytes:
        """Say so."""
        raise OSError(errno.ENOBUFS, "No buffer space available")


def test_lost_announcements() -> None:
    """Where the kernel had to drop announcements, every device is looked at again."""
    kernel = Kernel()
    arrivals = Arrivals.__new__(Arrivals)
    arrivals._drivers = Drivers(MODULES, load=kernel.load)
    source: Any = _Lost()
    arrivals._source = source
    arrivals._present = lambda: ["acpi:PNP0C0C:"]
    arrivals._arrived = lambda: None
    arrivals.on_event(IN)
    assert kernel.loaded == ["button"]
