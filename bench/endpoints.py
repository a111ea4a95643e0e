"""The endpoints behind the relays, started once and used by every load."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.echo import answers
from bench.idle import endpoint_address, listening
from bench.process import Address, Cores, Program, answers_http, await_ready, free_port
from bench.relays import BULK, DATAGRAMS, FLOWS, HTTP, IDLE, PORTS, TRAINS, Way, nginx_argv

# A relay takes other endpoint addresses each time it is started, so that the time-wait sockets of one
# measurement (60 s) stand in no later one's way: 28,000 client ports are per pair of addresses and ports.
HOSTS = tuple(f"127.0.0.{number}" for number in range(1, 65))
# No relay's own address: the numbers of a range of ports are the same before the relay and behind it.
ECHO_HOST = "127.0.0.65"
UDP_LOADS = (DATAGRAMS, TRAINS, FLOWS, PORTS)
# As many ports as one rule of the load "ports" has.
RANGE = 1_000
PROBE_DEADLINE_S = 60.0


class Scale(msgspec.Struct, frozen=True):
    """How much of each load one measurement is: bytes, seconds, idle sessions."""

    bulk_bytes: int
    requests_s: int
    single_s: int
    connections_s: int
    sessions: int
    datagrams_s: float
    flows_s: float


@dataclass(frozen=True, slots=True)
class Bench:
    """The endpoints, and what the loads need besides: HTTP answers on every HOST, `idle` is ours."""

    http_port: int
    iperf: Address
    idle: socket.socket
    echo: Address
    echoes: Address
    directory: Path
    cores: Cores
    scale: Scale

    def ways(self, turn: int, load: str) -> list[Way]:
        """List the endpoints for a load's relay, started in this turn, the HTTP one first."""
        http = Way(HTTP, (HOSTS[turn % len(HOSTS)], self.http_port))
        if load == PORTS:
            return [http, Way(PORTS, self.echoes, udp=True, ports=RANGE)]
        if load in UDP_LOADS:
            return [http, Way(load, self.echo, udp=True, responses=1 if load == FLOWS else 0)]
        return [http, Way(BULK, self.iperf), Way(IDLE, endpoint_address(self.idle))]


def absent_tools() -> list[str]:
    """Name the load generators that are not installed, with the package that brings each."""
    return [
        f"{name} (Debian: {name})"
        for name in ("wrk", "iperf3", "nginx", "taskset")
        if shutil.which(name) is None
    ]


def _http_config(port: int) -> str:
    listens = "".join(f"    listen {host}:{port} backlog=4096;\n" for host in HOSTS)
    return (
        "worker_rlimit_nofile 20000;\nevents { worker_connections 8000; }\n"
        "http {\n  access_log off;\n  keepalive_requests 1000000000;\n  default_type text/plain;\n"
        + "".join(
            f"  {kind}_temp_path temp;\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"  server {{\n{listens}    location / {{ return 200 ok; }}\n  }}\n}}\n"
    )


def _answers_iperf(address: Address) -> bool:
    argv = ["iperf3", "-c", address[0], "-p", str(address[1]), "-n", "1K", "-J"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=PROBE_DEADLINE_S)
    return done.returncode == 0


def _echo(stack: ExitStack, directory: Path, core: int | None, count: int) -> Address:
    """Start an echo on as many ports in a row, to be ended with the stack: the first port's address."""
    first = free_port(ECHO_HOST, socket.SOCK_DGRAM, count)
    argv = [sys.executable, "-m", "bench.echo", ECHO_HOST, str(first), str(count)]
    program = Program(argv, directory / f"echo-{count}.log", core)
    stack.callback(program.end)
    await_ready([program], lambda: answers((ECHO_HOST, first + count - 1)), "the UDP endpoint")
    return ECHO_HOST, first


@contextmanager
def endpoints(directory: Path, cores: Cores, scale: Scale) -> Iterator[Bench]:
    """Start the HTTP, the iperf3 and the UDP endpoints, hand them out once they answer, end them."""
    directory.mkdir(parents=True, exist_ok=True)
    http_port, iperf = free_port(HOSTS[0]), (HOSTS[0], free_port(HOSTS[0]))
    argv = nginx_argv(directory, _http_config(http_port))
    with ExitStack() as stack:
        http = Program(argv, directory / "http.log", cores.load)
        stack.callback(http.end)
        await_ready([http], lambda: answers_http((HOSTS[0], http_port)), "the HTTP endpoint")
        server = Program(
            ["iperf3", "-s", "-B", iperf[0], "-p", str(iperf[1])], directory / "iperf3.log", cores.load
        )
        stack.callback(server.end)
        await_ready([server], lambda: _answers_iperf(iperf), "the iperf3 endpoint")
        echo, echoes = (_echo(stack, directory, cores.load, count) for count in (1, RANGE))
        idle = stack.enter_context(listening(HOSTS[0]))
        yield Bench(http_port, iperf, idle, echo, echoes, directory, cores, scale)
