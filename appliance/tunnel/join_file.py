"""The file with which an agent joins: made by `enroll`, rewritten when its certificate is renewed."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from appliance.problem import Problem
from appliance.tunnel.join import LARGEST, PREFIX, Join, file_of, line_of, read_join, time_of

_MODE: Final = 0o600

_NO_RENAME: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV})
"""What says that nothing can be made beside a file, or put in its place: one mounted into a container."""


def save(path: str, join: Join, *, force: bool = False) -> None:
    """Make the file, for this user alone. Raises FileExistsError unless it is to replace one, and OSError."""
    text = file_of(join).encode()
    if force:
        _put(path, text, os.getuid(), os.getgid(), _MODE)
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        _fill(fd, text)
    except BaseException:
        with suppress(OSError):
            Path(path).unlink()
        raise


def load_join(path: str) -> Join | Problem:
    """Read a file. Raises OSError."""
    with Path(path).open("rb") as stream:
        return read_join(stream.read(LARGEST + 1), path)


def store(path: str, certificate: str, key: str, expires: float) -> None:
    """Put a renewed certificate and its key into the file; all else stays as the operator has it by now.

    Owner and mode stay too. Raises OSError where that cannot be done; the agent then goes on with what it has
    in memory, and should say so: after its next start it would have the old certificate.
    """
    path = os.path.realpath(path)
    text = Path(path).read_bytes()
    now = read_join(text, path)
    if isinstance(now, Problem):
        raise OSError(errno.EINVAL, f"is no join file any more: {now.what_and_where}", path)
    if text.lstrip().startswith(PREFIX.encode()):
        joined = replace(now, certificate=certificate, key=key, expires=expires)
        new = line_of(joined).encode() + b"\n"
    else:
        new = _edited(text, certificate, key, expires)
    found = os.stat(path)  # noqa: PTH116  of a real path
    try:
        _put(path, new, found.st_uid, found.st_gid, found.st_mode & 0o7777)
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
        _fill(os.open(path, os.O_WRONLY | os.O_CLOEXEC), new)


def _edited(text: bytes, certificate: str, key: str, expires: float) -> bytes:
    """Change three values of the file, and leave its other text and comments alone."""
    import tomlkit  # noqa: PLC0415  30 ms and 2 MB, for this alone

    document = tomlkit.parse(text.removeprefix(b"\xef\xbb\xbf").decode())
    for name, pem in (("certificate", certificate), ("key", key)):
        document[name] = tomlkit.value(f'"""\n{pem.strip()}\n"""')
    document["expires"] = tomlkit.datetime(time_of(expires))
    return tomlkit.dumps(document).encode()


def _put(path: str, text: bytes, uid: int, gid: int, mode: int) -> None:
    """Make a file and have it take the place of what is there."""
    new = Path(path).with_name(f".{Path(path).name}.{os.urandom(8).hex()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
        _fill(fd, text)
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def _fill(fd: int, text: bytes) -> None:
    with os.fdopen(fd, "wb") as stream:
        stream.write(text)
        stream.truncate()
        stream.flush()
        os.fsync(fd)
