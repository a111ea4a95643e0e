"""The things an installation is made of, each as it is wanted. Paths are those of the host."""

from dataclasses import dataclass
from pathlib import Path

from appliance.host.layout import ACCOUNT


@dataclass(frozen=True, slots=True)
class Account:
    """A system user and its group of the same name: no password, no shell, no home."""

    name: str = ACCOUNT

    def __str__(self) -> str:
        return f"user {self.name}"


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory with its mode and owner."""

    path: Path
    mode: int = 0o755
    owner: str = "root"
    group: str = "root"

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class File:
    """A file with its text."""

    path: Path
    text: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    is_starter: bool = False
    """Only what there is to begin with: whatever the operator made of it stays."""
    mark: str = ""
    """How a file begins that is replaced; another one is somebody else's."""

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    path: Path
    target: str

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Program:
    """A copy of a folder form; `digest` is that of its content, and None where it is not at hand."""

    path: Path
    digest: str | None

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Absent:
    """A path at which there is to be nothing."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class NoAccount:
    """The user and its group are to be gone."""

    name: str = ACCOUNT

    def __str__(self) -> str:
        return f"user {self.name}"


Item = Account | Directory | File | Link | Program | Absent | NoAccount
