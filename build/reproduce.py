"""Builds twice in different surroundings and compares: `make reproduce`. Standard library only.

    python -m build.reproduce [binary] [image] [vm]

Two fresh clones of this commit, in folders of different names and lengths, built under another umask, time
zone, locale and hash seed. Exit status 1 when a form differs; the table then says where first.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

SAME: Final = "same"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a build happens; nothing of it may be in what it makes."""

    folder: str
    umask: int
    environment: dict[str, str]


SURROUNDINGS: Final = (
    Surroundings("a", 0o022, {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}),
    Surroundings(
        "another-folder/of a longer name/than the first has",
        0o077,
        {"TZ": "Pacific/Kiritimati", "LC_ALL": "POSIX", "PYTHONHASHSEED": "4711"},
    ),
)

MADE: Final = {
    "binary": ("portway", "portway-*.tar.gz"),
    "image": ("portway-oci.tar",),
    "vm": ("portway.raw",),
}
"""Make target: what it makes that must not differ. The qcow2 is of the raw image, and qemu-img's affair."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was built twice: its name, its digests (SHA-256), and where they part."""

    name: str
    first: str
    second: str
    where: str

    @property
    def is_same(self) -> bool:
        """Say whether both builds gave the same bytes."""
        return self.first == self.second


def main() -> None:
    """Build, compare, print."""
    parser = argparse.ArgumentParser(description="Build twice and compare.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=["binary"], help=", ".join(MADE))
    targets = parser.parse_args().targets
    if unknown := set(targets) - set(MADE):
        parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(MADE)}")
    with tempfile.TemporaryDirectory(prefix="portway-reproduce-") as place:
        first, second = (build(Path(place), one, targets) for one in SURROUNDINGS)
        verdicts = list(compare(first, second, targets))
    print(table(verdicts))
    sys.exit(int(not all(one.is_same for one in verdicts)))


def build(place: Path, where: Surroundings, targets: list[str]) -> Path:
    """Clone and build; give the folder of what was made."""
    clone = place / where.folder / "portway"
    clone.parent.mkdir(parents=True)
    _run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone), where=where)
    print(f"reproduce: building {' '.join(targets)} in {clone}", flush=True)
    _run("make", "--no-print-directory", "-C", str(clone), *targets, where=where)
    return clone / "dist"


def _run(*command: str, where: Surroundings) -> None:
    # What the outer make has said about itself is not for the inner one.
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        command, env={**mine, **where.environment}, umask=where.umask, stdout=sys.stderr, check=False
    )
    if done.returncode:
        sys.exit(f"reproduce: {' '.join(command[:2])} ended with status {done.returncode}")


def compare(first: Path, second: Path, targets: list[str]) -> Iterator[Verdict]:
    """Hold what both builds made against each other."""
    for target in targets:
        for pattern in MADE[target]:
            (one,), (other,) = (sorted(folder.glob(pattern)) for folder in (first, second))
            yield Verdict(
                one.name, _sha256(one.read_bytes()), _sha256(other.read_bytes()), difference(one, other)
            )
            if target == "image":
                yield from _image(one, other)


def _image(one: Path, other: Path) -> Iterator[Verdict]:
    """Compare what registries know an image by, and its root file system."""
    (manifest, layer), (others, other_layer) = (digests(path) for path in (one, other))
    yield Verdict("  manifest", manifest, others, "" if manifest == others else "see the archive")
    yield Verdict("  root file system", layer, other_layer, "" if layer == other_layer else "see the archive")


def digests(archive: Path) -> tuple[str, str]:
    """Read the digests of manifest and layers from an OCI archive (OCI image-layout)."""
    with tarfile.open(archive) as tar:
        index = json.load(_member(tar, "index.json"))
        manifest = index["manifests"][0]["digest"].removeprefix("sha256:")
        layers = json.load(_member(tar, f"blobs/sha256/{manifest}"))["layers"]
    return manifest, ",".join(one["digest"].removeprefix("sha256:") for one in layers)


def _member(tar: tarfile.TarFile, name: str) -> "tarfile.ExFileObject":
    file = tar.extractfile(name)
    assert file is not None
    return file  # type: ignore[return-value]


def difference(one: Path, other: Path) -> str:
    """Say where two files part first: the member of an archive, or the byte; "" where nowhere."""
    if one.read_bytes() == other.read_bytes():
        return ""
    if tarfile.is_tarfile(one) and tarfile.is_tarfile(other):
        pairs = zip_longest(_members(one), _members(other), fillvalue=("nothing", ""))
        for mine, theirs in pairs:
            if mine[0] != theirs[0]:
                return f"{mine[0]} in the first, {theirs[0]} in the second"
            if mine != theirs:
                return f"{mine[0]}: {_how(mine[1], theirs[1])}"
    return _how(_hexdump(one), _hexdump(other))


def _members(archive: Path) -> Iterator[tuple[str, str]]:
    """Give each member's name, without the top folder, and what is to be the same of it."""
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            contents = _sha256(file.read()) if file else member.linkname
            yield (
                member.name,
                f"mode {member.mode:o}, uid {member.uid}, time {member.mtime}, contents {contents}",
            )


def _how(mine: str, theirs: str) -> str:
    return next(
        (f"{a} and {b}" for a, b in zip(mine.split(", "), theirs.split(", "), strict=False) if a != b),
        "length",
    )


def _hexdump(path: Path) -> str:
    """Write the contents so that the first difference is one of its words: an offset and 16 bytes."""
    data = path.read_bytes()
    return ", ".join(f"{at:#x} {data[at : at + 16].hex()}" for at in range(0, len(data), 16))


def table(verdicts: list[Verdict]) -> str:
    """Print the verdicts for people."""
    width = max(len(one.name) for one in verdicts)
    lines = [
        f"{one.name:{width}}  {SAME if one.is_same else 'DIFFERS'}  {one.first}"
        + (
            ""
            if one.is_same
            else f"\n{'':{width}}           {one.second}\n{'':{width}}  first at {one.where}"
        )
        for one in verdicts
    ]
    return "\n".join(lines)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main()
