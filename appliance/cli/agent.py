"""`portway agent`: the inside end of tunnels, in the foreground."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import click

from appliance.cli.admin_option import admin_option
from appliance.cli.gateway import admin_listener
from appliance.cli.problems import complain
from appliance.cli.ruleset_file import WRONG_INPUT
from appliance.observe.log import wall_clock
from appliance.problem import Problem
from appliance.ruleset import Gateway, Ruleset
from appliance.supervisor.binding import Binder
from appliance.supervisor.master import Master
from appliance.supervisor.process import open_standard_fds, raise_fd_limit
from appliance.supervisor.status import RulesetStatus
from appliance.supervisor.tunnels import AgentPlan
from appliance.values import AllowedTarget, Misread, Proxy, parse_duration

if TYPE_CHECKING:
    from appliance.tunnel.identity import Identity

V = TypeVar("V")

_EXAMPLES: Final = """\b
portway agent --join office.join
portway agent --join office.join --allow-to 192.168.1.0/24:22 --allow-to db.internal:5432
portway agent --join office.join --proxy http://proxy.internal:3128
"""

_NAME_IT: Final = "name the file that `portway enroll` wrote"


def _allowed(
    _ctx: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> list[AllowedTarget] | None:
    return [_parsed(AllowedTarget.parse, text) for text in texts] or None


def _proxy(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Proxy | None:
    return None if not text else _parsed(Proxy.parse, text)


def _duration(_ctx: click.Context, _option: click.Parameter, text: str) -> float:
    return _parsed(parse_duration, text)


def _parsed(parse: Callable[[str], V], text: str) -> V:
    try:
        return parse(text)
    except Misread as misread:
        raise click.BadParameter(f"{misread.what}; {misread.hint}") from None


@click.command(short_help="Serve gateways from inside an intranet that only dials out.", epilog=_EXAMPLES)
@click.option(
    "--join",
    "joins",
    metavar="FILE",
    multiple=True,
    required=True,
    help="What `portway enroll` wrote: a file, the line, or - for standard input. Repeatable.",
)
@click.option(
    "--allow-to",
    metavar="CIDR:PORTS",
    multiple=True,
    callback=_allowed,
    help="Reach nothing else: a network or host with a port, a range or *; or unix:/path. Repeatable.",
)
@click.option(
    "--proxy",
    metavar="URL",
    envvar="PORTWAY_PROXY",
    callback=_proxy,
    help="Dial through http://[USER:PASSWORD@]HOST:PORT or socks5://...",
)
@click.option("--workers", type=click.IntRange(1, 256), help="Worker processes. [default: one per core]")
@click.option(
    "--drain-timeout",
    metavar="DURATION",
    default="30s",
    show_default=True,
    callback=_duration,
    help="How long sessions may go on after a signal.",
)
@admin_option("Where `portway status` may ask: a path, or @.")
def agent(
    joins: tuple[str, ...],
    allow_to: list[AllowedTarget] | None,
    proxy: Proxy | None,
    workers: int | None,
    drain_timeout: float,
    admin: str | None,
) -> None:
    """Dial the gateways that a join file names, and carry their sessions, until SIGTERM or Ctrl-C.

    An intranet needs no open port for it. The log goes to stdout, as that of `portway run`.
    """
    from appliance.tunnel.agent import new_instance  # noqa: PLC0415  ssl, which no other verb waits for

    identities = [_identity(file, proxy) for file in joins]
    open_standard_fds()
    raise_fd_limit()
    count = workers or len(os.sched_getaffinity(0))
    ruleset = Ruleset(gateway=Gateway(workers=count, drain_timeout=drain_timeout, admin=None), rules=())
    origin = RulesetStatus(" ".join(map(_shown, joins)), "", 0)
    plan = AgentPlan(identities, allow_to, new_instance())
    with admin_listener(admin) as listening:
        raise SystemExit(Master(ruleset, Binder(count), count, origin, listening, _reread, plan).run())


def _reread() -> str:
    return "an agent has no ruleset: restart it to have the join file read again"


def _shown(file: str) -> str:
    """Call what follows --join so that no key gets into a message or `portway status`."""
    from appliance.tunnel.join import PREFIX  # noqa: PLC0415  as below

    return "a line" if file.startswith(PREFIX) else "standard input" if file == "-" else file


def _identity(file: str, proxy: Proxy | None) -> "Identity":
    from appliance.tunnel.identity import Identity  # noqa: PLC0415  ssl
    from appliance.tunnel.join import PREFIX, read_join  # noqa: PLC0415  as above
    from appliance.tunnel.join_file import load_join  # noqa: PLC0415  as above

    path = None if file == "-" or file.startswith(PREFIX) else file
    try:
        if path is not None:
            join = load_join(path)
        else:
            join = read_join(sys.stdin.buffer.read() if file == "-" else file.encode(), "the line")
    except OSError as error:
        is_closed = isinstance(error, PermissionError)
        hint = f"it has to be readable for this user, {os.geteuid()}" if is_closed else _NAME_IT
        complain(f"cannot read {file}: {error.strerror or error}", hint)
        raise SystemExit(WRONG_INPUT) from None
    if isinstance(join, Problem):
        complain(str(join), join.hint)
        raise SystemExit(WRONG_INPUT)
    if join.expires <= wall_clock():  # it may be this host's clock that is wrong, so it is tried
        complain(f"the certificate of {_shown(file)} has expired", "enroll the agent anew, or set the clock")
    try:
        return Identity(join, path, proxy)
    except (OSError, ValueError) as error:  # ssl.SSLError, too
        complain(
            f"{_shown(file)} holds no key and certificate that can be used: {error}", "enroll the agent anew"
        )
        raise SystemExit(WRONG_INPUT) from None
