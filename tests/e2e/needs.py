"""What a test needs of the machine. In CI it must be there; elsewhere the test is skipped, and says why."""

import os
import shutil

import pytest


def program(name: str) -> str:
    """Find a program on PATH; return its path."""
    path = shutil.which(name)
    if path is None:
        lack(f"{name} is not installed")
    assert path is not None
    return path


def root() -> None:
    """Be root."""
    if os.geteuid():
        lack("this test must run as root")


def ipv6() -> None:
    """Have IPv6 on the loopback interface."""
    if not os.path.exists("/proc/net/if_inet6"):  # noqa: PTH110  one look, no path kept
        lack("this host has no IPv6")


def lack(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must have it")
    pytest.skip(what)
