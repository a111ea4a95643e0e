"""The VM's network on a host of our own: addresses from dnsmasq, and as network.toml says."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.observe.names import deviations
from tests.real.namespaces import Host, device_of, hosts, join
from tests.real.programs import find

NETWORK = "198.18.5"
DEVICE = device_of(NETWORK)
WITHIN = 30.0
T1 = 60.0
"""Half of the shortest lease that dnsmasq gives."""


@dataclass
class Machine:
    """A host whose network the VM's PID 1 looks after."""

    host: Host
    process: subprocess.Popen[bytes]
    output: Path

    def records(self, event: str) -> list[dict[str, object]]:
        """Give the records of an event so far."""
        found = [
            json.loads(line)
            for line in self.output.read_bytes().splitlines(keepends=True)
            if line[-1:] == b"\n"
        ]
        assert [deviations(record) for record in found if deviations(record)] == []
        return [record for record in found if record["event"] == event]

    def awaits(self, event: str, count: int = 1) -> dict[str, object]:
        """Wait for the nth record of an event."""
        until = time.monotonic() + WITHIN
        while len(found := self.records(event)) < count:
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < until, f"no {event}: {self.output.read_text()}"
            time.sleep(0.05)
        return found[count - 1]

    def shows(self, *words: str) -> str:
        """What ip(8) shows there."""
        return self.host.run(find("ip"), *words).decode()

    def resolv_conf(self) -> str:
        """Its /run/resolv.conf, which /etc/resolv.conf is a link to in the image."""
        return Path(f"/proc/{self.process.pid}/root/run/resolv.conf").read_text()


@contextmanager
def machine(host: Host, folder: Path, network: str | None = None) -> Iterator[Machine]:
    """Have the network of a host looked after."""
    words = ["-m", "tests.real.machine_network"]
    if network is not None:
        (folder / "network.toml").write_text(network)
        words.append(str(folder / "network.toml"))
    apart = [find("unshare"), "--mount", "--uts", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]
    output = folder / "machine.log"
    with output.open("wb") as log:
        process = subprocess.Popen(host.command(*apart, sys.executable, *words), stdout=log, stderr=log)
        try:
            yield Machine(host, process, output)
        finally:
            process.kill()
            process.wait()


@contextmanager
def dnsmasq(host: Host, folder: Path, *more: str) -> Iterator[Path]:
    """A DHCP server on a host, with one address to give; its log."""
    leases, log = folder / "leases", folder / "dnsmasq.log"
    leases.touch()
    command = host.command(
        find("dnsmasq"),
        *("--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-facility=-"),
        *(f"--interface={DEVICE}", "--bind-interfaces", f"--dhcp-leasefile={leases}", "--pid-file="),
        *(f"--dhcp-range={NETWORK}.50,{NETWORK}.50,255.255.255.0,2m", "--dhcp-authoritative", "--no-ping"),
        *(f"--dhcp-option=option:router,{NETWORK}.1", f"--dhcp-option=option:dns-server,{NETWORK}.53"),
        *("--dhcp-option=option:domain-name,example.net", f"--dhcp-option=option:ntp-server,{NETWORK}.1"),
        *more,
    )
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield log
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(name="pair")
def make_pair() -> Iterator[tuple[Host, Host]]:
    with hosts("server", "machine") as (server, client):
        join(server, client, NETWORK)
        client.ip("address", "flush", "dev", DEVICE)
        client.ip("link", "set", DEVICE, "down")
        yield server, client


def test_a_lease_is_obtained_and_renewed(pair: tuple[Host, Host], tmp_path: Path) -> None:
    """Address, route, name server and domain come from a real DHCP server, which is asked again at T1."""
    server, client = pair
    with (
        dnsmasq(server, tmp_path) as log,
        machine(client, tmp_path) as found,
    ):
        lease = found.awaits("lease_obtained")
        assert (lease["address"], lease["server"]) == (f"{NETWORK}.50/24", f"{NETWORK}.1")
        assert lease["lease_ms"] == 120_000
        assert found.awaits("address_added")["interface"] == DEVICE
        assert f"inet {NETWORK}.50/24" in found.shows("-4", "address", "show", "dev", DEVICE)
        assert f"default via {NETWORK}.1" in found.shows("-4", "route")
        assert found.resolv_conf() == f"search example.net\nnameserver {NETWORK}.53\n"
        until = time.monotonic() + T1 + WITHIN
        while log.read_text().count("DHCPACK(") < 2:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        assert log.read_text().count("DHCPDISCOVER(") == 1
        assert found.records("lease_lost") == []


def test_a_server_that_comes_later(pair: tuple[Host, Host], tmp_path: Path) -> None:
    """A machine that starts before its DHCP server gets its address once there is one."""
    server, client = pair
    with machine(client, tmp_path) as found:
        until = time.monotonic() + WITHIN
        while "UP" not in found.shows("link", "show", "dev", DEVICE):
            assert time.monotonic() < until
            time.sleep(0.05)
        with dnsmasq(server, tmp_path):
            assert found.awaits("lease_obtained")["address"] == f"{NETWORK}.50/24"


def test_addresses_of_network_toml(pair: tuple[Host, Host], tmp_path: Path) -> None:
    """Static addresses of both families, routers, MTU and name servers are set, and no DHCP is asked."""
    server, client = pair
    text = f"""
hostname = "gw-7"
[[interface]]
name = "{DEVICE}"
ipv4 = "{NETWORK}.7/24"
gateway4 = "{NETWORK}.1"
ipv6 = "2001:db8::7/64"
gateway6 = "2001:db8::1"
dns = ["192.0.2.53"]
mtu = 1400
"""
    with dnsmasq(server, tmp_path) as log, machine(client, tmp_path, text) as found:
        found.awaits("address_added")
        assert f"inet {NETWORK}.7/24" in found.shows("-4", "address")
        assert "2001:db8::7/64" in found.shows("-6", "address")
        assert f"default via {NETWORK}.1" in found.shows("-4", "route")
        assert "default via 2001:db8::1" in found.shows("-6", "route")
        assert "mtu 1400" in found.shows("link", "show", "dev", DEVICE)
        assert found.resolv_conf() == "nameserver 192.0.2.53\n"
        assert "DHCPDISCOVER" not in log.read_text()
