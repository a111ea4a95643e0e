"""Starting a gateway from a ruleset: bind everything, then let the master run."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

from appliance.cli.problems import complain
from appliance.net.sockets import peer_text
from appliance.ruleset import Ruleset
from appliance.supervisor.binding import Binder, Refusal, inherited_sockets
from appliance.supervisor.master import Master
from appliance.supervisor.process import open_standard_fds, raise_fd_limit

MOST_TOLD: Final = 10
"""How many refusals are printed: what keeps 60,000 ports from being bound is mostly one thing."""


def serve(ruleset: Ruleset) -> int:
    """Run a gateway until a signal ends it; the exit status is 1 when an address cannot be bound."""
    open_standard_fds()
    raise_fd_limit()
    workers = ruleset.gateway.workers or len(os.sched_getaffinity(0))
    binder = Binder(workers, inherited_sockets())
    try:
        binder.bind(ruleset)
        if binder.refused:
            tell(binder.refused)
            return 1
        for unused in binder.unused:
            complain(f"no rule listens on the inherited {_address(unused)}")
            unused.close()
        return Master(ruleset, binder, workers).run()
    finally:
        binder.close()  # also when interrupted: a unix socket leaves no file behind


def tell(refused: Sequence[Refusal], hint: Callable[[Refusal], str | None] = lambda one: one.hint) -> None:
    """Print why addresses could not be bound, the first few of very many."""
    for refusal in refused[:MOST_TOLD]:
        complain(refusal.what, hint(refusal))
    if (more := len(refused) - MOST_TOLD) > 0:
        complain(f"and {more} more")


def _address(inherited: socket.socket) -> str:
    name = inherited.getsockname()
    return f"unix:{name}" if inherited.family == socket.AF_UNIX else peer_text(name)
