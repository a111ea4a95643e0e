"""`make image`: dist/portway-oci.tar, from dist/folder. Standard library only; runs buildah."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from appliance import __version__
from build.parts import source_paths
from image.container import archive, rootfs
from image.contents import listing
from image.evidence import modules

ROOT: Final = Path(__file__).resolve().parent.parent.parent
HERE: Final = ROOT / "image" / "container"
DIST: Final = ROOT / "dist"
CACHE: Final = ROOT / ".cache" / "container"

EPOCH: Final = 1_700_000_000
"""The time of everything in the image where SOURCE_DATE_EPOCH does not say another."""

NAME: Final = f"localhost/portway:{__version__}"


def main() -> None:
    """Build it, or say what is missing."""
    folder = DIST / "folder"
    if not folder.is_dir():
        sys.exit("image: there is no dist/folder; `make binary` makes it")
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))
    rootfs.lay_out(CACHE / "rootfs", folder, HERE / "rules.toml")
    made = DIST / "portway-oci.tar"
    _list_contents(CACHE / "rootfs", DIST / "portway-oci.contents.txt")
    manifest = archive.write(_build(epoch), made, NAME, epoch)
    print(f"{made.stat().st_size:>11,} B  {made.relative_to(ROOT)}  {NAME}")
    print(f"               {manifest['digest']}")


def _list_contents(tree: Path, to: Path) -> None:
    """Write down what is in the image and why; end where that is not known."""
    base = tree / rootfs.APP / "_internal" / "base_library.zip"
    frozen = "".join(modules({name: source for source, name in source_paths("PYZ").items()}, base))
    to.write_text(f"{listing(tree, {}, {})}\nModules in app/portway and base_library.zip\n\n{frozen}")


def labels() -> dict[str, str]:
    """Say what the image is, in the words of the OCI image-spec (annotations)."""
    said = {
        "title": "Portway",
        "description": "A gateway that exposes intranet servers: TCP and UDP forwarding by one ruleset",
        "version": __version__,
        "revision": _revision(),
    }
    return {f"org.opencontainers.image.{key}": value for key, value in said.items() if value}


def _revision() -> str:
    """Name the commit: PORTWAY_REVISION's, where this is no clone; nothing, where nobody knows."""
    told = os.environ.get("PORTWAY_REVISION")
    if told is not None:
        return told
    asked = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "rev-parse", "HEAD"],
        check=False,
        capture_output=True,
        text=True,
    )
    if asked.returncode and (ROOT / ".git").exists():
        raise SystemExit(f"image: git does not tell the commit: {asked.stderr.strip()}")
    return asked.stdout.strip()


def _build(epoch: int) -> Path:
    """Let buildah make the image, in a store of its own; give the folder that it is pushed into."""
    store, pushed, image = CACHE / "store", CACHE / "pushed", CACHE / "id"
    for old in (store, CACHE / "run", pushed):
        shutil.rmtree(old, ignore_errors=True)
    _buildah(
        "build", "--quiet", "--format=docker", "--identity-label=false", f"--timestamp={epoch}",
        *(f"--label={key}={value}" for key, value in labels().items()),
        f"--iidfile={image}", f"--file={HERE / 'Containerfile'}", str(CACHE),
    )  # fmt: skip
    # Not compressed: two versions of buildah compress differently.
    _buildah("push", "--quiet", "--disable-compression", "--format=v2s2", image.read_text(), f"dir:{pushed}")
    return pushed


def _buildah(verb: str, *words: str) -> None:
    place = (f"--root={CACHE / 'store'}", f"--runroot={CACHE / 'run'}", "--storage-driver=vfs")
    try:
        subprocess.run(
            ["buildah", "--log-level=error", *place, verb, *words], check=True, stdout=subprocess.DEVNULL
        )
    except FileNotFoundError:
        sys.exit("image: buildah is not installed; `build/setup-tools` installs what is needed")
    except subprocess.CalledProcessError as error:
        sys.exit(f"image: buildah {verb} ended with status {error.returncode}")


if __name__ == "__main__":
    main()
