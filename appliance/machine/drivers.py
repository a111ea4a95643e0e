"""Kernel modules: which ones this machine's devices ask for, and loading them in order.

What depmod(8) and udev(7) do elsewhere. The image lists its modules in one JSON file:
`{"modules": {"virtio_net": {"file": "…/virtio_net.ko", "deps": ["failover"], "aliases": ["virtio:d01v*"]}}}`.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import msgspec

from appliance.machine.syscalls import load_module
from appliance.net.reactor import IN, Reactor

LIST: Final = "/lib/modules/modules.json"
BUSES: Final = "/sys/bus"

_UEVENT: Final = 15
"""NETLINK_KOBJECT_UEVENT (linux/netlink.h)."""


class Module(msgspec.Struct, frozen=True):
    """One kernel module: its file, the modules it needs before it, the devices it is for."""

    file: str
    deps: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


Modules = dict[str, Module]


class _List(msgspec.Struct):
    modules: Modules


def read_list(path: str = LIST) -> Modules:
    """Read the image's list; one that is not there lists nothing. Raises OSError and msgspec.DecodeError."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=_List).modules
    except FileNotFoundError:
        return {}


class Drivers:
    """The modules of the image, and which are loaded."""

    def __init__(
        self, modules: Modules, done: Iterable[str] = (), load: Callable[[str], None] = load_module
    ) -> None:
        """`done` are those that are loaded."""
        self._modules = modules
        self._load = load
        self._done = set(done)
        self.failed: list[str] = []
        """A sentence for each module that the kernel did not take."""
        # A pattern costs a hundred times what its beginning does, which tells most apart: `pci:v00001AF4d…`.
        self._patterns = [
            (alias.split("*", 1)[0].split("[", 1)[0].split("?", 1)[0], alias, name)
            for name, module in modules.items()
            for alias in module.aliases
        ]

    def wanted(self, modaliases: Iterable[str]) -> list[str]:
        """Give the modules that these devices ask for and that are not loaded yet, each once."""
        names = [
            name
            for modalias in dict.fromkeys(modaliases)
            for begin, pattern, name in self._patterns
            if modalias.startswith(begin) and fnmatchcase(modalias, pattern)
        ]
        return [name for name in dict.fromkeys(names) if name not in self._done]

    def need(self, *names: str) -> None:
        """Load modules and what they need; a name that the image does not list is built in, or not wanted."""
        for name in names:
            if name in self._done or name not in self._modules:
                continue
            self._done.add(name)
            module = self._modules[name]
            self.need(*module.deps)
            try:
                self._load(module.file)
            except FileExistsError:
                continue
            except OSError as error:
                self.failed.append(f"kernel module {name} is not loaded: {error.strerror}")

    def settle(self, present: Callable[[], Iterable[str]]) -> None:
        """Load what the devices ask for, again while that makes new devices (virtio behind PCI)."""
        while names := self.wanted(present()):
            self.need(*names)


def loaded(path: str = "/proc/modules") -> list[str]:
    """Give the modules that are loaded."""
    return [line.split(" ", 1)[0] for line in Path(path).read_text(encoding="ascii").splitlines()]


def load_early() -> int:
    """Load what the devices ask for in a child, while this process imports the rest; its process id.

    With two processors that saves half a second of four; what fails is tried, and told, later.
    """
    pid = os.fork()
    if not pid:
        try:
            Drivers(read_list()).settle(modaliases)
        finally:
            os._exit(0)
    return pid


def modaliases(buses: str = BUSES) -> Iterator[str]:
    """Give the modalias of every device that sysfs shows."""
    for path in Path(buses).glob("*/devices/*/modalias"):
        try:
            yield path.read_text(encoding="ascii").strip()
        except OSError:  # gone meanwhile, or one that has none
            continue


class Arrivals:
    """Devices that come later, as the kernel announces them (NETLINK_KOBJECT_UEVENT)."""

    def __init__(
        self,
        drivers: Drivers,
        arrived: Callable[[], None],
        present: Callable[[], Iterable[str]] = modaliases,
    ) -> None:
        """`arrived` is called after each announcement; `present` is asked when some were lost."""
        self._drivers = drivers
        self._present = present
        self._arrived = arrived
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._source = socket.socket(socket.AF_NETLINK, kind, _UEVENT)
        self._source.bind((0, 1))

    def watch(self, reactor: Reactor) -> None:
        """Listen from here on."""
        reactor.watch(self._source.fileno(), IN, self)

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN is all it is watched for
        """Load what new devices ask for."""
        try:
            while True:
                if modalias := modalias_of(self._source.recv(1 << 14)):
                    self._drivers.need(*self._drivers.wanted([modalias]))
        except BlockingIOError:
            pass
        except OSError:  # ENOBUFS: more than room
            self._drivers.settle(self._present)
        self._arrived()

    def on_fault(self) -> None:
        """Nothing ends."""


def modalias_of(announcement: bytes) -> str | None:
    """Give the modalias of a device that was added."""
    head, *words = announcement.split(b"\0")
    if not head.startswith(b"add@"):
        return None
    found = (word.removeprefix(b"MODALIAS=") for word in words if word.startswith(b"MODALIAS="))
    return next((value.decode("ascii", "replace") for value in found), None)
