"""The program that is running: the package in a Python, or frozen; and the folder that it was unpacked into.

Frozen, it lies in a tree that brings its own loader and C library (build/freeze.py):

    portway  lib/ld-linux-*.so.*  app/portway  app/_internal/

The single file unpacks that tree into a new folder, leaves a sweeper beside this process that removes the
folder when everybody who has the lifeline has ended, and tells by two variables: PORTWAY_UNPACKED, the
folder, and PORTWAY_LIFELINE, this process and the lifeline's descriptor, "PID:FD" (build/selfextract.c).
"""

import atexit
import os
import sys
from pathlib import Path
from typing import Final

LIBRARY_PATH: Final = "LD_LIBRARY_PATH"
UNPACKED: Final = "PORTWAY_UNPACKED"
LIFELINE: Final = "PORTWAY_LIFELINE"


def is_frozen() -> bool:
    """Say whether this is one of the frozen forms."""
    return bool(getattr(sys, "frozen", False))


def tree() -> Path | None:
    """Give the folder form that is running, if one is."""
    if not is_frozen():
        return None
    place = Path(sys.executable).parent.parent
    return place if (place / "lib").is_dir() else None


def command() -> list[str]:
    """Give the command that starts this program once more, to be followed by a verb."""
    if not is_frozen():
        return [sys.executable, "-m", "appliance"]
    place = tree()
    loader = next((place / "lib").glob("ld-linux-*"), None) if place else None
    if loader is None:  # an image whose loader is where the system's would be
        return [sys.executable]
    return [str(loader), "--library-path", str(_libraries()), "--argv0", sys.executable, sys.executable]


def lifeline() -> tuple[int, ...]:
    """Give what a process that runs `command` has to inherit: the folder stays as long as that lives."""
    owner, _, fd = os.environ.get(LIFELINE, "").partition(":")
    return (int(fd),) if owner else ()


def settle() -> None:
    """See to what is not as it is under a plain interpreter; before anything else is done."""
    if not is_frozen():
        return
    # PyInstaller's, for its own libraries, where neither launcher nor single file started it. The loader has
    # read it; other programs must not.
    before = os.environ.pop(f"{LIBRARY_PATH}_ORIG", None)
    if before is not None:
        os.environ[LIBRARY_PATH] = before
    elif os.environ.get(LIBRARY_PATH) == str(_libraries()):
        del os.environ[LIBRARY_PATH]
    owner, _, _ = os.environ.get(LIFELINE, "").partition(":")
    if owner == str(os.getpid()):
        # The first to be registered is the last to run. The sweeper would do it a moment after our end, or,
        # killed, not at all.
        atexit.register(_remove, os.environ[UNPACKED], os.getpid())


def _libraries() -> Path:
    return Path(sys.executable).with_name("_internal")


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and not a fork that ends by sys.exit()
        import shutil  # noqa: PLC0415  4 ms that nobody need wait for

        shutil.rmtree(folder, ignore_errors=True)
