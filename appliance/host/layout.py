"""Where an installation has its parts, on the host or below the root directory of an image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ACCOUNT: Final = "portway"
"""The user, and its group."""

CONFIGURATION: Final = Path("/etc/portway")
RULES: Final = CONFIGURATION / "rules.toml"
STATE: Final = Path("/var/lib/portway")
PROGRAMS: Final = Path("/opt/portway")
"""One folder form for each version, VERSION-DIGEST, and the two links to them."""
CURRENT: Final = PROGRAMS / "current"
PREVIOUS: Final = PROGRAMS / "previous"
LAUNCHER: Final = CURRENT / "portway"
COMMAND: Final = Path("/usr/local/bin/portway")
UNIT: Final = Path("/etc/systemd/system/portway.service")
ENABLED: Final = Path("/etc/systemd/system/multi-user.target.wants/portway.service")
"""What `systemctl enable` makes of the unit's WantedBy=."""
ADMIN: Final = Path("/run/portway/admin.sock")
SERVICE: Final = "portway.service"

TEMPORARY: Final = ".new-"
"""What the name of something half written begins with; left over from a kill, it is removed."""


class OutsideError(Exception):
    """A path of the installation leads out of the root directory."""


@dataclass(frozen=True, slots=True)
class Root:
    """The directory that is /, or stands for it."""

    path: Path = Path("/")

    @property
    def is_host(self) -> bool:
        """Say whether this is the running host."""
        return self.path.resolve() == Path("/")

    def at(self, path: Path) -> Path:
        """Give where a path of the installation is. Raises OutsideError where a link leads elsewhere."""
        place = self.path / path.relative_to("/")
        if not place.parent.resolve().is_relative_to(self.path.resolve()):
            raise OutsideError(
                f"{place.parent} leads to {place.parent.resolve()}, which is not below {self.path}"
            )
        return place
