"""`portway demo`: an intranet server, a gateway before it, real requests through it, the log shown."""

import errno
import hashlib
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Final

import click

from appliance.cli.demo_gateway import DemoFailedError, demo_gateway
from appliance.cli.gateway import tell
from appliance.cli.intranet import PAGE, intranet_server
from appliance.cli.problems import complain
from appliance.cli.ruleset_file import WRONG_INPUT, read_ruleset
from appliance.ruleset import Rule, Ruleset
from appliance.supervisor.binding import Binder
from appliance.supervisor.process import raise_fd_limit
from appliance.values import ListenAddress, TargetAddress

if TYPE_CHECKING:
    from subprocess import Popen

QUICKSTART: Final = Path(__file__).with_name("quickstart.toml")

UPLOAD: Final = 8 << 20
CLIENTS: Final = 20
PATIENCE: Final = 20.0

_ANOTHER: Final = "another demo may be running, so end that one; `ss -ltnp` names the program that listens"


@click.command(short_help="Show a gateway at work, on this host alone.")
@click.argument("ruleset", required=False, type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="End after the requests instead of staying up.")
def demo(ruleset: Path | None, *, once: bool) -> None:
    """Show a gateway at work, on this host alone.

    Starts a small web server where the first rule of RULESET (built in unless given) forwards to, a gateway
    on RULESET, and sends real requests through it. Stays up until Ctrl-C.
    """
    path = ruleset or QUICKSTART
    if str(path) == "-":
        raise click.BadParameter(
            "give the name of a file: the gateway reads it once more", param_hint="RULESET"
        )
    rules, _ = read_ruleset(str(path))
    rule = _first_rule(rules)
    server = rule.to[0]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and on the way end the gateway
    try:
        with intranet_server(server.host, server.first_port):
            _look_for_room(rules)
            with demo_gateway(path) as gateway:
                _prove(rule)
                _say("Everything arrived as it was sent.")
                if not once:
                    _stay(rule, gateway)
    except (DemoFailedError, HTTPException, OSError) as failure:
        is_taken = isinstance(failure, OSError) and failure.errno == errno.EADDRINUSE
        said = getattr(failure, "strerror", None) or failure
        complain(f"the demo failed: {said}", _ANOTHER if is_taken else None)
        raise SystemExit(1) from None


def _first_rule(ruleset: Ruleset) -> Rule:
    """Take the rule to show; the demo's server and clients live on this host's loopback."""
    rule = ruleset.rules[0]
    for why in (_unfit_listen(rule.listen[0]), *(_unfit_target(to) for to in rule.to)):
        if why:
            what = f'cannot show rule "{rule.name}": the demo serves one IPv4 port of this host, and {why}'
            complain(what, 'begin the ruleset with a rule such as listen = ":18080", to = "127.0.0.1:18081"')
            raise SystemExit(WRONG_INPUT)
    return rule


def _unfit_listen(listen: ListenAddress) -> str | None:
    """Say why the demo's clients could not come in here."""
    if listen.is_unix:
        return f"{listen} is a unix socket"
    if not listen.first_port:
        return f"the port of {listen} is picked by the kernel"
    return f"{listen} is IPv6" if ":" in listen.host else None


def _unfit_target(to: TargetAddress) -> str | None:
    """Say why the demo's server cannot be here."""
    if to.is_unix:
        return f"{to} is a unix socket"
    if to.is_name:
        return f"{to} is a host name"
    if ":" in to.host:
        return f"{to} is IPv6"
    return None if to.host.startswith("127.") else f"{to} may be another host"


def _look_for_room(ruleset: Ruleset) -> None:
    """Bind what the gateway will bind, to say what is in its way before anything is shown."""
    raise_fd_limit()
    binder = Binder(workers=1)
    try:
        binder.bind(ruleset)
    finally:
        binder.close()
    if binder.refused:
        tell(binder.refused, lambda one: _ANOTHER if one.error.errno == errno.EADDRINUSE else one.hint)
        raise SystemExit(1)


def _prove(rule: Rule) -> None:
    """Send requests through the gateway and compare what comes back."""
    host, port = _entrance(rule)
    _say(f"A server of the intranet answers at {rule.to[0]}, the gateway at {rule.listen[0]}.")
    _say("One page")
    _show(_expect(PAGE, _request(host, port, "GET")))
    _say(f"An upload of {UPLOAD >> 20} MiB, answered with its SHA-256")
    body = os.urandom(UPLOAD)
    digest = hashlib.sha256(body).hexdigest()
    status, arrived = _request(host, port, "POST", body)
    _show(f"sent     {digest}")
    _show(f"arrived  {arrived.decode(errors='replace')}")
    _show(_expect(digest.encode(), (status, arrived)))
    _say(f"{CLIENTS} clients at once")
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda _: _request(host, port, "GET"), range(CLIENTS)))
    _show(f"{sum(bool(_expect(PAGE, answer)) for answer in answers)} of {CLIENTS}")


def _entrance(rule: Rule) -> tuple[str, int]:
    host = rule.listen[0].host
    return ("127.0.0.1" if host in {"", "0.0.0.0"} else host), rule.listen[0].first_port


def _request(host: str, port: int, method: str, body: bytes | None = None) -> tuple[str, bytes]:
    """Ask through the gateway; give the status line's end and the answer."""
    connection = HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request(method, "/", body, {"Connection": "close"})
        answer = connection.getresponse()
        return f"{answer.status} {answer.reason}", answer.read()
    finally:
        connection.close()


def _expect(wanted: bytes, seen: tuple[str, bytes]) -> str:
    """Say what came, if it is what was wanted."""
    status, answer = seen
    if (status, answer) != ("200 OK", wanted):
        raise DemoFailedError(f"{len(wanted)} bytes were to come, {status} and {len(answer)} other bytes did")
    return f"{status}, {len(answer)} bytes"


def _stay(rule: Rule, gateway: "Popen[bytes]") -> None:
    """Wait for the gateway's end, handing on what asks for it: a second signal cuts the live sessions."""
    host, port = _entrance(rule)
    _say(f"Try it: curl http://{host}:{port}/   Ctrl-C ends it.")
    # A terminal's Ctrl-C reaches the gateway by itself.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: gateway.send_signal(signal.SIGTERM))
    while gateway.poll() is None:
        with suppress(TimeoutExpired):
            # Not for ever: a signal that came just before the system call would only be heard after it.
            gateway.wait(PATIENCE)


def _say(text: str) -> None:
    click.echo(f"# {text}")


def _show(text: str) -> None:
    click.echo(f"#   {text}")
