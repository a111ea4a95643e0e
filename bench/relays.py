"""The relays compared: how each is configured, as one who knows it would, and started."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.echo import answers
from bench.process import Address, Cores, FailedError, Program, answers_http, await_ready, free_port

DIRECT = "direct"
PORTWAY = "portway"
NGINX = "nginx"
SPLICE = "haproxy-splice"
# The routes a relay is given, by what stands behind them or what they are for.
HTTP, BULK, IDLE = "http", "bulk", "idle"
DATAGRAMS, TRAINS, FLOWS, PORTS = "datagrams", "trains", "flows", "ports"
TCP_ONLY = "forwards no UDP"
# Sessions each relay has room for: two descriptors a session, and 20,000 descriptors a process.
ROOM = 8_000


@dataclass(frozen=True, slots=True)
class Way:
    """An endpoint to relay to. `udp`: by datagrams; `ports`: as many in a row, of which `to` is the first.

    `responses`: how many datagrams come back for each one sent, and end the flow; 0 is not known.
    """

    name: str
    to: Address
    udp: bool = False
    responses: int = 0
    ports: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """Where the relay listens, and what it relays to; the first route of a relay is an HTTP endpoint's."""

    way: Way
    listen: Address

    @property
    def name(self) -> str:
        """The way's name."""
        return self.way.name

    def answers(self) -> bool:
        """Whether its last port answers: HTTP by TCP, an echo by UDP."""
        host, first = self.listen
        return answers((host, first + self.way.ports - 1)) if self.way.udp else answers_http(self.listen)


class StartError(FailedError):
    """A relay that cannot be started, and so cannot be measured at all."""


