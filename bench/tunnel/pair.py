"""A tunnel's two ends: started one after the other, ready when a request came through, ended together."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.process import Address, Cores, FailedError, Program, await_ready, free_port
from bench.relays import Kind, Route, Routes, Running, StartError, Way

ENCRYPTED, PLAIN = "encrypted", "plain"
LISTENERS = Path("/proc/net/tcp")
LISTENING = "0A"


@dataclass(frozen=True, slots=True)
class Site:
    """Where a tunnel is started: its directory, its routes, where its gateway listens and its agent dials."""

    directory: Path
    routes: Routes
    tunnel: Address
    dial: Address


@dataclass(frozen=True, slots=True)
class Ends:
    """The commands of the two ends."""

    gateway: list[str]
    agent: list[str]


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel to compare. `family`: the program it is a setting of; `group`: what it may be compared with.

    `absence` says why it cannot run here; `prepare` writes what both ends are configured by, and makes keys.
    """

    key: str
    title: str
    family: str
    group: str
    absence: Callable[[], str | None]
    prepare: Callable[[Site], Ends]
    record: bytes = b""

    @property
    def kind(self) -> Kind:
        """The tunnel as the loads know a relay: to a client it is one."""
        return Kind(self.key, self.title, "", lambda: False, lambda _, __: [], record=self.record)


def parse_listeners(text: str) -> set[Address]:
    """Read the addresses that are listened at out of /proc/net/tcp (proc(5): hexadecimal, little-endian)."""
    found: set[Address] = set()
    for line in text.splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == LISTENING:
            host, port = local.split(":")
            found.add((socket.inet_ntoa(bytes.fromhex(host)[::-1]), int(port, 16)))
    return found


def listens(address: Address) -> bool:
    """Tell whether an address, or its port on all of them, is listened at; no connection is made for it."""
    listeners = parse_listeners(LISTENERS.read_text())
    return address in listeners or ("0.0.0.0", address[1]) in listeners


def _start(tunnel: Tunnel, site: Site, core: int | None, programs: list[Program]) -> None:
    """Start the gateway and then, since not every agent tries again soon, its agent."""
    ends = tunnel.prepare(site)
    programs.append(Program(ends.gateway, site.directory / "gateway.log", core))
    await_ready(programs, lambda: listens(site.tunnel), f"{tunnel.title}, the gateway")
    programs.append(Program(ends.agent, site.directory / "agent.log", core))
    await_ready(programs[::-1], site.routes[0].answers, f"{tunnel.title}, through both ends")


@contextmanager
def running_pair(
    tunnel: Tunnel,
    ways: Sequence[Way],
    directory: Path,
    cores: Cores,
    lengthened: Callable[[Address], Address] = lambda address: address,
) -> Iterator[Running]:
    """Start a tunnel for some endpoints, first an HTTP one; hand it out once that answers; end both ends.

    `lengthened` gives what the agent is to dial in place of the gateway.
    """
    host = ways[0].to[0]
    directory.mkdir(parents=True, exist_ok=True)
    routes = tuple(Route(way, (host, free_port(host))) for way in ways)
    at = host, free_port(host)
    programs: list[Program] = []
    started = time.monotonic()
    try:
        try:
            _start(tunnel, Site(directory, routes, at, lengthened(at)), cores.relay, programs)
        except FailedError as error:
            raise StartError(str(error)) from error
        yield Running(tunnel.kind, tuple(programs), routes, time.monotonic() - started)
        for program in programs:
            if reason := program.failed():
                raise FailedError(reason)
    finally:
        for program in programs[::-1]:
            program.end()
