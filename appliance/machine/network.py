"""The machine's network: each interface as network.toml says, and what follows for names and time."""

import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from random import Random
from typing import Final

from msgspec import UNSET

from appliance.machine import dhcp
from appliance.machine.dhcp_message import Lease
from appliance.machine.links import Links
from appliance.machine.mounts import RESOLV_CONF
from appliance.machine.netlink import (
    Address,
    Interface,
    Link,
    Message,
    NameServers,
    drop_address,
    set_address,
    set_route,
    set_up,
)
from appliance.machine.network_model import InterfaceTable, NetworkFile, for_interface
from appliance.machine.screen import InterfaceLine
from appliance.net.reactor import IN, Reactor
from appliance.observe.log import Log
from appliance.observe.names import Event

ANY4: Final = IPv4Interface("0.0.0.0/0")
ANY6: Final = IPv6Interface("::/0")
METRIC: Final = 100
"""Of our routes; an interface adds its index."""
_MOST_SERVERS: Final = 3
"""How many name servers the C library asks (resolv.conf(5), MAXNS)."""


class Network:
    """Every interface but the loopback."""

    def __init__(self, reactor: Reactor, log: Log, network: NetworkFile, changed: Callable[[], None]) -> None:
        """`changed` is called after addresses, name or time servers have changed."""
        self.reactor = reactor
        self._log = log
        self._file = network
        self._changed = changed
        self.links = Links()
        self.interfaces: dict[int, Card] = {}
        self.host_name = "" if network.hostname is UNSET else str(network.hostname)
        self._has_own_name = bool(self.host_name)
        self.domain = ""
        self._told: set[tuple[int, str]] = set()
        self._resolv_conf = ""

    def start(self) -> None:
        """Bring up what is there, and what comes later. Raises OSError where the kernel has no rtnetlink."""
        self.links.watch(self.reactor, self._news)
        self.links.look()
        for link in sorted(self.links.links.values(), key=lambda each: each.name):
            self._meet(link)

    def _meet(self, link: Link) -> None:
        if link.is_loopback:
            self.attempt(set_up(link.index), link.name)
        elif link.index not in self.interfaces and len(bytes.fromhex(link.mac.replace(":", ""))) == 6:  # noqa: PLR2004  the format's own
            table = for_interface(self._file, link.name, link.mac)
            card = self.interfaces[link.index] = Card(link, table, self)
            card.start()

    def _news(self, message: Message) -> None:
        match message:
            case Link(index=index, is_gone=True):
                if card := self.interfaces.pop(index, None):
                    card.stop()
                    self.settle()
            case Link():
                self._meet(message)
            case Address(index=index, interface=interface, is_gone=gone):
                if index in self.interfaces and not message.is_tentative:
                    self._tell(index, str(interface), is_gone=gone)
            case NameServers(index=index, servers=servers, lifetime=lifetime):
                if card := self.interfaces.get(index):
                    card.advertised = servers if lifetime else ()
                    self.settle()
            case _:
                pass

    def _tell(self, index: int, address: str, *, is_gone: bool) -> None:
        """Report an address that came or went; the kernel announces it again whenever its life is renewed."""
        if not is_gone and (index, address) in self._told:
            return
        (self._told.discard if is_gone else self._told.add)((index, address))
        event = Event.ADDRESS_REMOVED if is_gone else Event.ADDRESS_ADDED
        self._log.info(event, interface=self.interfaces[index].link.name, address=address)
        self._changed()

    def attempt(self, message: bytes, about: str) -> bool:
        """Have something changed, or report that the kernel refuses."""
        try:
            self.links.apply(message)
        except OSError as error:
            self.warn(f"{about}: the kernel refuses a setting", error)
            return False
        return True

    def warn(self, message: str, error: OSError) -> None:
        """Report what the kernel refuses."""
        self._log.warning(Event.WARNING, message=message, error=error.strerror or str(error))

    def leased(self, name: str, lease: Lease) -> None:
        """Report a lease that is new, or says something new."""
        seconds = {} if lease.seconds is None else {"lease_ms": lease.seconds * 1000}
        self._log.info(
            Event.LEASE_OBTAINED, interface=name, address=str(lease.address), server=lease.server, **seconds
        )

    def lease_lost(self, name: str, lease: Lease) -> None:
        """Report a lease that is over."""
        self._log.warning(Event.LEASE_LOST, interface=name, address=str(lease.address), server=lease.server)

    # -- what cards say -------------------------------------------------------------------------------

    def settle(self) -> None:
        """Write down name servers and the host's name as they are now."""
        cards = self.interfaces.values()
        if not self._has_own_name:
            names = [card.lease.host_name for card in cards if card.lease and card.lease.host_name]
            self.host_name = names[0] if names else ""
        self.domain = next((card.lease.domain for card in cards if card.lease and card.lease.domain), "")
        with suppress(OSError):
            socket.sethostname(self.host_name or "portway")
        self._write_resolv_conf()
        self._changed()

    def _write_resolv_conf(self) -> None:
        text = resolv_conf(list(self.name_servers), self.domain)
        if text == self._resolv_conf:
            return
        with suppress(OSError):
            Path(RESOLV_CONF).write_text(text, encoding="ascii")
            self._resolv_conf = text

    @property
    def time_servers(self) -> tuple[str, ...]:
        """Give the time servers: those of network.toml, or where it has none, those of DHCP."""
        own = [server for card in self.interfaces.values() for server in card.table.ntp]
        leased = [server for card in self.interfaces.values() if card.lease for server in card.lease.ntp]
        return tuple(dict.fromkeys(own or leased))

    @property
    def name_servers(self) -> tuple[str, ...]:
        """Give the name servers, each once."""
        return tuple(
            dict.fromkeys(server for card in self.interfaces.values() for server in card.name_servers)
        )

    def shown(self) -> list[InterfaceLine]:
        """Give the interfaces as the screen shows them."""
        return [
            self._shown(card) for card in sorted(self.interfaces.values(), key=lambda each: each.link.name)
        ]

    def _shown(self, card: "Card") -> InterfaceLine:
        index = card.link.index
        addresses = [str(each.interface) for each in self.links.of(index) if not each.is_tentative]
        how = [f"DHCP from {card.lease.server}"] if card.lease else []
        how += ["asking DHCP"] if card.table.ipv4 == "dhcp" and not card.lease else []
        link = self.links.links.get(index, card.link)
        return InterfaceLine(card.link.name, addresses, ", ".join(how), link.has_carrier)

    @property
    def is_up(self) -> bool:
        """Whether an interface has an address that is of use to others."""
        return any(self.links.of(index) for index in self.interfaces)


