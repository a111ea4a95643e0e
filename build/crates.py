"""Rust that is linked into extension modules: which crates, by what is left of the paths of their sources.

Neither dpkg nor pip knows of them. A crate that can never panic leaves no path, and is not found.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TEXTS: Final = Path(__file__).with_name("texts")

SOURCE: Final = re.compile(rb"cargo/registry/(?:src/[^/]+/)?([a-z0-9_-]+?)-(\d+\.\d+\.\d+)/")
"""Debian's folder of crates, or cargo's own."""

COMPILER: Final = re.compile(rb"/rustc-(\d+\.\d+\.\d+)/library/")
"""The standard library, by the compiler that it belongs to."""

EITHER: Final = "MIT OR Apache-2.0"

LICENCES: Final = {
    "asn1": ("BSD-3-Clause", "asn1.txt"),
    "base64": (EITHER, "apache.txt"),
    "chrono": (EITHER, "apache.txt"),
    "once_cell": (EITHER, "apache.txt"),
    "parking_lot": (EITHER, "apache.txt"),
    "parking_lot_core": (EITHER, "apache.txt"),
    "pem": ("MIT", "pem.txt"),
    "pyo3": ("Apache-2.0", "apache.txt"),
    "pyo3-ffi": ("Apache-2.0", "apache.txt"),
    "smallvec": (EITHER, "apache.txt"),
    "std": (EITHER, "apache.txt"),
}
"""What each crate's Cargo.toml says, and the text that goes with it; of two licences we take Apache's."""


@dataclass(frozen=True, slots=True, order=True)
class Crate:
    """A crate; `std` stands for what comes with the compiler, whose version it has."""

    name: str
    version: str

    @property
    def licence(self) -> str:
        """Its SPDX expression; exits where nobody has looked it up."""
        return self._known[0]

    @property
    def text(self) -> Path:
        """The file with its terms."""
        return TEXTS / self._known[1]

    @property
    def _known(self) -> tuple[str, str]:
        if self.name not in LICENCES:
            sys.exit(
                f"crates: nobody has said under which licence the crate {self.name} is (build/crates.py)"
            )
        return LICENCES[self.name]


def linked(files: Iterable[Path]) -> list[Crate]:
    """Name the crates in these files, each once."""
    found = set()
    for file in files:
        data = file.read_bytes()
        found |= {Crate(name.decode(), version.decode()) for name, version in SOURCE.findall(data)}
        found |= {Crate("std", version.decode()) for version in COMPILER.findall(data)}
    return sorted(found)
