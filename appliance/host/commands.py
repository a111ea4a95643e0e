"""The host's own programs, as this program calls them."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Behind the caller's own: sudo and cron leave parts of it out."""


class CommandError(Exception):
    """A program of the host failed; the text says which, and what it said."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the environment for other programs."""
    path = environ.get("PATH")
    return {**environ, "PATH": f"{path}:{_SYSTEM_PATH}" if path else _SYSTEM_PATH}


def find(name: str) -> str | None:
    """Find a program of the host."""
    return shutil.which(name, path=environment(os.environ)["PATH"])


def attempt(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a program and give what it said. Raises OSError when it is not there."""
    return subprocess.run(  # noqa: S603  the callers name it
        [str(word) for word in command],
        env=environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def run(*command: str | Path) -> str:
    """Run a program and give its stdout. Raises CommandError when it failed."""
    done = attempt(*command)
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise CommandError(f"{Path(command[0]).name}: {said}")
    return done.stdout
