"""The machine's interfaces, beside one another and over time, with a kernel that takes everything."""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from appliance.machine import network as module
from appliance.machine.dhcp_message import Lease, Route
from appliance.machine.netlink import Address, Link, NameServers, set_route
from appliance.machine.network import ANY4, METRIC, Card, Network
from appliance.machine.network_model import InterfaceTable, NetworkFile
from appliance.net.reactor import Reactor
from appliance.observe.log import make_log

ADDRESS = IPv4Interface("192.0.2.50/24")


class Kernel:
    """Takes every request."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.asked: list[bytes] = []

    def apply(self, message: bytes) -> None:
        """Note a request."""
        self.asked.append(message)


@dataclass
class Host:
    """A network, what it asked of the kernel, and what came of it."""

    network: Network
    kernel: Kernel
    log: int
    resolv_conf: Path
    changes: list[None] = field(default_factory=list)

    def card(self, index: int) -> Card:
        """Add an interface that does nothing by itself."""
        name = f"eth{index}"
        link = Link(
            index, name, f"52:54:00:00:00:{index:02x}", is_up=True, has_carrier=True, is_loopback=False
        )
        card = self.network.interfaces[index] = Card(link, InterfaceTable(), self.network)
        return card

    def events(self) -> list[str]:
        """Take the names of what was logged since."""
        self.network._log.flush()
        try:
            lines = os.read(self.log, 1 << 16).splitlines()
        except BlockingIOError:
            return []
        return [json.loads(line)["event"] for line in lines]


def fault(error: BaseException) -> None:
    """Nothing here may raise."""
    raise error


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host without interfaces."""
    kernel, path = Kernel(), tmp_path / "resolv.conf"
    monkeypatch.setattr(module, "Links", lambda: kernel)
    monkeypatch.setattr(module, "RESOLV_CONF", str(path))
    monkeypatch.setattr(socket, "sethostname", lambda _name: None)
    reading, writing = os.pipe2(os.O_NONBLOCK)
    reactor = Reactor(fault)
    changes: list[None] = []
    network = Network(reactor, make_log(writing, tty=False), NetworkFile(), lambda: changes.append(None))
    yield Host(network, kernel, reading, path, changes)
    reactor.close()
    os.close(reading)
    os.close(writing)


def test_routers_of_two_interfaces(host: Host) -> None:
    """Each interface's default route has a metric of its own: the second does not take the first's place."""
    for index in (2, 3):
        route = Route(ANY4, f"192.0.2.{index}")
        host.card(index)._bound(Lease(ADDRESS, "192.0.2.1", 100.0, 50.0, 80.0, (route,)))
    for index in (4, 5):
        host.card(index)._give(ADDRESS, f"192.0.2.{index}", ANY4)
    for index in (2, 3, 4, 5):
        assert set_route(index, ANY4, f"192.0.2.{index}", METRIC + index) in host.kernel.asked


def test_an_address_that_is_announced_again(host: Host) -> None:
    """Renewed, it is told once; gone and back, each time."""
    host.card(2)
    for _ in range(3):
        host.network._news(Address(2, ADDRESS))
    assert host.events() == ["address_added"]
    assert len(host.changes) == 1
    host.network._news(Address(2, ADDRESS, is_gone=True))
    host.network._news(Address(2, ADDRESS))
    assert host.events() == ["address_removed", "address_added"]


def test_name_servers_that_are_announced_again(host: Host) -> None:
    """The file is written when its text is another, not at each advertisement."""
    host.card(2)
    host.network._news(NameServers(2, ("2001:db8::1",), 600))
    assert host.resolv_conf.read_text() == "nameserver 2001:db8::1\n"
    host.resolv_conf.unlink()
    host.network._news(NameServers(2, ("2001:db8::1",), 600))
    assert not host.resolv_conf.exists()
    host.network._news(NameServers(2, ("2001:db8::2",), 600))
    assert host.resolv_conf.read_text() == "nameserver 2001:db8::2\n"