Routes = tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A relay to compare: `commands` writes its configuration into a directory and says what to run.

    `forks`: it makes a process per connection. `record`: what stands in its log once for each connection.
    `no_udp`: why it takes no part in the loads of datagrams.
    """

    key: str
    title: str
    source: str
    missing: Callable[[], bool]
    commands: Callable[[Path, Routes], list[list[str]]]
    forks: bool = False
    record: bytes = b""
    no_udp: str = ""

    def absence(self) -> str | None:
        """Why it cannot run here, or None."""
        return f"not installed ({self.source})" if self.missing() else None


@dataclass(frozen=True, slots=True)
class Running:
    """A started relay: its root processes, its routes, and how long it took until they answered."""

    kind: Kind
    programs: tuple[Program, ...]
    routes: Routes
    ready_s: float = 0.0

    @property
    def roots(self) -> tuple[int, ...]:
        """The pids of its first processes."""
        return tuple(program.pid for program in self.programs)

    def records(self, protocol: str) -> int:
        """Count the records of a protocol in its logs; a relay that keeps none has none."""
        if not self.kind.record:
            return 0
        told = f'"protocol":"{protocol}"'.encode()
        lines = (line for program in self.programs for line in program.log.read_bytes().splitlines())
        return sum(self.kind.record in line and told in line for line in lines)

    def entry(self, name: str) -> Address:
        """Where a client connects to use the route of that name."""
        return next(route.listen for route in self.routes if route.name == name)


def _at(address: Address, ports: int = 1) -> str:
    host, first = address
    return f"{host}:{first}" if ports == 1 else f"{host}:{first}-{first + ports - 1}"


def _rule(route: Route) -> str:
    way = route.way
    listen, to = _at(route.listen, way.ports), _at(way.to, way.ports)
    return (
        f'\n[[rule]]\nname = "{way.name}"\nlisten = "{listen}"\nto = "{to}"\n'
        + ('protocol = "udp"\n' if way.udp else "")
        + (f"responses = {way.responses}\n" if way.responses else "")
    )


def portway_ruleset(directory: Path, routes: Routes) -> Path:
    """Write what Portway runs on; give the file."""
    rules = "".join(_rule(route) for route in routes)
    ruleset = directory / "ruleset.toml"
    ruleset.write_text(f"[gateway]\nworkers = 1\n{rules}")
    return ruleset


def _portway(directory: Path, routes: Routes) -> list[list[str]]:
    return [[sys.executable, "-m", "appliance", "run", str(portway_ruleset(directory, routes))]]


def _nginx_modules() -> Path:
    built = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=False).stderr
    found = re.search(r"--modules-path=(\S+)", built)
    return Path(found[1]) if found else Path("/usr/lib/nginx/modules")


def _no_nginx_stream() -> bool:
    return shutil.which("nginx") is None or not (_nginx_modules() / "ngx_stream_module.so").exists()


def nginx_argv(directory: Path, config: str) -> list[str]:
    """Build the command that runs nginx in the foreground, with everything it writes inside `directory`."""
    path = directory / "nginx.conf"
    path.write_text(f"daemon off;\nworker_processes 1;\npid {directory}/nginx.pid;\n{config}")
    return ["nginx", "-p", str(directory), "-c", str(path), "-e", str(directory / "error.log")]


def _server(route: Route) -> str:
    """Write a server of nginx; a range of ports goes to the same ports of the endpoint."""
    way = route.way
    to = _at(way.to) if way.ports == 1 else f"{way.to[0]}:$server_port"
    options = "udp rcvbuf=4m" if way.udp else "backlog=4096"
    return (
        f"  server {{ listen {_at(route.listen, way.ports)} {options}; proxy_pass {to};"
        + (" proxy_timeout 60s;" if way.udp else "")
        + (f" proxy_responses {way.responses};" if way.responses else "")
        + " }\n"
    )


def _nginx(directory: Path, routes: Routes) -> list[list[str]]:
    servers = "".join(_server(route) for route in routes)
    # Reading a listener until it is empty saves nginx an eighth with trains, and nothing with anything else.
    multi_accept = " multi_accept on;" if any(route.name == TRAINS for route in routes) else ""
    config = (
        f"load_module {_nginx_modules()}/ngx_stream_module.so;\n"
        f"worker_rlimit_nofile {2 * ROOM + 1000};\n"
        f"events {{ worker_connections {2 * ROOM};{multi_accept} }}\n"
        "stream {\n"
        "  access_log off;\n  tcp_nodelay on;\n  proxy_connect_timeout 5s;\n  proxy_timeout 1h;\n"
        f"{servers}}}\n"
    )
    return [nginx_argv(directory, config)]


def _haproxy(directory: Path, routes: Routes, options: Sequence[str]) -> list[list[str]]:
    listens = "".join(
        f"listen {route.name}\n  bind {_at(route.listen)} backlog 4096\n"
        f"  server endpoint {_at(route.way.to)}\n"
        for route in routes
    )
    config = directory / "haproxy.cfg"
    config.write_text(
        f"global\n  nbthread 1\n  maxconn {ROOM}\n  maxpipes 500\n"
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        + "".join(f"  option {option}\n" for option in options)
        + listens
    )
    return [["haproxy", "-db", "-f", str(config)]]


def _haproxy_splice(directory: Path, routes: Routes) -> list[list[str]]:
    return _haproxy(directory, routes, ("splice-request", "splice-response"))


def _haproxy_plain(directory: Path, routes: Routes) -> list[list[str]]:
    return _haproxy(directory, routes, ())


def _socat(_directory: Path, routes: Routes) -> list[list[str]]:
    return [
        [
            "socat",
            "-b65536",
            f"TCP4-LISTEN:{route.listen[1]},bind={route.listen[0]},fork,reuseaddr,backlog=4096,nodelay",
            f"TCP4:{_at(route.way.to)},nodelay",
        ]
        for route in routes
    ]


def _lacks(program: str) -> Callable[[], bool]:
    return lambda: shutil.which(program) is None


def _no_portway() -> bool:
    return find_spec("appliance") is None or find_spec("appliance.__main__") is None


KINDS: dict[str, Kind] = {
    kind.key: kind
    for kind in (
        Kind(DIRECT, "direct", "", lambda: False, lambda _directory, _routes: []),
        Kind(
            PORTWAY,
            "Portway",
            "the package appliance, from this checkout",
            _no_portway,
            _portway,
            record=b'"event":"session"',
        ),
        Kind(NGINX, "nginx stream", "Debian: nginx libnginx-mod-stream", _no_nginx_stream, _nginx),
        Kind(
            SPLICE, "HAProxy, splice", "Debian: haproxy", _lacks("haproxy"), _haproxy_splice, no_udp=TCP_ONLY
        ),
        Kind("haproxy", "HAProxy", "Debian: haproxy", _lacks("haproxy"), _haproxy_plain, no_udp=TCP_ONLY),
        Kind(
            "socat",
            "socat, fork",
            "Debian: socat",
            _lacks("socat"),
            _socat,
            forks=True,
            no_udp="a process per client, and no end of them: not run with UDP",
        ),
    )
}


def _listening_port(host: str, way: Way) -> int:
    """Choose where the relay listens; a range has the endpoint's own port numbers, as nginx wants it."""
    if way.ports > 1:
        return way.to[1]
    return free_port(host, socket.SOCK_DGRAM if way.udp else socket.SOCK_STREAM)


@contextmanager
def running(kind: Kind, ways: Sequence[Way], directory: Path, cores: Cores) -> Iterator[Running]:
    """Start a relay for some endpoints, first an HTTP one; hand it out once it and UDP answer; end it."""
    host = ways[0].to[0]
    directory.mkdir(parents=True, exist_ok=True)
    if kind.key == DIRECT:
        yield Running(kind, (), tuple(Route(way, way.to) for way in ways))
        return
    routes = tuple(Route(way, (host, _listening_port(host, way))) for way in ways)
    asked = [routes[0], *(route for route in routes if route.way.udp)]
    programs: list[Program] = []
    started = time.monotonic()
    try:
        try:
            for number, argv in enumerate(kind.commands(directory, routes)):
                programs.append(Program(argv, directory / f"output-{number}.log", cores.relay))
            await_ready(programs, lambda: all(route.answers() for route in asked), kind.title)
        except FailedError as error:
            raise StartError(str(error)) from error
        yield Running(kind, tuple(programs), routes, time.monotonic() - started)
        for program in programs:
            if reason := program.failed():
                raise FailedError(reason)
    finally:
        for program in programs:
            program.end()


def version(kind: Kind) -> str:
    """Ask a relay for its version, for the record beside its numbers."""
    commands = {
        NGINX: ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"],
        SPLICE: ["haproxy", "-v"],
        "socat": ["socat", "-V"],
    }
    if kind.key not in commands:
        return ""
    done = subprocess.run(
        commands[kind.key], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    found = re.search(r"\d+\.\d+[\w.+~-]*", done.stdout + done.stderr)
    return found[0] if found else ""
