"""WireGuard (wireguard-go), its client and server on hosts that only the gateway joins."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.gateway import Gateway, rule, ruleset, wait_for
from tests.real.datagrams import flows, total
from tests.real.files import sha256, write_random
from tests.real.namespaces import Host, device_of, hosts, join, tunnel_device
from tests.real.programs import find, run, running

PORT = 51820
CLIENT_SIDE, SERVER_SIDE, TUNNEL = "198.18.1", "198.18.2", "198.19.0"
"""Networks (RFC 2544) of hosts that are ours alone. The gateway is number 1; in the tunnel the server is."""
PINGS = 50
LARGEST_PING = 1420 - 28
"""What fills a packet of the tunnel."""
FILE = 20 << 20
LONGEST = 60.0


@dataclass(frozen=True)
class Site:
    """Three hosts in a row."""

    client: Host
    gateway: Host
    server: Host


@dataclass(frozen=True)
class End:
    """One end of a tunnel: a device on a host."""

    host: Host
    device: str
    folder: Path
    public: str
    number: int

    @property
    def address(self) -> str:
        """Its address in the tunnel."""
        return f"{TUNNEL}.{self.number}"

    def wg(self, *words: str) -> str:
        """Configure the device, or ask."""
        return self.host.run(find("wg"), *words).decode()

    def endpoint(self) -> str:
        """Where it has last heard its peer."""
        return self.wg("show", self.device, "endpoints").split()[1]


@pytest.fixture
def site() -> Iterator[Site]:
    """Make the hosts; nothing passes from the client's network to the server's but by the gateway program."""
    tunnel_device()
    for name in ("wireguard-go", "wg", "ping", "curl", "socat"):
        find(name)
    with hosts("client", "gateway", "server") as (client, gateway, server):
        join(gateway, client, CLIENT_SIDE)
        join(gateway, server, SERVER_SIDE)
        yield Site(client, gateway, server)


@pytest.fixture
def gateway(site: Site) -> Iterator[Gateway]:
    """Run a gateway on the host in the middle."""
    to, listen = f"{SERVER_SIDE}.2:{PORT}", f"{CLIENT_SIDE}.1:{PORT}"
    with Gateway.start(
        ruleset(rule("wireguard", to, listen, protocol="udp")), wrap=site.gateway.wrap
    ) as started:
        yield started


@contextmanager
def end(host: Host, number: int, folder: Path) -> Iterator[End]:
    """Run WireGuard on a host."""
    # Its control socket is a file, of one name for all namespaces.
    device = f"pw{os.getpid()}-{number}"
    folder.mkdir()
    secret = run([find("wg"), "genkey"])
    (folder / "key").write_bytes(secret)
    public = run([find("wg"), "pubkey"], stdin=secret).decode().strip()
    made = End(host, device, folder, public, number)
    command = host.command(find("wireguard-go"), "--foreground", device)
    with running(command, lambda: host.succeeds(find("wg"), "show", device, "public-key"), folder):
        made.wg("set", device, "private-key", str(folder / "key"))
        host.ip("address", "add", f"{made.address}/24", "dev", device)
        yield made


@contextmanager
def tunnel(site: Site, folder: Path) -> Iterator[tuple[End, End]]:
    """Join client and server by a tunnel; the client knows the gateway as its server."""
    with end(site.server, 1, folder / "server") as server, end(site.client, 2, folder / "client") as client:
        server.wg("set", server.device, "listen-port", str(PORT))
        for one, other, more in (
            (server, client, []),
            (client, server, ["endpoint", f"{CLIENT_SIDE}.1:{PORT}", "persistent-keepalive", "1"]),
        ):
            one.wg("set", one.device, "peer", other.public, "allowed-ips", f"{other.address}/32", *more)
            one.host.ip("link", "set", one.device, "up")
        yield client, server


def ping(one: End, other: End, count: int = PINGS, size: int = 56) -> None:
    """Reach the other end through the tunnel, each time."""
    words = ["-c", str(count), "-i", "0.01", "-W", "10", "-M", "do", "-s", str(size)]
    said = one.host.run(find("ping"), *words, other.address).decode()
    assert re.search(rf"{count} packets transmitted, {count} received, 0% packet loss", said), said


@contextmanager
def serving(one: End) -> Iterator[str]:
    """Serve an end's folder by HTTP, inside the tunnel; give its URL."""
    where = [one.address, "8000"]
    words = [sys.executable, "-m", "http.server", "--bind", *where, "--directory", str(one.folder)]
    url = "http://{}:{}".format(*where)
    quiet = [find("curl"), "--silent", "--output", os.devnull, url]
    logs = one.folder / "http"
    logs.mkdir(exist_ok=True)
    with running(one.host.command(*words), lambda: one.host.succeeds(*quiet), logs):
        yield url


