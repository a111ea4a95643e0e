"""dist/portway-oci.tar: one file that is an OCI image layout and a docker-archive, of the same blobs.

The OCI image format has no health check, and podman keeps none of an image that it loads as such. Docker's
format has one. `docker save` writes both into one file since version 25, and so does this: `podman load`
takes the layout; `docker load` and `podman pull docker-archive:portway-oci.tar` take Docker's half, with the
health check. Both share the configuration, and what knows no health check passes over it.

Written here and not by `buildah push`, whose tar has the time of day and whose configuration has a host name.
Sources: OCI image-spec 1.0 (image-layout, manifest, config); moby's image spec v1.2.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

KEPT: Final = ("architecture", "config", "created", "history", "os", "rootfs")
"""Of the configuration, what says something about the image and not about its making."""

_OCI: Final = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that the image names by their digest."""

    media_type: str
    contents: bytes

    @property
    def hex(self) -> str:
        """The SHA-256."""
        return hashlib.sha256(self.contents).hexdigest()

    @property
    def path(self) -> str:
        """Where the layout has it."""
        return f"blobs/sha256/{self.hex}"

    def descriptor(self) -> Json:
        """Refer to it."""
        return {"mediaType": self.media_type, "digest": f"sha256:{self.hex}", "size": len(self.contents)}


def write(pushed: Path, to: Path, name: str, epoch: int) -> Json:
    """Pack what `buildah push --format v2s2 dir:` wrote, under the name `repository:tag`.

    Gives the descriptor of the manifest, which is what a signature is made of.
    """
    source = json.loads((pushed / "manifest.json").read_bytes())
    settings = clean(json.loads(_blob(pushed, source["config"])))
    layers = [layer(_blob(pushed, each)) for each in source["layers"]]
    config = Blob(f"{_OCI}.config.v1+json", _json(settings))
    manifest = Blob(
        f"{_OCI}.manifest.v1+json",
        _json(
            {
                "schemaVersion": 2,
                "mediaType": f"{_OCI}.manifest.v1+json",
                "config": config.descriptor(),
                "layers": [each.descriptor() for each in layers],
                "annotations": settings["config"].get("Labels", {}),
            }
        ),
    )
    platform = {"architecture": settings["architecture"], "os": settings["os"]}
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json"}
    index["manifests"] = [{**manifest.descriptor(), "platform": platform, "annotations": names}]
    dockers = [{"Config": config.path, "RepoTags": [name], "Layers": [each.path for each in layers]}]
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(index),
        "manifest.json": _json(dockers),
        **{blob.path: blob.contents for blob in (manifest, config, *layers)},
    }
    to.write_bytes(pack(files, epoch))
    return manifest.descriptor()


def clean(config: Json) -> Json:
    """Drop from a configuration what differs between two builds, or says nothing."""
    kept = {key: config[key] for key in KEPT}
    kept["config"] = {key: value for key, value in config["config"].items() if value and key != "Hostname"}
    return kept


def layer(tar: bytes) -> Blob:
    """Compress a layer; gzip is what every version of every engine reads."""
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, packed, mtime=0) as out:
        out.write(tar)
    return Blob(f"{_OCI}.layer.v1.tar+gzip", packed.getvalue())


def pack(files: Mapping[str, bytes], epoch: int) -> bytes:
    """Write a tar of these files and the folders that they are in, which depends on nothing else."""
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in sorted(folders):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, epoch
            tar.addfile(entry)
        for name, contents in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(contents), 0o644, epoch
            tar.addfile(entry, io.BytesIO(contents))
    return out.getvalue()


def _blob(pushed: Path, descriptor: Json) -> bytes:
    digest: str = descriptor["digest"]
    contents = (pushed / digest.removeprefix("sha256:")).read_bytes()
    assert digest == f"sha256:{hashlib.sha256(contents).hexdigest()}"
    return contents


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
