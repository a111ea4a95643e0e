"""dist/release: everything that a release is, but for its sums and signature: `make artefacts`.

Names carry version and architecture, so that those of several machines go into one folder. What has not been
built is left out and told.
"""

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from build import licences, notes, sbom
from build.freeze import version
from build.parts import DIST, ROOT, Form, Part, parts
from build.sign import RELEASE
from build.vm_parts import vm_parts

EVERYWHERE: Final = frozenset({Form.FOLDER})
VM: Final = EVERYWHERE | {Form.VM}

EPOCH: Final = 1_700_000_000
"""The time of a release that no commit says; as in the images."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """A form, as it was built and as it is shipped."""

    made: str
    shipped: str
    holds: frozenset[Form]
    is_packed: bool = False


def artefacts(of: str, arch: str) -> list[Artefact]:
    """Name everything that may be shipped."""
    name = f"portway-{of}-linux-{arch}"
    return [
        Artefact("portway", name, EVERYWHERE | {Form.SINGLE}),
        Artefact(f"{name}.tar.gz", f"{name}.tar.gz", EVERYWHERE),
        Artefact("portway-oci.tar", f"portway-{of}-oci-{arch}.tar", EVERYWHERE),
        Artefact("portway.raw", f"portway-{of}-vm-{arch}.raw.zst", VM, is_packed=True),
        Artefact("portway.qcow2", f"portway-{of}-vm-{arch}.qcow2", VM),
    ]


def main() -> None:
    """Gather what was built, and write what is said of it."""
    of, arch = version(), platform.machine()
    try:
        said = notes.of(of, notes.CHANGELOG.read_text())
        shipped = gather(artefacts(of, arch), DIST, RELEASE)
        held = frozenset().union(*shipped.values())
        found = [part for part in parts() if part.form in held] + (vm_parts() if Form.VM in held else [])
        own = licences.project_licence()
        bill = sbom.render(of, shipped, found, own, sbom.moment(_epoch()))
    except (notes.NoNotesError, sbom.InvalidError) as error:
        sys.exit(f"release: {error}")
    name = f"portway-{of}-linux-{arch}"
    (RELEASE / f"{name}.cdx.json").write_text(bill)
    (RELEASE / f"{name}.licenses.txt").write_text(licences.render(found, of, own))
    (RELEASE / f"portway-{of}.notes.md").write_text(said)
    _say(found, own)


def gather(wanted: list[Artefact], made: Path, to: Path) -> dict[Path, frozenset[Form]]:
    """Copy what there is into a new folder, packed where that pays; give the files and what they hold."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    shipped = {}
    for one in wanted:
        if not (made / one.made).is_file():
            print(f"release: without {one.shipped}: dist/{one.made} was not built", file=sys.stderr)
            continue
        if one.is_packed:
            pack = ("zstd", "-19", "-T1", "--quiet", str(made / one.made), "-o", str(to / one.shipped))
            subprocess.run(pack, check=True)
        else:
            shutil.copyfile(made / one.made, to / one.shipped)
        (to / one.shipped).chmod(0o755 if one.made == "portway" else 0o644)
        shipped[to / one.shipped] = one.holds
    if not shipped:
        sys.exit("release: nothing was built; `make binary` is the first")
    return shipped


def _epoch() -> int:
    """Give the time of the release: SOURCE_DATE_EPOCH's, or the commit's."""
    asked = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "log", "-1", "--format=%ct"],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(os.environ.get("SOURCE_DATE_EPOCH") or asked.stdout.strip() or EPOCH)


def _say(found: list[Part], own: Path | None) -> None:
    print(f"release: {len(found)} packages in the forms")
    if own is None:
        print("release: the project has no LICENSE file; SBOM and licences say so", file=sys.stderr)
    for file in sorted(RELEASE.iterdir()):
        print(f"{file.stat().st_size:>11,} B  {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
