"""`portway demo`: an intranet server, a gateway before it, real requests through it, the log shown."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import click

from appliance.cli.intranet import PAGE, intranet_server
from appliance.cli.ruleset_file import read_ruleset
from appliance.ruleset import Rule, Ruleset

QUICKSTART: Final = Path(__file__).with_name("quickstart.toml")

UPLOAD: Final = 8 << 20
CLIENTS: Final = 20
PATIENCE: Final = 20.0


class DemoFailedError(Exception):
    """The demo could not show what it should; says what went wrong."""


@click.command()
@click.argument("ruleset", required=False, type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="End after the requests instead of staying up.")
def demo(ruleset: Path | None, *, once: bool) -> None:
    """Show a gateway at work, on this host alone.

    Starts a small web server where the first rule of RULESET (built in unless given) forwards to, a gateway
    on RULESET, and sends real requests through it. Stays up until Ctrl-C.
    """
    path = ruleset or QUICKSTART
    rule = _first_rule(read_ruleset(str(path)))
    try:
        with intranet_server(rule.to[0].host, rule.to[0].first_port), _gateway(path) as gateway:
            _prove(rule)
            _tell("Everything arrived as it was sent.")
            if not once:
                _stay(rule, gateway)
    except (DemoFailedError, OSError) as failure:
        click.echo(f"portway: the demo failed: {failure}", err=True)
        raise SystemExit(1) from None


def _first_rule(ruleset: Ruleset) -> Rule:
    """Take the rule to show; the demo's server and clients live on this host's loopback."""
    rule = ruleset.rules[0]
    ends = (rule.listen[0], rule.to[0])
    if any(end.is_unix or not end.first_port for end in ends) or not ends[1].host.startswith("127."):
        click.echo(
            'portway: the demo wants a first rule such as listen = ":18080", to = "127.0.0.1:18081"', err=True
        )
        raise SystemExit(2)
    return rule


@contextmanager
def _gateway(path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a gateway; its log goes where ours does. Ready when it tells the service manager so: us."""
    with tempfile.TemporaryDirectory(prefix="portway-demo-") as folder, _notifications(folder) as ready:
        process = subprocess.Popen(
            [*_myself(), "run", str(path)], env={**os.environ, "NOTIFY_SOCKET": f"{folder}/notify"}
        )
        try:
            _await_ready(process, ready)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(PATIENCE)
        if status:
            raise DemoFailedError(f"the gateway ended with status {status}")


def _myself() -> list[str]:
    """Give the command that is running: the binary, or the package in this Python."""
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "appliance"]


@contextmanager
def _notifications(folder: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(f"{folder}/notify")
        datagrams.settimeout(0.1)
        yield datagrams


def _await_ready(process: "subprocess.Popen[bytes]", notifications: socket.socket) -> None:
    for _ in range(int(PATIENCE / 0.1)):
        if process.poll() is not None:
            raise DemoFailedError("the gateway did not start")
        try:
            if b"READY=1" in notifications.recv(4096):
                return
        except TimeoutError:
            continue
    raise DemoFailedError(f"the gateway was not ready within {PATIENCE:.0f} s")


def _prove(rule: Rule) -> None:
    """Send requests through the gateway and compare what comes back."""
    host, port = rule.listen[0].host or "127.0.0.1", rule.listen[0].first_port
    _tell(f"A server of the intranet answers at {rule.to[0]}, the gateway at {rule.listen[0]}.")
    _tell("One page:")
    _expect(PAGE, _request(host, port, "GET"))
    _tell(f"An upload of {UPLOAD >> 20} MiB, answered with its SHA-256:")
    body = os.urandom(UPLOAD)
    _expect(hashlib.sha256(body).hexdigest().encode(), _request(host, port, "POST", body))
    _tell(f"{CLIENTS} clients at once:")
    with ThreadPoolExecutor(CLIENTS) as pool:
        for answer in pool.map(lambda _: _request(host, port, "GET"), range(CLIENTS)):
            _expect(PAGE, answer)


def _request(host: str, port: int, method: str, body: bytes | None = None) -> bytes:
    connection = HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request(method, "/", body, {"Connection": "close"})
        return connection.getresponse().read()
    finally:
        connection.close()


def _expect(wanted: bytes, seen: bytes) -> None:
    if wanted != seen:
        raise DemoFailedError(f"sent {len(wanted)} bytes, {len(seen)} other bytes arrived")


def _stay(rule: Rule, gateway: "subprocess.Popen[bytes]") -> None:
    """Wait for the gateway's end. The terminal's Ctrl-C reaches the gateway by itself, SIGTERM through us."""
    host, port = rule.listen[0].host or "127.0.0.1", rule.listen[0].first_port
    _tell(f"Try it: curl http://{host}:{port}/   Ctrl-C ends it.")
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: gateway.send_signal(signal.SIGTERM))
    gateway.wait()


def _tell(text: str) -> None:
    click.echo(f"# {text}")
    sys.stdout.flush()
