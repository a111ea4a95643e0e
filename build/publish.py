"""A GitHub release of dist/release: `make publish`, run by CI at a tag (gh(1), with GH_TOKEN)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from build import notes
from build.freeze import version
from build.sign import PUBLIC, RELEASE, SIGNATURE, SUMS, sums

TAG: Final = "GITHUB_REF_NAME"


class NotReadyError(Exception):
    """This must not be published; the message says why."""


def ready(tag: str, of: str, changelog: str, folder: Path) -> Path:
    """Hold tag, version, changelog and signature against each other; give the file with the notes."""
    if tag != f"v{of}":
        raise NotReadyError(
            f"the tag is {tag or 'not there'}, and appliance/__init__.py says {of}: tag v{of}"
        )
    notes.of(of, changelog, dated=True)
    if not (folder / SIGNATURE).is_file():
        raise NotReadyError("dist/release is not signed: make sign")
    if not (folder / PUBLIC).is_file():
        raise NotReadyError(
            "dist/release is signed with a throw-away key: set PORTWAY_MINISIGN_KEY, make sign"
        )
    if (folder / SUMS).read_text() != sums(folder):
        raise NotReadyError("dist/release has changed since it was signed: make sign")
    return folder / f"portway-{of}.notes.md"


def main() -> None:
    """Publish what is ready."""
    of, tag = version(), os.environ.get(TAG, "")
    try:
        said = ready(tag, of, notes.CHANGELOG.read_text(), RELEASE)
    except (NotReadyError, notes.NoNotesError) as error:
        sys.exit(f"publish: {error}")
    files = [str(path) for path in sorted(RELEASE.iterdir())]
    words = ("--verify-tag", f"--title=Portway {of}", f"--notes-file={said}")
    sys.exit(subprocess.run(["gh", "release", "create", tag, *words, *files], check=False).returncode)


if __name__ == "__main__":
    main()
