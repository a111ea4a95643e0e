"""The address of an admin socket: a path, or `@`."""

from typing import Final

from appliance.problem import quoted
from appliance.values.misread import Misread
from appliance.values.unix_path import unix_path

ABSTRACT: Final = "@"
"""Stands for an abstract unix address (unix(7)) that belongs to the mount namespace: it needs no file."""

DEFAULT_ADMIN: Final = "/run/portway/admin.sock"
"""Where an admin socket is looked for when nobody says where."""


def parse_admin(text: str) -> str:
    """Read `/run/portway/admin.sock` or `@`; give the path with single slashes, or `@`. Raises Misread."""
    if text == ABSTRACT:
        return text
    if text.startswith(ABSTRACT):
        raise Misread(
            f"{quoted(text)} names an abstract socket",
            'write "@" alone: its name is made from the mount namespace, so that containers do not meet',
        )
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        meant = path if path.startswith("/") else DEFAULT_ADMIN
        raise Misread(f"{quoted(text)} is more than a path", f"write {quoted(meant)}")
    if not text.startswith("/"):
        raise Misread(
            f"{quoted(text)} is not an absolute path",
            f'the admin socket is a unix socket: write its whole path, such as "{DEFAULT_ADMIN}", or "@"',
        )
    return unix_path(text, text, example=DEFAULT_ADMIN)
