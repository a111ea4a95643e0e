"""Starting a gateway from a ruleset: bind everything, then let the master run."""

import os
import sys

from appliance.net.sockets import open_standard_fds, raise_fd_limit
from appliance.ruleset import Ruleset
from appliance.supervisor.binding import Binder, inherited_sockets
from appliance.supervisor.master import Master


def serve(ruleset: Ruleset) -> int:
    """Run a gateway until a signal ends it; the exit status is 1 when an address cannot be bound."""
    open_standard_fds()
    raise_fd_limit()
    workers = ruleset.gateway.workers or len(os.sched_getaffinity(0))
    binder = Binder(workers, inherited_sockets())
    binder.bind(ruleset)
    if binder.refused:
        binder.close()
        for refusal in binder.refused:
            sys.stderr.write(f"portway: {refusal.what}\n")
            if refusal.hint:
                sys.stderr.write(f"  hint: {refusal.hint}\n")
        return 1
    for unused in binder.unused:
        sys.stderr.write(f"portway: no rule listens on the inherited {unused.getsockname()}\n")
        unused.close()
    return Master(ruleset, binder, workers).run()
