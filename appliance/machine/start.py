"""The first moments of PID 1, and its last: what is done before most of the program is imported.

Importing takes a third of the time from kernel to gateway; drivers are loaded meanwhile, in a child.
"""

import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from appliance.machine.drivers import load_early
from appliance.machine.mounts import make_tree
from appliance.machine.power import go_down
from appliance.machine.syscalls import Restart
from appliance.supervisor.process import open_standard_fds

PAUSE: Final = 10.0
"""Seconds before the restart that follows a failure of PID 1 itself."""

_failure: list[Callable[[str], float]] = []


def on_failure(keep: Callable[[str], float]) -> None:
    """Have `keep` called with the traceback when PID 1 fails; it gives the pause before the restart."""
    _failure[:] = [keep]


def start(rest: Callable[[int], None]) -> NoReturn:
    """Be PID 1: `rest` is what it is, called with the child that loads drivers.

    What nothing else caught restarts the machine, its reason kept where it can be: PID 1 must not end.
    """
    try:
        make_tree()
        open_standard_fds()
        rest(load_early())
    except BaseException as fault:  # noqa: BLE001  the kernel would panic
        _restart("".join(traceback.format_exception(fault)))
    while True:  # the kernel has refused to go down
        time.sleep(60)


def _restart(text: str) -> None:
    with suppress(OSError):
        os.write(2, f"portway: PID 1 has failed\n{text}".encode())
    pause = PAUSE
    for keep in _failure:
        with suppress(Exception):
            pause = keep(text)
    time.sleep(pause)
    with suppress(OSError):
        go_down(Restart.AUTOBOOT, lambda: None)
