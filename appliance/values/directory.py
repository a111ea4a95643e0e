"""Paths of directories that hold files of ours."""

import re
from typing import Final

from appliance.problem import quoted
from appliance.values.misread import Misread

MAX_DIRECTORY: Final = 3840
"""Bytes of such a path: the kernel takes 4095 (PATH_MAX counts the closing NUL), files in it need some."""


def parse_directory(text: str, example: str) -> str:
    """Read an absolute path; give it with single slashes and none at its end. Raises Misread.

    `example` is what to write instead.
    """
    if not text.startswith("/"):
        raise Misread(f"{quoted(text)} is not an absolute path", f'write the whole path, such as "{example}"')
    if "\0" in text:
        raise Misread(f"{quoted(text)} has a NUL character", "a path ends at its first NUL; take it out")
    path = re.sub("/+", "/", text).rstrip("/")
    if not path:
        raise Misread(
            f"{quoted(text)} is the root of all directories", f'name one of its own, such as "{example}"'
        )
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Misread(f"{quoted(text)} is not UTF-8 text", "give the directory a name in UTF-8") from None
    if size > MAX_DIRECTORY:
        what = f"{quoted(text)} is {size} bytes long: {MAX_DIRECTORY} leave room for the names of files"
        raise Misread(what, f"take a shorter path, such as {example}")
    return path
