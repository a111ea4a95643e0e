"""Where the machine's two files come from: seed disk, PORTWAY partition, or the image itself.

`rules.toml` is the ruleset, `network.toml` the network. A NoCloud seed disk (labelled cidata) may hold them
under these names, or the ruleset as `user-data` and the network as `network-config`, which is what tools that
make such disks can be told. Whatever else these two hold, cloud-config above all, is for another program.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RULES: Final = "rules.toml"
NETWORK: Final = "network.toml"
LAST_GOOD: Final = "rules.last-good.toml"

SEED_NAMES: Final = {RULES: (RULES, "user-data"), NETWORK: (NETWORK, "network-config")}
"""The names that a seed disk may have for each of the two."""

LARGEST: Final = 16 * 1024 * 1024

_FOREIGN: Final = ("#cloud-config", "#!", "Content-Type:", "#include", "#cloud-boothook", "## template:")
"""How what cloud-init reads begins."""


@dataclass(frozen=True, slots=True)
class Text:
    """A file that was found: its bytes, and where, in words for a message."""

    origin: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that may have the two files, its name in messages, and under which names."""

    label: str
    path: Path
    is_seed: bool = False

    def names(self, wanted: str) -> tuple[str, ...]:
        """Give the names that a file may have here."""
        return SEED_NAMES[wanted] if self.is_seed else (wanted,)


def first(places: Iterable[Place], wanted: str, problems: list[str]) -> Text | None:
    """Give the first of these places' files; what is no such file is told in `problems`."""
    for place in places:
        for name in place.names(wanted):
            text = _read(place, name, problems)
            if text is not None:
                return text
    return None


def _read(place: Place, name: str, problems: list[str]) -> Text | None:
    origin = f"{place.label}:{name}"
    try:
        with (place.path / name).open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"{origin}: cannot be read: {error.strerror}")
        return None
    if len(data) > LARGEST:
        problems.append(f"{origin}: is larger than {LARGEST >> 20} MiB")
        return None
    if place.is_seed and not data.strip():  # as tools leave it that are given none
        return None
    if (foreign := _foreign(data)) and place.is_seed:
        problems.append(
            f"{origin}: begins with {foreign!r}, which is for cloud-init; "
            f"Portway takes the text of {RULES} as user-data and that of {NETWORK} as network-config"
        )
        return None
    return Text(origin, data)


def _foreign(data: bytes) -> str | None:
    text = data[:64].decode(errors="replace").lstrip()
    if text.startswith(("version:", "network:")):  # netplan's YAML, as network-config
        return text.split("\n", 1)[0]
    return next((start for start in _FOREIGN if text.startswith(start)), None)
