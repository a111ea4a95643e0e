"""`portway enroll`: let an agent serve a tunnel."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
import msgspec

from appliance.cli.enrolment import SHORT, is_root, refuse, told, tunnel_of, unknown_agent
from appliance.cli.problems import complain
from appliance.observe.log import wall_clock
from appliance.problem import printable
from appliance.ruleset import Tunnel
from appliance.tunnel.authority import Issued, open_authority
from appliance.tunnel.join import MOST_GATEWAYS, Join, gateway_of, line_of, time_of
from appliance.tunnel.join_file import save
from appliance.tunnel.state import State
from appliance.values import AllowedTarget, Misread, Proxy, parse_duration

T = TypeVar("T")

_EXAMPLES: Final = """\b
Examples:
  portway enroll edge.toml office
  portway enroll edge.toml office --gateway gw.example:7443 --valid 90d
  portway enroll edge.toml office --gateway gw.example:7443 -o -
"""


def _each(parse: Callable[[str], T]) -> Callable[[Any, Any, tuple[str, ...]], tuple[str, ...]]:
    """Make what checks each value of an option, and leaves it as it was written."""

    def check(_ctx: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            _parsed(parse, text)
        return texts

    return check


def _proxy(_ctx: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is not None:
        _parsed(Proxy.parse, text)
    return text


def _duration(_ctx: click.Context, _option: click.Parameter, text: str) -> float:
    return _parsed(parse_duration, text)


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except Misread as misread:
        raise click.BadParameter("; ".join(filter(None, (misread.what, misread.hint)))) from None


@click.command(short_help="Let an agent serve a tunnel.", epilog=_EXAMPLES)
@click.argument("ruleset")
@click.argument("name")
@click.option(
    "--gateway",
    "gateways",
    metavar="HOST:PORT",
    multiple=True,
    callback=_each(gateway_of),
    help="Where the agent reaches this gateway, or another of the same state. [default: [tunnel] listen, "
    "where that is an address]",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The file to make, or - to print one line that can be pasted. [default: NAME.join]",
)
@click.option(
    "--valid",
    metavar="TIME",
    default="365d",
    show_default=True,
    callback=_duration,
    help="How long the agent may stay away. One that is connected renews its certificate in time.",
)
@click.option(
    "--allow-to",
    metavar="CIDR:PORTS",
    multiple=True,
    callback=_each(AllowedTarget.parse),
    help="What may be reached through the agent, at most; the ruleset's allow_to holds as well.",
)
@click.option(
    "--proxy", metavar="URL", callback=_proxy, help="Leave through http://… (CONNECT) or socks5://…."
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--json", "wants_json", is_flag=True, help="Print what was made as JSON.")
def enroll(
    ruleset: str,
    name: str,
    gateways: tuple[str, ...],
    output: str | None,
    valid: float,
    allow_to: tuple[str, ...],
    proxy: str | None,
    *,
    force: bool,
    wants_json: bool,
) -> None:
    """Let an agent serve the tunnel of RULESET as NAME, one of its [[agent]] names.

    Makes a key and a certificate, and one file with all that the agent needs. No gateway need run, and one
    that does takes the new agent at once. Run where [tunnel] state is, as its owner or root. A name may be
    enrolled again: each file is good by itself, and sessions spread over the agents that are there.
    """
    rules, tunnel = tunnel_of(ruleset)
    if name not in {agent.name for agent in rules.agents}:
        unknown_agent(ruleset, name, [agent.name for agent in rules.agents])
    gateways = gateways or _reached(ruleset, tunnel)
    if len(gateways) > MOST_GATEWAYS:
        refuse(f"{len(gateways)} gateways are too many", f"an agent serves {MOST_GATEWAYS} at most")
    file = output or f"{name}.join"
    if file != "-" and not force and Path(file).exists():
        _is_there(file)
    state = State(tunnel.state)
    with told(state):
        ca, issued, others = _enrolled(state, name, valid)
    join = Join(
        name=name,
        gateways=gateways,
        ca=ca,
        certificate=issued.certificate,
        key=issued.key,
        expires=issued.record.expires,
        allow_to=allow_to or None,
        proxy=proxy,
    )
    try:
        if file == "-" and not wants_json:
            click.echo(line_of(join))
        elif file != "-":
            _save(file, join, force=force)
    except (SystemExit, OSError):
        state.mark_revoked(issued.record.serial)  # nobody has its key
        raise
    _show(file, join, issued, others, wants_json=wants_json)


def _reached(path: str, tunnel: Tunnel) -> tuple[str, ...]:
    """Give where agents find the gateway, as far as [tunnel] listen says it."""
    concrete = tuple(
        str(address)
        for address in tunnel.listen
        if address.host not in {"", "0.0.0.0", "::"} and address.first_port
    )
    if concrete:
        return concrete
    port = next((address.first_port for address in tunnel.listen if address.first_port), 7443)
    what = f"{path} does not say under which address agents reach the gateway"
    return refuse(what, f"say it: --gateway HOST:{port}")


def _enrolled(state: State, name: str, valid: float) -> tuple[str, Issued, int]:
    """Give the CA's certificate, the agent's, and how many of its name are good beside it."""
    is_new = not Path(state.path).exists()
    authority = open_authority(state)
    if is_new and is_root():
        complain(
            f"made {state.path}, which belongs to root",
            "a gateway that is not root wants it to be its own: chown -R",
        )
    now = wall_clock()
    issued = authority.enrol(name, now, valid)
    good = [one for one in state.enrolled() if one.name == name and not one.revoked and one.expires > now]
    return authority.certificate, issued, len(good) - 1


def _is_there(file: str) -> NoReturn:
    complain(f"{file} is there already", "--force replaces it, -o names another file")
    raise SystemExit(1)


def _save(file: str, join: Join, *, force: bool) -> None:
    try:
        save(file, join, force=force)
    except FileExistsError:
        _is_there(file)
    except OSError as error:
        complain(f"cannot write {file}: {error.strerror or error}", "-o names another file")
        raise SystemExit(1) from None


def _show(file: str, join: Join, issued: Issued, others: int, *, wants_json: bool) -> None:
    is_line = file == "-"
    if wants_json:
        shown = {
            "agent": join.name,
            "serial": issued.record.serial,
            "expires": time_of(join.expires),
            "gateways": join.gateways,
            **({"join": line_of(join)} if is_line else {"file": file}),
        }
        click.echo(msgspec.json.format(msgspec.json.encode(shown)))
        return
    for line in _advice(file, join, issued, others):
        click.echo(printable(line), err=is_line)


def _advice(file: str, join: Join, issued: Issued, others: int) -> Iterator[str]:
    """Say what was made, and what to do with it on the other side."""
    made, to_do, there = file, "take it to", Path(file).name
    if file == "-":
        made, to_do, there = "the line", f"save it as {join.name}.join on", f"{join.name}.join"
    serial = issued.record.serial[:SHORT]
    yield f"{made}: agent {join.name}, certificate {serial}, until {time_of(join.expires)}"
    yield f"it dials {', '.join(join.gateways)}"
    if others:
        yield f"{join.name} has {others + 1} certificates now; portway revoke takes them back"
    yield f"{to_do} the agent's host, for its user alone to read, and run there:"
    yield f"  portway agent --join {shlex.quote(there)}"