def fetch(url: str, one: End) -> Path:
    """Fetch a file from the other end."""
    copy = one.folder / "copy"
    silent = ["--disable", "--silent", "--show-error", "--fail", "--noproxy", "*"]
    one.host.run(find("curl"), *silent, "--max-time", str(LONGEST), "--output", str(copy), url)
    return copy


def test_tunnel(site: Site, gateway: Gateway, tmp_path: Path) -> None:
    """Pings pass, none lost; files arrive as they were, either way; the record has all of it as one flow."""
    with tunnel(site, tmp_path) as (client, server):
        ping(client, server)
        ping(server, client, size=LARGEST_PING)
        for one, other in ((client, server), (server, client)):
            checksum = write_random(one.folder / "file", FILE, one.number)
            with serving(one) as url:
                assert sha256(fetch(f"{url}/file", other)) == checksum
        known = server.endpoint()
    (record,) = flows(gateway, "wireguard", may_drop=True)
    assert known.startswith(f"{SERVER_SIDE}.1:"), "the server knows the gateway, not the client"
    assert record["endpoint"] == f"{SERVER_SIDE}.2:{PORT}"
    for way in ("up", "down"):
        assert record[way] > FILE
        assert record[f"{way}_datagrams"] > 2 * PINGS + FILE / 1500


def test_roaming(site: Site, gateway: Gateway, tmp_path: Path) -> None:
    """A TCP connection goes on while its client takes another port, then another address: three flows."""
    with tunnel(site, tmp_path) as (client, server):
        checksum = write_random(client.folder / "file", FILE)
        with (client.folder / "file").open("rb") as file, sending(client, server) as send:
            send(file.read(FILE // 3))
            known = [server.endpoint()]
            for move in (take_another_port, take_another_address):
                # Some of what was sent is on its way now.
                move(client)
                wait_for("the server to hear it from there", lambda: server.endpoint() not in known)
                known.append(server.endpoint())
                send(file.read(FILE // 3))
            send(file.read())
        assert sha256(server.folder / "copy") == checksum
        ping(server, client)
        assert server.endpoint() == known[-1]
    those = flows(gateway, "wireguard", may_drop=True)
    hosts_of = [each["client"].rpartition(":")[0] for each in those]
    assert sorted(hosts_of) == [f"{CLIENT_SIDE}.2", f"{CLIENT_SIDE}.2", f"{CLIENT_SIDE}.3"]
    assert len({each["client"] for each in those}) == 3
    assert total(those, "up") > FILE


@contextmanager
def sending(one: End, other: End) -> Iterator[Callable[[bytes], object]]:
    """Send through one TCP connection, to a file; it has all when the block is left."""
    socat, where = find("socat"), f"{other.address}:8001"
    copy = f"CREATE:{other.folder / 'copy'}"
    receive = other.host.command(socat, "-u", f"TCP-LISTEN:8001,bind={other.address}", copy)
    send = one.host.command(socat, "-u", "STDIN", f"TCP:{where},retry=200,interval=0.1")
    with subprocess.Popen(receive) as receiver, subprocess.Popen(send, stdin=subprocess.PIPE) as sender:
        try:
            assert sender.stdin
            yield sender.stdin.write
            sender.stdin.close()
            assert [each.wait(LONGEST) for each in (sender, receiver)] == [0, 0]
        finally:
            sender.kill()
            receiver.kill()


def take_another_port(client: End) -> None:
    """Let the client send from a port that it did not have."""
    client.wg("set", client.device, "listen-port", "0")


def take_another_address(client: End) -> None:
    """Let the client be number 3 of its network, no longer number 2."""
    device = device_of(CLIENT_SIDE)
    client.host.ip("address", "delete", f"{CLIENT_SIDE}.2/24", "dev", device)
    client.host.ip("address", "add", f"{CLIENT_SIDE}.3/24", "dev", device)
    # wireguard-go keeps the source address it had, for 15 s, unless its socket is another.
    take_another_port(client)