class Card:
    """One interface."""

    def __init__(self, link: Link, table: InterfaceTable, network: Network) -> None:
        self.link = link
        self.table = table
        self._network = network
        self._port: _Port68 | None = None
        self.lease: Lease | None = None
        self.advertised: tuple[str, ...] = ()

    @property
    def name_servers(self) -> tuple[str, ...]:
        """Give its name servers: those of network.toml, of DHCP, of routers."""
        return (*self.table.dns, *(self.lease.name_servers if self.lease else ()), *self.advertised)

    def start(self) -> None:
        """Set it up."""
        self._choose_ipv6()
        mtu = None if self.table.mtu is UNSET else self.table.mtu
        if not self._apply(set_up(self.link.index, mtu)):
            return
        if static := self.table.ipv4.static:
            gateway = None if self.table.gateway4 is UNSET else str(self.table.gateway4)
            self._give(static, gateway, ANY4)
        elif self.table.ipv4 == "dhcp":
            self._ask_dhcp()
        if static6 := self.table.ipv6.static:
            gateway = None if self.table.gateway6 is UNSET else str(self.table.gateway6)
            self._give(static6, gateway, ANY6)
        self._network.settle()

    def stop(self) -> None:
        """Let go of it: the kernel has taken it away."""
        if self._port:
            self._port.close()

    def _choose_ipv6(self) -> None:
        """Tell the kernel how to find IPv6 addresses, before the interface is up and it begins."""
        way, has_gateway = self.table.ipv6, self.table.gateway6 is not UNSET
        settings = {
            "disable_ipv6": way == "off",
            "accept_ra": not has_gateway,
            "autoconf": way == "auto",
        }
        for name, value in settings.items():
            path = Path("/proc/sys/net/ipv6/conf", self.link.name, name)
            try:
                path.write_text(str(int(value)), encoding="ascii")
            except OSError as error:
                self._network.warn(f"{self.link.name}: IPv6 cannot be set up", error)
                return

    def _give(self, address: Interface, gateway: str | None, everywhere: Interface) -> None:
        self._apply(set_address(self.link.index, address))
        if gateway:
            self._apply(set_route(self.link.index, everywhere, gateway, self._metric))

    @property
    def _metric(self) -> int:
        """Its routes' own: one of the same network and metric would take the place of another interface's."""
        return METRIC + self.link.index

    def _apply(self, message: bytes) -> bool:
        return self._network.attempt(message, self.link.name)

    # -- DHCP -----------------------------------------------------------------------------------------

    def _ask_dhcp(self) -> None:
        try:
            self._port = _Port68(self.link, self._network, self._bound, self._lost)
        except OSError as error:
            self._network.warn(f"{self.link.name}: no DHCP", error)

    def _bound(self, lease: Lease) -> None:
        is_new = self.lease is None or self.lease != lease
        self.lease = lease
        if not is_new:
            return
        index = self.link.index
        if lease.mtu and self.table.mtu is UNSET:
            self._apply(set_up(index, lease.mtu))
        self._apply(set_address(index, lease.address))
        # Those of the link first: a gateway may be reached through one of them.
        for route in sorted(lease.routes, key=lambda each: each.gateway is not None):
            self._apply(set_route(index, route.destination, route.gateway, self._metric))
        self._network.leased(self.link.name, lease)
        self._network.settle()

    def _lost(self, lease: Lease) -> None:
        self.lease = None
        self._apply(drop_address(self.link.index, lease.address))
        self._network.lease_lost(self.link.name, lease)
        self._network.settle()


