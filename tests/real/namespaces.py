"""Hosts of our own: network namespaces, joined by cables, gone when the test is over."""

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import needs
from tests.real.programs import find, run, succeeds

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Host:
    """A network namespace."""

    name: str

    @property
    def wrap(self) -> tuple[str, ...]:
        """Give the words to begin a command with that shall run there."""
        return (find("ip"), "netns", "exec", self.name)

    def command(self, *words: str) -> list[str]:
        """Give a command that runs there; its process is the program itself."""
        return [*self.wrap, *words]

    def run(self, *words: str) -> bytes:
        """Run a program there to its end."""
        return run(self.command(*words))

    def ip(self, *words: str) -> None:
        """Set up its network."""
        run([find("ip"), "-n", self.name, *words])

    def succeeds(self, *words: str) -> bool:
        """Whether a program that asks whether something is ready says yes."""
        return succeeds(self.command(*words))


@contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    """Make hosts that nothing connects yet; take them away again."""
    needs.root()
    ip = find("ip")
    with ExitStack() as stack:
        made = []
        for name in names:
            host = Host(f"portway-{os.getpid()}-{next(_numbers)}-{name}")
            if not succeeds([ip, "netns", "add", host.name]):
                needs.lack("this machine cannot make network namespaces")
            stack.callback(run, [ip, "netns", "delete", host.name])
            host.ip("link", "set", "lo", "up")
            made.append(host)
        yield made


def join(one: Host, other: Host, network: str) -> None:
    """Lay a cable: `one` is number 1 of the network (such as 198.18.1), `other` 2."""
    device = device_of(network)
    ends = ["netns", one.name, "type", "veth", "peer", device, "netns", other.name]
    run([find("ip"), "link", "add", device, *ends])
    for host, number in ((one, 1), (other, 2)):
        host.ip("address", "add", f"{network}.{number}/24", "dev", device)
        host.ip("link", "set", device, "up")


def device_of(network: str) -> str:
    """Give the name of each of its cable's ends."""
    return f"net-{network.rpartition('.')[2]}"


def tunnel_device() -> None:
    """Have what programs make network devices with."""
    if not Path("/dev/net/tun").exists():
        needs.lack("there is no /dev/net/tun")
