"""The server names by which agents say which of the gateway's workers they mean.

    a3of4.gateway.portway     the agent's worker 3 of 4 dials: the worker 3 % W of the gateway's W is meant
    w1.gateway.portway        the worker 1 % W is meant

An agent dials before it knows how many workers there are, hence the first form; the second is for the
channels it opens once it does. Names are in lower case, and read without regard to case, as host names are.
"""

import re
from typing import Final

DOMAIN: Final = "gateway.portway"
"""What the gateway's certificate is for, and one label under it: nothing that is ever resolved."""

MAX_WORKERS: Final = 256
"""Of a gateway or an agent: as many as a ruleset may ask for."""

_AGENT: Final = re.compile(rf"a(0|[1-9][0-9]{{0,2}})of([1-9][0-9]{{0,2}})\.{re.escape(DOMAIN)}")
_WORKER: Final = re.compile(rf"w(0|[1-9][0-9]{{0,2}})\.{re.escape(DOMAIN)}")


def agent_name(worker: int, workers: int) -> str:
    """Give what an agent's worker says of itself. Raises ValueError where there is no such worker."""
    if not 0 <= worker < workers <= MAX_WORKERS:
        raise ValueError(f"worker {worker} of {workers}")
    return f"a{worker}of{workers}.{DOMAIN}"


def worker_name(worker: int) -> str:
    """Give the name of a gateway's worker. Raises ValueError where there is no such worker."""
    if not 0 <= worker < MAX_WORKERS:
        raise ValueError(f"worker {worker}")
    return f"w{worker}.{DOMAIN}"


def worker_meant(name: str | None, workers: int) -> int | None:
    """Say which of a gateway's `workers` a server name means; None: the name is none of these."""
    if name is None:
        return None
    name = name.lower()
    if match := _AGENT.fullmatch(name):
        worker, among = int(match[1]), int(match[2])
        return worker % workers if worker < among <= MAX_WORKERS else None
    if (match := _WORKER.fullmatch(name)) and int(match[1]) < MAX_WORKERS:
        return int(match[1]) % workers
    return None
