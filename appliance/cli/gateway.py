"""Starting a gateway from a ruleset: bind everything, then let the master run."""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from appliance.cli.problems import complain
from appliance.cli.ruleset_file import load_with_text
from appliance.net.sockets import peer_text
from appliance.ruleset import Ruleset
from appliance.supervisor.admin import admin_socket, refusal_hint, remove
from appliance.supervisor.binding import Binder, Refusal, inherited_sockets
from appliance.supervisor.generation import Loaded, Reread, cannot_reload
from appliance.supervisor.master import Master
from appliance.supervisor.process import open_standard_fds, raise_fd_limit
from appliance.supervisor.status import RulesetStatus
from appliance.supervisor.tunnels import Plan, gateway_plan

MOST_TOLD: Final = 10
"""How many refusals are printed: what keeps 60,000 ports from being bound is mostly one thing."""


def ruleset_status(path: str, text: bytes, ruleset: Ruleset) -> RulesetStatus:
    """Say which ruleset it is, for those who ask the gateway."""
    return RulesetStatus(path, hashlib.sha256(text).hexdigest(), len(ruleset.rules))


def workers_of(ruleset: Ruleset) -> int:
    """Say how many workers a ruleset wants on this host."""
    return ruleset.gateway.workers or len(os.sched_getaffinity(0))


def reread_of(path: str) -> Reread:
    """Make what reads the ruleset at `path` again."""

    def reread() -> Loaded | str:
        if Path(path).exists() and not Path(path).is_file():
            # A FIFO that nobody writes to, such as bash's <(...) by now, would hold the master up for ever.
            return f"{path} is no file to read again: restart to apply a new ruleset"
        ruleset, text = load_with_text(path)
        if isinstance(ruleset, Ruleset):
            return ruleset, ruleset_status(path, text, ruleset), workers_of(ruleset)
        more = f" (and {len(ruleset) - 1} more: portway check {path})" if len(ruleset) > 1 else ""
        return f"{ruleset[0]}{more}"

    return cannot_reload if path == "-" else reread


def serve(
    ruleset: Ruleset, origin: RulesetStatus, admin: str | None = None, reread: Reread = cannot_reload
) -> int:
    """Run a gateway until a signal ends it; the exit status is 1 when an address cannot be bound.

    `origin` is which ruleset it is; `admin` the address of the admin socket where the ruleset names none;
    `reread` gives the ruleset anew on a reload.
    """
    open_standard_fds()
    raise_fd_limit()
    workers = workers_of(ruleset)
    binder = Binder(workers, inherited_sockets())
    try:
        binder.bind(ruleset)
        if binder.refused:
            tell(binder.refused)
            return 1
        plan = _plan(ruleset, workers)
        for unused in binder.unused:
            complain(f"no rule listens on the inherited {_address(unused)}")
            unused.close()
        with admin_listener(ruleset.gateway.admin or admin) as listening:
            return Master(ruleset, binder, workers, origin, listening, reread, plan).run()
    finally:
        binder.close()  # also when interrupted: a unix socket leaves no file behind


def _plan(ruleset: Ruleset, workers: int) -> Plan | None:
    """Prepare the tunnels, or end the program with status 1."""
    try:
        return gateway_plan(ruleset, workers)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        what, hint = (
            f"{where}{error.strerror or error}",
            "[tunnel] state is a directory of the gateway's user",
        )
    except ValueError as error:
        what, hint = str(error), None
    complain(f"cannot prepare tunnels: {what}", hint)
    raise SystemExit(1) from None


@contextmanager
def admin_listener(address: str | None) -> Iterator[socket.socket | None]:
    """Listen on the admin socket while the block runs, or end the program with status 1."""
    if address is None:
        yield None
        return
    try:
        listening = admin_socket(address)
    except OSError as error:
        what = f"cannot listen on the admin socket {address}: {error.strerror or error}"
        complain(what, refusal_hint(address, error))
        raise SystemExit(1) from None
    try:
        yield listening
    finally:
        remove(listening)


def tell(refused: Sequence[Refusal], hint: Callable[[Refusal], str | None] = lambda one: one.hint) -> None:
    """Print why addresses could not be bound, the first few of very many."""
    for refusal in refused[:MOST_TOLD]:
        complain(refusal.what, hint(refusal))
    if (more := len(refused) - MOST_TOLD) > 0:
        complain(f"and {more} more")


def _address(inherited: socket.socket) -> str:
    name = inherited.getsockname()
    return f"unix:{name}" if inherited.family == socket.AF_UNIX else peer_text(name)
