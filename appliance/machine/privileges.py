"""Giving up what PID 1 may do, in a child of its own."""

import os
from pathlib import Path
from typing import Final

from appliance.machine.syscalls import (
    PR_CAPBSET_DROP,
    PR_SET_KEEPCAPS,
    PR_SET_NAME,
    PR_SET_NO_NEW_PRIVS,
    Capability,
    prctl,
    set_capabilities,
)

UID: Final = 65532
GID: Final = 65532
"""As in the container: no user of the image, owner of nothing."""


def give_up(name: str, keep: tuple[Capability, ...] = ()) -> None:
    """Become user 65532 with no capability but `keep`, for good: this process and what it starts.

    `name` is what /proc/PID/comm shows. Raises OSError.
    """
    prctl(PR_SET_NAME, name.encode()[:15])
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    for capability in range(last + 1):
        if capability not in keep:
            prctl(PR_CAPBSET_DROP, capability)
    prctl(PR_SET_KEEPCAPS, int(bool(keep)))
    os.setgroups([])
    os.setresgid(GID, GID, GID)
    os.setresuid(UID, UID, UID)  # which clears all capabilities, but for KEEPCAPS
    set_capabilities(keep)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
