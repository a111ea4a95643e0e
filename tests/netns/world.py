"""An intranet, the internet and a gateway, each a network namespace, with a tunnel from the one to the other.

    intranet (agents, an echo server) --198.18.2-- internet (routes) --198.18.1-- gateway (the clients, too)

Ports are fixed here: nobody else is in these namespaces.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from appliance.supervisor.admin_wire import ask
from tests.e2e.gateway import Gateway, rule, wait_for
from tests.e2e.peers import Echo
from tests.e2e.tunnel import enroll, tunnel_ruleset
from tests.real.namespaces import Host, device_of, hosts, join
from tests.real.programs import find

OUTSIDE: Final = "198.18.1"
INSIDE: Final = "198.18.2"
GATEWAY: Final = f"{OUTSIDE}.1"
TUNNEL_PORT: Final = 7443
RULE: Final = (GATEWAY, 8080)
ECHO_PORT: Final = 9000

HEARTBEAT: Final = 2.0
"""The default."""

IDLE: Final = 8.0
"""The rule's idle_timeout."""

_LISTEN: Final = "0A"
"""TCP_LISTEN, as /proc/net/tcp has it."""

_CLONE_NEWNET: Final = 0x40000000


@contextmanager
def inside(host: Host) -> Iterator[None]:
    """Have this thread make its sockets in a host's network (setns(2)); they stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, there = Path("/proc/thread-self/ns/net"), Path("/var/run/netns", host.name)
    with here.open("rb") as back, there.open("rb") as target:
        assert not libc.setns(target.fileno(), _CLONE_NEWNET), os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert not libc.setns(back.fileno(), _CLONE_NEWNET), os.strerror(ctypes.get_errno())


class Process(Gateway):
    """A gateway or an agent, which a test may kill."""

    is_killed = False
    loses_records = False
    """A process of it was killed, with the records that it had not written."""

    @property
    def pids(self) -> list[int]:
        """The master, and its workers."""
        return [self.process.pid, *self.workers]

    def send(self, number: int) -> None:
        """Send a signal to all of it."""
        if number == signal.SIGKILL:
            self.is_killed = self.loses_records = True
        for pid in self.pids:
            os.kill(pid, number)

    def check(self) -> None:
        """Fail on whatever must never be left behind, unless it was killed."""
        if not self.is_killed:
            super().check()


@dataclass
class Fds:
    """The descriptors of some processes."""

    tunnel: int
    """Connections of the tunnel."""
    most: int
    """Others, in the process that has most of them."""


def fds_of(pids: list[int]) -> Fds:
    """Count the descriptors of processes."""
    counted = [_fds_of(pid) for pid in pids]
    return Fds(sum(tunnel for tunnel, _ in counted), max(other for _, other in counted))


def _fds_of(pid: int) -> tuple[int, int]:
    port = f"{TUNNEL_PORT:04X}"
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    channels = {
        f"socket:[{row[9]}]"
        for row in rows
        if row[3] != _LISTEN and port in (row[1].rpartition(":")[2], row[2].rpartition(":")[2])
    }
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(str(fd.readlink()))
    tunnel = sum(link in channels for link in links)
    return tunnel, len(links) - tunnel


@dataclass
class Client:
    """A client of the rule: it has sent a byte, and waits for it."""

    connection: socket.socket
    started: float
    state: str = "waits"
    """waits, echoed or ended."""
    took: float = 0.0

    def look(self) -> None:
        """See what has become of it."""
        if self.state != "waits":
            return
        try:
            self.connection.send(b"x") if not self.took else None
            self.took = 1e-9
            got = self.connection.recv(100)
        except (BlockingIOError, BrokenPipeError) as error:
            if isinstance(error, BlockingIOError):
                return
            got = b""
        except OSError:
            got = b""
        self.state = "echoed" if got else "ended"
        self.took = time.monotonic() - self.started

    def __del__(self) -> None:
        """Go with whoever has it: a test that fails leaves clients behind."""
        self.close()

    def close(self) -> None:
        """Go."""
        self.connection.close()


@dataclass
class World:
    """The three hosts and what runs on them."""

    gateway_host: Host
    internet: Host
    intranet: Host
    folder: Path
    stack: ExitStack
    ruleset: str
    workers: int
    agent_workers: int
    gateways: list[Process] = field(default_factory=list)
    agents: list[Process] = field(default_factory=list)
    baseline: tuple[int, int] = (0, 0)

    # -- processes ------------------------------------------------------------------------------------

    @property
    def gateway(self) -> Process:
        """The one that runs."""
        return self.gateways[-1]

    @property
    def agent(self) -> Process:
        """The first of those that run."""
        return self.agents[0]

    def start_gateway(self) -> Process:
        """Start a gateway, the first one or the next."""
        starting = Process.start(self.ruleset, wrap=self.gateway_host.wrap)
        self.gateways.append(self.stack.enter_context(starting))
        return self.gateway

    def start_agent(self) -> Process:
        """Start an agent."""
        verb = ("agent", "--join", str(self.folder / "office.join"), "--workers", str(self.agent_workers))
        starting = Process.start("", verb=verb, wrap=self.intranet.wrap)
        self.agents.append(self.stack.enter_context(starting))
        return self.agents[-1]

    def end(self, process: Process, number: int = signal.SIGTERM) -> None:
        """End one that runs, and wait for its end."""
        pids = process.pids
        if number == signal.SIGKILL:
            process.send(number)
        process.stop(number)
        wait_for("its workers' end", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        if process in self.agents:
            self.agents.remove(process)

    def links(self) -> list[dict[str, Any]]:
        """What the gateway says of its control channels."""
        reply = json.loads(ask(str(self.folder / "admin.sock"), b'{"verb":"agents"}'))
        return list(reply["links"])

    # -- the network ----------------------------------------------------------------------------------

    def lose(self, *from_networks: str) -> None:
        """Have the internet lose every packet that comes from these networks."""
        self.nft("add table ip faults", "add chain ip faults lost { type filter hook forward priority 0; }")
        self.nft(*(f'add rule ip faults lost iifname "{device_of(one)}" drop' for one in from_networks))

    def heal(self) -> float:
        """Have it lose nothing; give the time at which that was so."""
        self.nft("delete table ip faults")
        return time.monotonic()

    def nft(self, *commands: str) -> None:
        """Have the internet filter, or translate, packets."""
        self.internet.run(find("nft"), "; ".join(commands))

    # -- sessions -------------------------------------------------------------------------------------

    def client(self) -> Client:
        """Begin a session."""
        with inside(self.gateway_host):
            connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(RULE)
        return Client(connection, time.monotonic())

    def opened(self, count: int) -> list[Client]:
        """Have so many sessions that work."""
        clients: list[Client] = []
        while len(clients) < count:
            clients.append(self.client())
            self.await_all(clients)
            if clients[-1].state != "echoed":
                raise AssertionError(self.gateway.events()[-20:])
        return clients

    def await_all(self, clients: list[Client], timeout: float = 20.0) -> None:
        """Wait until each one has its byte, or its end."""

        def settled() -> bool:
            for client in clients:
                client.look()
            return all(client.state != "waits" for client in clients)

        wait_for("an end of every session", settled, timeout)

    def back_since(self, since: float, timeout: float = 20.0) -> tuple[float, float]:
        """Begin sessions, 20 a second, until one has its byte; wait for the rest of them.

        Give the seconds from `since` to that byte, and the longest that any of them took for its own.
        """
        clients: list[Client] = []

        def is_back() -> bool:
            if not clients or time.monotonic() - clients[-1].started >= 0.05:
                clients.append(self.client())
            for client in clients:
                client.look()
            return any(client.state == "echoed" for client in clients)

        wait_for("a session that passes a byte", is_back, timeout)
        back = time.monotonic() - since
        self.await_all(clients)
        for client in clients:
            client.close()
        return back, max(client.took for client in clients if client.state == "echoed")

    # -- what must hold in the end --------------------------------------------------------------------

    def take_baseline(self) -> None:
        """Note what is open, once everything that is opened once is."""
        for client in self.opened(12):
            client.close()
        wait_for("all links", lambda: len(self.links()) == self.expected_links)
        wait_for("no session", lambda: not any(link["sessions"] for link in self.links()))
        self.await_agreement()
        self.baseline = (fds_of(self.gateway.workers).most, fds_of(self.agent.workers).most)

    @property
    def expected_links(self) -> int:
        """How many control channels there shall be."""
        return max(self.workers, self.agent_workers) * len(self.agents)

    def await_agreement(self, timeout: float = 20.0) -> None:
        """Wait until both ends have the same connections, and none but those that the gateway tells of."""
        seen: list[object] = []

        def agree() -> bool:
            links = self.links()
            told = sum(1 + link["ready"] + link["sessions"] for link in links)
            here = fds_of(self.gateway.workers)
            there = fds_of([pid for agent in self.agents for pid in agent.workers])
            seen[:] = [links, here, there, self.baseline]
            if self.baseline[0] and (here.most > self.baseline[0] or there.most > self.baseline[1]):
                return False
            return len(links) == self.expected_links and told == here.tunnel == there.tunnel

        try:
            wait_for("both ends to agree", agree, timeout)
        except AssertionError as failed:
            raise AssertionError(f"{failed}: {seen}") from None

    def ends_clean(self, timeout: float = 20.0) -> None:
        """Check that nothing is left of what was: descriptors, processes, records that are missing."""
        for process, count in (
            (self.gateway, self.workers),
            *((one, self.agent_workers) for one in self.agents),
        ):
            wait_for(f"{count} workers", lambda one=process, n=count: len(one.workers) == n)  # type: ignore[misc]
        self.await_agreement(timeout)

    def leaves_nothing(self) -> None:
        """Check, when all have ended, that no process and no port is left."""
        for host in (self.gateway_host, self.intranet):
            wait_for("no process", lambda one=host: not _processes(one))  # type: ignore[misc]
        with inside(self.gateway_host), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((GATEWAY, TUNNEL_PORT))
            probe.listen()


def _processes(host: Host) -> str:
    done = subprocess.run(
        [find("ip"), "netns", "pids", host.name], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@contextmanager
def world(
    *,
    workers: int = 1,
    agent_workers: int = 1,
    agents: int = 1,
    named: bool = False,
    translated: bool = False,
    encryption: str = "tls",
) -> Iterator[World]:
    """Make the hosts, start a gateway and agents, and check that all of it is gone in the end.

    `named`: agents know the gateway as gateway.example, from their /etc/hosts. `translated`: what comes from
    the intranet has the router's address outside (NAT).
    """
    find("nft")
    with ExitStack() as outer, ExitStack() as stack:
        folder = Path(outer.enter_context(tempfile.TemporaryDirectory(prefix="portway-netns-")))
        gateway_host, internet, intranet = outer.enter_context(hosts("gateway", "internet", "intranet"))
        _lay(gateway_host, internet, intranet)
        with inside(intranet):
            stack.enter_context(Echo(("127.0.0.1", ECHO_PORT)))
        text = tunnel_ruleset(
            rule("web", ECHO_PORT, f"{GATEWAY}:8080", via="office", idle_timeout=f"{IDLE:.0f}s"),
            state=folder / "state",
            workers=workers,
            encryption=encryption,
            listen=f"0.0.0.0:{TUNNEL_PORT}",
        ).replace("[gateway]\n", f'[gateway]\nadmin = "{folder}/admin.sock"\n')
        made = World(gateway_host, internet, intranet, folder, stack, text, workers, agent_workers)
        if translated:
            made.nft(
                "add table ip nat",
                "add chain ip nat out { type nat hook postrouting priority srcnat; }",
                f'add rule ip nat out oifname "{device_of(OUTSIDE)}" masquerade',
            )
        if named:
            outer.callback(hosts_file(intranet).parent.rmdir)
            outer.callback(hosts_file(intranet).unlink)
            name_gateway(intranet, GATEWAY)
        gateway = made.start_gateway()
        place = f"{'gateway.example' if named else GATEWAY}:{TUNNEL_PORT}"
        enroll(gateway.folder / "rules.toml", "office", place, folder / "office.join")
        for _ in range(agents):
            made.start_agent().await_event("tunnel_up", max(workers, agent_workers))
        made.take_baseline()
        yield made
        stack.close()
        made.leaves_nothing()


def _lay(gateway_host: Host, internet: Host, intranet: Host) -> None:
    join(gateway_host, internet, OUTSIDE)
    join(internet, intranet, INSIDE)
    gateway_host.ip("route", "add", "default", "via", f"{OUTSIDE}.2")
    intranet.ip("route", "add", "default", "via", f"{INSIDE}.1")
    internet.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def hosts_file(host: Host) -> Path:
    """Give the /etc/hosts of what runs on a host (ip-netns(8))."""
    return Path("/etc/netns", host.name, "hosts")


def name_gateway(host: Host, address: str) -> None:
    """Have gateway.example mean an address there, from now on."""
    hosts_file(host).parent.mkdir(parents=True, exist_ok=True)
    hosts_file(host).write_text(f"127.0.0.1 localhost\n{address} gateway.example\n")
