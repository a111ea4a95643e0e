"""Paths of unix sockets."""

import re
from typing import Final

from appliance.problem import quoted
from appliance.values.misread import Misread

MAX_UNIX_PATH: Final = 107
"""Bytes of a unix socket's path: `sun_path` of sockaddr_un has 108, one is the closing NUL (unix(7))."""


def unix_path(text: str, path: str, example: str) -> str:
    """Check `path`, which `text` was written for, and give it with single slashes. Raises Misread.

    `example` is what to write instead, in the notation of `text`.
    """
    if not path.startswith("/"):
        raise Misread(f"{quoted(text)} is not an absolute path", f'write the whole path, such as "{example}"')
    if "\0" in path:
        raise Misread(f"{quoted(text)} has a NUL character", "a path ends at its first NUL; take it out")
    if path.endswith("/"):
        raise Misread(f"{quoted(text)} names a directory", f"name the socket in it, such as {example}")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise Misread(f"{quoted(text)} is not UTF-8 text", "give the socket a name in UTF-8") from None
    if size > MAX_UNIX_PATH:
        shorter = example.removeprefix("unix:")
        raise Misread(
            f"{quoted(text)} is {size} bytes long: the kernel takes {MAX_UNIX_PATH}",
            f"put the socket in a shorter path, such as {shorter}",
        )
    return re.sub("/+", "/", path)