class _Port68:
    """The DHCP client's socket on one interface, on the loop."""

    def __init__(
        self, link: Link, network: Network, bound: Callable[[Lease], None], lost: Callable[[Lease], None]
    ) -> None:
        self._reactor = network.reactor
        self._socket = _open_port68(link.name)
        self._armed = -1.0
        mac = bytes.fromhex(link.mac.replace(":", ""))
        actions = dhcp.Actions(self._send, bound, lost)
        self._client = dhcp.Client(mac, actions, Random(), network.host_name)  # noqa: S311  against collisions
        self._reactor.watch(self._socket.fileno(), IN, self)
        self._client.start(self._reactor.now)
        self._arm()

    def _send(self, message: bytes, to: str) -> None:
        with suppress(OSError):  # ENETDOWN, no carrier yet: it is sent again
            self._socket.sendto(message, (to, dhcp.SERVER_PORT))

    def on_event(self, events: int) -> None:  # noqa: ARG002  IN, or an error that recv gives
        """Take what came."""
        try:
            data = self._socket.recv(4096)
        except OSError:
            return
        self._client.take(data, self._reactor.now)
        self._arm()

    def on_deadline(self, now: float) -> None:
        """Do what is due; a deadline that has moved meanwhile is not."""
        if now >= self._client.due:
            self._client.tick(now)
        self._arm()

    def _arm(self) -> None:
        due = self._client.due
        if due != self._armed and due != float("inf"):
            self._reactor.arm(due, self)
        self._armed = due

    def on_fault(self) -> None:
        """Nothing ends: what broke it was one message."""

    def close(self) -> None:
        """End."""
        self._armed = self._client.due = float("inf")
        self._reactor.forget(self._socket.fileno(), self._socket.close)


def _open_port68(name: str) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        # Without an address there is no route: the interface says where a broadcast goes.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
        opened.bind(("0.0.0.0", dhcp.CLIENT_PORT))
    except OSError:
        opened.close()
        raise
    return opened


def resolv_conf(servers: list[str], domain: str) -> str:
    """Write /etc/resolv.conf (resolv.conf(5))."""
    lines = [f"search {domain}"] if domain else []
    lines += [f"nameserver {server}" for server in list(dict.fromkeys(servers))[:_MOST_SERVERS]]
    return "".join(f"{line}\n" for line in lines)
