"""The relays compared: how each is configured, as one who knows it would, and started."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.process import Address, Cores, FailedError, Program, answers_http, await_ready, free_port

DIRECT = "direct"
PORTWAY = "portway"
SPLICE = "haproxy-splice"
# The routes every relay is given, by what stands behind them.
HTTP, BULK, IDLE = "http", "bulk", "idle"
# Sessions each relay has room for: two descriptors a session, and 20,000 descriptors a process.
ROOM = 8_000


@dataclass(frozen=True, slots=True)
class Route:
    """Where the relay listens and what it relays to; the first route of a relay is an HTTP endpoint's."""

    name: str
    listen: Address
    to: Address


class StartError(FailedError):
    """A relay that cannot be started, and so cannot be measured at all."""


Routes = tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A relay to compare: `commands` writes its configuration into a directory and says what to run.

    `forks`: it makes a process per connection. `record`: what stands in its log once for each connection.
    """

    key: str
    title: str
    source: str
    missing: Callable[[], bool]
    commands: Callable[[Path, Routes], list[list[str]]]
    forks: bool = False
    record: bytes = b""

    def absence(self) -> str | None:
        """Why it cannot run here, or None."""
        return f"not installed ({self.source})" if self.missing() else None


@dataclass(frozen=True, slots=True)
class Running:
    """A started relay: its root processes and the way in for each route, by name."""

    kind: Kind
    programs: tuple[Program, ...]
    routes: Routes

    @property
    def roots(self) -> tuple[int, ...]:
        """The pids of its first processes."""
        return tuple(program.pid for program in self.programs)

    def records(self) -> int:
        """Count the records in its logs; a relay that keeps none has none."""
        if not self.kind.record:
            return 0
        return sum(program.log.read_bytes().count(self.kind.record) for program in self.programs)

    def entry(self, name: str) -> Address:
        """Where a client connects to use the route of that name."""
        return next(route.listen for route in self.routes if route.name == name)


def _at(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _portway(directory: Path, routes: Routes) -> list[list[str]]:
    rules = "".join(
        f'\n[[rule]]\nname = "{route.name}"\nlisten = "{_at(route.listen)}"\nto = "{_at(route.to)}"\n'
        for route in routes
    )
    ruleset = directory / "ruleset.toml"
    ruleset.write_text(f"[gateway]\nworkers = 1\n{rules}")
    return [[sys.executable, "-m", "appliance", "run", str(ruleset)]]


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


def _nginx(directory: Path, routes: Routes) -> list[list[str]]:
    servers = "".join(
        f"  server {{ listen {_at(route.listen)} backlog=4096; proxy_pass {_at(route.to)}; }}\n"
        for route in routes
    )
    config = (
        f"load_module {_nginx_modules()}/ngx_stream_module.so;\n"
        f"worker_rlimit_nofile {2 * ROOM + 1000};\n"
        f"events {{ worker_connections {2 * ROOM}; }}\n"
        "stream {\n"
        "  access_log off;\n  tcp_nodelay on;\n  proxy_connect_timeout 5s;\n  proxy_timeout 1h;\n"
        f"{servers}}}\n"
    )
    return [nginx_argv(directory, config)]


def _haproxy(directory: Path, routes: Routes, options: Sequence[str]) -> list[list[str]]:
    listens = "".join(
        f"listen {route.name}\n  bind {_at(route.listen)} backlog 4096\n  server endpoint {_at(route.to)}\n"
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
            f"TCP4:{_at(route.to)},nodelay",
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
        Kind("nginx", "nginx stream", "Debian: nginx libnginx-mod-stream", _no_nginx_stream, _nginx),
        Kind(SPLICE, "HAProxy, splice", "Debian: haproxy", _lacks("haproxy"), _haproxy_splice),
        Kind("haproxy", "HAProxy", "Debian: haproxy", _lacks("haproxy"), _haproxy_plain),
        Kind("socat", "socat, fork", "Debian: socat", _lacks("socat"), _socat, forks=True),
    )
}


@contextmanager
def running(
    kind: Kind, to: Sequence[tuple[str, Address]], directory: Path, cores: Cores
) -> Iterator[Running]:
    """Start a relay for the endpoints named, first an HTTP one; hand it out once that one answers; end it."""
    host = to[0][1][0]
    directory.mkdir(parents=True, exist_ok=True)
    if kind.key == DIRECT:
        yield Running(kind, (), tuple(Route(name, address, address) for name, address in to))
        return
    routes = tuple(Route(name, (host, free_port(host)), address) for name, address in to)
    programs: list[Program] = []
    try:
        try:
            for number, argv in enumerate(kind.commands(directory, routes)):
                programs.append(Program(argv, directory / f"output-{number}.log", cores.relay))
            await_ready(programs, lambda: answers_http(routes[0].listen), kind.title)
        except FailedError as error:
            raise StartError(str(error)) from error
        yield Running(kind, tuple(programs), routes)
        for program in programs:
            if reason := program.failed():
                raise FailedError(reason)
    finally:
        for program in programs:
            program.end()


def version(kind: Kind) -> str:
    """Ask a relay for its version, for the record beside its numbers."""
    commands = {
        "nginx": ["nginx", "-v"],
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
