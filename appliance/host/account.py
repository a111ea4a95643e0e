"""The system user and its group: made and taken away by whichever programs the host has.

Debian, RHEL, SUSE and Arch have useradd (shadow); Alpine has adduser of busybox.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.host.commands import CommandError, find, run
from appliance.host.layout import Root

_SHELLS: Final = (Path("/usr/sbin/nologin"), Path("/sbin/nologin"))
_NO_SHELL: Final = Path("/bin/false")
_NO_HOME: Final = "/nonexistent"
_COMMENT: Final = "Portway gateway"

Find = Callable[[str], str | None]


def names(root: Root, file: str) -> dict[int, str]:
    """Give number and name of each line of /etc/passwd or /etc/group; of two names of a number, the first.

    Number 0 is root, also of an image that has no such file yet.
    """
    try:
        text = root.at(Path("/etc") / file).read_text(errors="replace")
    except FileNotFoundError:
        return {0: "root"}
    found = {0: "root"}
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdecimal():  # noqa: PLR2004  name, password, number
            found.setdefault(int(fields[2]), fields[0])
    return found


def number(root: Root, file: str, name: str) -> int:
    """Give the number of a user ("passwd") or group ("group"). Raises CommandError where there is none."""
    for each, known in names(root, file).items():
        if known == name:
            return each
    raise CommandError(f"{root.at(Path('/etc') / file)} has no {name}")


def create(root: Root, name: str) -> None:
    """Make what is missing of group and user. Raises CommandError."""
    if name not in names(root, "group").values():
        run(*group_command(root, name, find))
    if name not in names(root, "passwd").values():
        run(*user_command(root, name, find))


def remove(root: Root, name: str) -> None:
    """Remove what there is of user and group. Raises CommandError."""
    if name in names(root, "passwd").values():
        run(*_by(root, find, ("userdel", name), ("deluser", name)))
    if name in names(root, "group").values():  # userdel takes it along where the system is set up so
        run(*_by(root, find, ("groupdel", name), ("delgroup", name)))


def group_command(root: Root, name: str, find: Find) -> tuple[str, ...]:
    """Give the command that makes the group."""
    return _by(root, find, ("groupadd", "--system", name), ("addgroup", "-S", name))


def user_command(root: Root, name: str, find: Find) -> tuple[str, ...]:
    """Give the command that makes the user."""
    shell = str(next((one for one in _SHELLS if root.at(one).exists()), _NO_SHELL))
    shadow = ("useradd", "--system", "--gid", name, "--no-create-home", "--home-dir", _NO_HOME)
    busybox = ("adduser", "-S", "-D", "-H", "-h", _NO_HOME, "-s", shell, "-G", name, "-g", _COMMENT, name)
    return _by(root, find, (*shadow, "--shell", shell, "--comment", _COMMENT, name), busybox)


def _by(root: Root, find: Find, shadow: tuple[str, ...], busybox: tuple[str, ...]) -> tuple[str, ...]:
    """Take the program that is there; for another root directory, have it look there."""
    if (program := find(shadow[0])) is not None:
        return (program, *(() if root.is_host else ("--prefix", str(root.path))), *shadow[1:])
    if (program := find(busybox[0])) is not None:
        return (program, *busybox[1:]) if root.is_host else ("chroot", str(root.path), *busybox)
    raise CommandError(f"this host has neither {shadow[0]} nor {busybox[0]}; make user and group by hand")
