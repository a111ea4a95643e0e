"""`portway status`: what a running gateway says of itself.

Container health checks run this every few seconds, so what is imported counts: see the tests.
"""

from collections.abc import Iterator
from typing import Final

import click
import msgspec

from appliance.cli.admin_option import admin_option
from appliance.cli.asking import NoAnswerError, ask_gateway, complain_briefly
from appliance.problem import printable
from appliance.supervisor.status import ListenerStatus, RulesetStatus, Status, WorkerState, WorkerStatus
from appliance.values.admin import DEFAULT_ADMIN

_REQUEST: Final = b'{"verb":"status"}'


@click.command(short_help="Say how a running gateway is.")
@admin_option(f"The gateway's admin socket: a path, or @. [default: {DEFAULT_ADMIN}]")
@click.option("--healthy", is_flag=True, help="Say nothing but why it is not healthy; exit with 0 if it is.")
@click.option("--json", "wants_json", is_flag=True, help="Print what the gateway replied.")
@click.pass_context
def status(ctx: click.Context, admin: str | None, *, healthy: bool, wants_json: bool) -> None:
    """Say how a running gateway is: its ruleset, listeners and workers.

    Healthy is a gateway whose listeners are all bound, whose workers all accept clients and answer, and that
    does not drain. Exits with 1 when no gateway answers, and with --healthy when it is not healthy.
    """
    try:
        line, told = ask_gateway(admin or DEFAULT_ADMIN, _REQUEST, Status)
    except NoAnswerError as failed:
        complain_briefly(f"not healthy: {failed.what}" if healthy else failed.what, failed.hint)
        ctx.exit(1)
    if wants_json:
        click.echo(msgspec.json.format(line))
    elif not healthy:
        for shown in _screen(told):
            click.echo(printable(shown))
    if healthy and told.trouble:
        complain_briefly(f"not healthy: {told.trouble}")
        ctx.exit(1)


def _screen(told: Status) -> Iterator[str]:
    yield f"portway {told.version}, pid {told.pid}: {told.state}, up {_days(told.up)}, since {told.started}"
    yield _origin(told.ruleset)
    if told.trouble:
        yield f"not healthy: {told.trouble}"
    yield ""
    if told.listeners:
        yield from columns([_listener(listener) for listener in told.listeners])
        yield ""
    yield from columns([_worker(worker) for worker in told.workers])


def _origin(ruleset: RulesetStatus) -> str:
    if not ruleset.sha256:
        return f"agent, joined by {ruleset.path}"
    rules = "rule" if ruleset.rules == 1 else "rules"
    return f"ruleset {ruleset.path}: {ruleset.rules} {rules}, sha256 {ruleset.sha256}"


def _listener(listener: ListenerStatus) -> tuple[str, ...]:
    return listener.rule, listener.protocol, listener.address, "" if listener.bound else "not bound"


def _worker(worker: WorkerStatus) -> tuple[str, ...]:
    counts = [
        f"{count} of {most} {what}"
        for count, most, what in (
            (worker.sessions, worker.sessions_max, "sessions"),
            (worker.flows, worker.flows_max, "flows"),
        )
        if most and worker.state is WorkerState.READY
    ]
    pid = f"pid {worker.pid}" if worker.pid else ""
    return f"worker {worker.index}", pid, worker.state, ", ".join(counts)


def columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Give rows as lines, each cell as wide as the widest of its column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _days(seconds: float) -> str:
    """Write a time as people read it: 3d 04:05:06."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days}d " if days else "") + f"{hour:02d}:{minute:02d}:{second:02d}"
