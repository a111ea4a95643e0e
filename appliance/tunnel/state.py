"""What a gateway keeps of its agents: the directory that `[tunnel] state` names.

    ca.key, ca.pem        the gateway's own CA (`authority`)
    agents/SERIAL.json    each certificate that was made: whose, since when, until when
    revoked/SERIAL        an empty file: that certificate was taken back
    seen/SERIAL.json      when and from where an agent showed it last

Several processes write here: gateways' workers, and the verbs beside them. Every file comes whole, by rename,
and none is ever changed, so nobody waits for anybody; only the CA is made under a lock. What root makes
belongs to the directory's owner, or the gateway, which is not root, could not read it. Nothing but the CA's
key is secret.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

SECRET: Final = 0o600
PUBLIC: Final = 0o644

AGENTS: Final = "agents"
REVOKED: Final = "revoked"
SEEN: Final = "seen"

_PRIVATE: Final = 0o700
_SERIAL: Final = re.compile(r"[0-9a-f]{32}")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

T = TypeVar("T", bound=msgspec.Struct)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that was made. Times are seconds since 1970."""

    name: str
    serial: str
    """32 hexadecimal digits, in lower case."""
    issued: float
    expires: float
    replaces: str = ""
    """The serial of the certificate that was renewed by this one."""


class Seen(msgspec.Struct, frozen=True, kw_only=True, rename={"peer": "from"}):
    """When and from where an agent showed a certificate last, and its version of Portway."""

    at: float
    """Seconds since 1970."""
    peer: str
    version: str


class Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate, and what has become of it."""

    name: str
    serial: str
    issued: float
    expires: float
    replaces: str
    revoked: bool
    seen: Seen | None


class State:
    """A state directory. Whatever cannot be read or written is an OSError that names the file."""

    __slots__ = ("_revoked", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._revoked = f"{path}/{REVOKED}/"

    def is_revoked(self, serial: str) -> bool:
        """Say whether a certificate was taken back: one stat(2). Where that cannot be told, it was."""
        try:
            os.stat(self._revoked + serial)  # noqa: PTH116  asked at each connection
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def enrolled(self) -> list[Enrolled]:
        """Give every certificate that was made, by name, the oldest first."""
        found = [self._enrolled(record) for record in self._records()]
        return sorted(found, key=lambda one: (one.name, one.issued, one.serial))

    def _enrolled(self, record: Record) -> Enrolled:
        return Enrolled(
            **msgspec.structs.asdict(record),
            revoked=self.is_revoked(record.serial),
            seen=self._seen(record.serial),
        )

    def _records(self) -> Iterator[Record]:
        for serial in self._serials():
            text = Path(self.path, AGENTS, f"{serial}.json").read_bytes()
            yield _decoded(text, Record, f"{self.path}/{AGENTS}/{serial}.json")

    def record_of(self, serial: str) -> Record | None:
        """Give what was kept of a certificate; None where it was not."""
        path = Path(self.path, AGENTS, f"{serial}.json")
        try:
            return _decoded(path.read_bytes(), Record, str(path))
        except FileNotFoundError:
            return None

    def _serials(self) -> list[str]:
        try:
            names = os.listdir(f"{self.path}/{AGENTS}")  # noqa: PTH208  names, not paths
        except FileNotFoundError:
            return []
        return sorted(name[:-5] for name in names if name.endswith(".json") and _SERIAL.fullmatch(name[:-5]))

    def _seen(self, serial: str) -> Seen | None:
        path = Path(self.path, SEEN, f"{serial}.json")
        try:
            return _decoded(path.read_bytes(), Seen, str(path))
        except FileNotFoundError:
            return None

    def record(self, record: Record) -> None:
        """Keep that a certificate was made; to be done before it is handed out."""
        self.write(f"{AGENTS}/{record.serial}.json", msgspec.json.encode(record) + b"\n", PUBLIC)

    def revoke(self, *, name: str | None = None, serial: str | None = None) -> list[Enrolled]:
        """Take back all certificates of a name, or those of them with a serial; give those it took back.

        `serial` may be the beginning of one. A renewal at the same time does not slip through: whoever renews
        keeps the new certificate's record and only then looks whether the old one was taken back
        (`Authority.renew`). Either it sees that, or the record is there for the second look here.
        """
        taken: list[Enrolled] = []
        while live := [one for one in self.enrolled() if not one.revoked and _is_meant(one, name, serial)]:
            for one in live:
                self.mark_revoked(one.serial)
            taken += live
        return taken

    def mark_revoked(self, serial: str) -> None:
        """Take one certificate back, known here or not."""
        if not _SERIAL.fullmatch(serial):
            raise ValueError(serial)
        self.write(f"{REVOKED}/{serial}", b"", PUBLIC)

    def note_seen(self, serial: str, at: float, peer: str, version: str) -> None:
        """Keep that an agent has shown a certificate. Not forced to the disk: it is written often."""
        text = msgspec.json.encode(Seen(at=at, peer=peer, version=version)) + b"\n"
        self.write(f"{SEEN}/{serial}.json", text, PUBLIC, lasting=False)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one in here, for what takes several files; makes the directory where there is none.

        The kernel lets go of it with the process: a crash leaves no lock behind.
        """
        with suppress(FileExistsError):
            os.mkdir(self.path, _PRIVATE)  # noqa: PTH102  FileExistsError also for a link to nowhere
        directory = os.open(self.path, _DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def read(self, name: str) -> bytes:
        """Give what a file holds."""
        return Path(self.path, name).read_bytes()

    def write(self, name: str, text: bytes, mode: int, *, lasting: bool = True) -> None:
        """Make or replace a file, whole; with `lasting` it outlives a power cut from here on."""
        folder, _, last = name.rpartition("/")
        top = os.open(self.path, _DIRECTORY)
        try:
            owner = _owner_to_give(top)
            directory = _folder(top, folder, owner) if folder else top
            try:
                _replace(directory, last, text, mode, owner, lasting=lasting)
            finally:
                if directory != top:
                    os.close(directory)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{self.path}/{name}") from None
        finally:
            os.close(top)


def _is_meant(one: Enrolled, name: str | None, serial: str | None) -> bool:
    return name in {None, one.name} and one.serial.startswith(serial or "")


def _decoded(text: bytes, kind: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise OSError(errno.EBADMSG, f"is not as Portway writes it: {wrong}", path) from None


def _owner_to_give(directory: int) -> tuple[int, int] | None:
    """Give whom new files in a directory are to belong to, where it is not the one who makes them."""
    if os.geteuid() != 0:
        return None
    found = os.fstat(directory)
    return (found.st_uid, found.st_gid) if (found.st_uid, found.st_gid) != (0, os.getegid()) else None


def _folder(top: int, name: str, owner: tuple[int, int] | None) -> int:
    """Open a directory below the state directory, and make it first where it is missing.

    No link is followed: root writes here, and the directory is another's.
    """
    made = False
    with suppress(FileExistsError):
        os.mkdir(name, _PRIVATE, dir_fd=top)
        made = True
    directory = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    if made and owner:
        os.fchown(directory, *owner)
    return directory


def _replace(
    directory: int, name: str, text: bytes, mode: int, owner: tuple[int, int] | None, *, lasting: bool
) -> None:
    new = f".{name}.{os.urandom(8).hex()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SECRET, dir_fd=directory)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(fd, mode)  # whatever the umask is
            if owner:
                os.fchown(fd, *owner)
            if lasting:
                os.fsync(fd)
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(new, dir_fd=directory)
        raise
    if lasting:
        os.fsync(directory)
