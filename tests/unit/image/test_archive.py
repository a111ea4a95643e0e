"""The archive of the container image."""

import io
import tarfile

from image.container.archive import clean, layer, pack


def test_the_same_files_are_the_same_bytes() -> None:
    """A tar depends on names, contents and the one time given; folders come first."""
    files = {"blobs/sha256/x": b"1", "index.json": b"{}"}
    packed = pack(files, 7)
    assert packed == pack(dict(files), 7)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert tar.getnames() == ["blobs", "blobs/sha256", "blobs/sha256/x", "index.json"]
        assert {entry.mtime for entry in tar} == {7}


def test_a_layer_has_no_time() -> None:
    """A compressed layer is the same at any time of day."""
    assert layer(b"tar").hex == layer(b"tar").hex
    assert layer(b"tar").contents[4:8] == bytes(4)


def test_what_the_making_left_is_dropped() -> None:
    """A configuration keeps no host name and no trace of the container that it was made in."""
    made = {"Hostname": "x", "User": "1", "Labels": {}}
    source = {"architecture": "amd64", "os": "linux", "created": "then", "rootfs": {}, "history": []}
    assert clean({**source, "config": made, "container": "abc"}) == {**source, "config": {"User": "1"}}
