"""Which items make an installation, and which its absence. Pure."""

from dataclasses import dataclass
from typing import Final

from appliance.host.items import Absent, Account, Directory, File, Item, Link, NoAccount, Program
from appliance.host.layout import (
    ACCOUNT,
    COMMAND,
    CONFIGURATION,
    CURRENT,
    ENABLED,
    LAUNCHER,
    PREVIOUS,
    PROGRAMS,
    RULES,
    STATE,
    UNIT,
)
from appliance.host.starter import STARTER
from appliance.host.unit import MADE, UNIT_TEXT

_SHORT: Final = 12


@dataclass(frozen=True, slots=True)
class Release:
    """What is to be installed: its version, and the digest of its folder form, if that is at hand."""

    version: str
    digest: str | None

    @property
    def name(self) -> str:
        """Name its folder."""
        return f"{self.version}-{self.digest[:_SHORT] if self.digest else 'DIGEST'}"


@dataclass(frozen=True, slots=True)
class Programs:
    """What there is in /opt/portway: the names, and which of them the two links name."""

    names: frozenset[str] = frozenset()
    current: str | None = None
    previous: str | None = None

    def before(self, new: str) -> str | None:
        """Name the folder to go back to once `new` is the current one."""
        for name in (self.current, self.previous):
            if name != new and name in self.names:
                return name
        return None


def installation(release: Release, there: Programs, *, has_accounts: bool) -> tuple[Item, ...]:
    """List what is wanted, in the order in which it is made: at each moment what was installed before works.

    An image may have no accounts yet; then what would be the user's is root's.
    """
    us = ACCOUNT if has_accounts else "root"
    before = there.before(release.name)
    return (
        *((Account(),) if has_accounts else ()),
        Directory(CONFIGURATION, 0o750, "root", us),
        File(RULES, STARTER, 0o640, "root", us, is_starter=True),
        Directory(STATE, 0o700, us, us),
        Directory(PROGRAMS),
        Program(PROGRAMS / release.name, release.digest),
        Link(COMMAND, str(LAUNCHER)),
        File(UNIT, UNIT_TEXT, mark=MADE),
        Link(PREVIOUS, before) if before else Absent(PREVIOUS),
        Link(CURRENT, release.name),
        Link(ENABLED, str(UNIT)),
    )


def outdated(release: Release, there: Programs, running: str | None) -> tuple[Item, ...]:
    """List what goes in the end: all programs but the release, the one before, and what runs; half copies."""
    kept = {release.name, there.before(release.name), running}
    return tuple(Absent(PROGRAMS / name) for name in sorted(there.names - kept))


@dataclass(frozen=True, slots=True)
class Kept:
    """What an uninstallation leaves where it is."""

    rules: bool = False
    state: bool = False
    command: bool = False
    """It is another program's."""
    unit: bool = False
    """Somebody else made it, and the service with it."""
    programs: bool = False
    """/opt/portway itself, for there is something else in it."""


def absence(there: Programs, kept: Kept) -> tuple[Item, ...]:
    """List what is to be gone, in that order; the account stays as long as anything of its own does.

    A later user could get its number, and with it what was left.
    """
    return (
        *(() if kept.unit else (Absent(ENABLED), Absent(UNIT))),
        *(() if kept.command else (Absent(COMMAND),)),
        *(() if kept.rules else (Absent(CONFIGURATION),)),
        *(() if kept.state else (Absent(STATE),)),
        *(() if kept.rules or kept.state else (NoAccount(),)),
        Absent(CURRENT),
        Absent(PREVIOUS),
        *(Absent(PROGRAMS / name) for name in sorted(there.names)),
        *(() if kept.programs else (Absent(PROGRAMS),)),
    )
