"""What is frozen: the packages of the locks, and of Debian what is named."""

from pathlib import Path

import pytest

from build import freeze

LOCK = """\
# made by a program
cffi==2.1.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via cryptography
cffi-other==1 \\
    --hash=sha256:cc
click==8.5.1 \\
    --hash=sha256:dd

# The following packages
"""


def test_what_is_debians_is_not_fetched() -> None:
    """A package that is Debian's leaves the lock with its hashes; every other stays as it is."""
    lines = LOCK.splitlines(keepends=True)
    assert freeze.without(LOCK, ["cffi", "pycparser"]) == "".join(lines[:1] + lines[5:])
    assert freeze.without(LOCK, ["click"]) == "".join(lines[:7] + lines[9:])


def test_every_package_of_debians_is_locked() -> None:
    """What is named as Debian's is in the lock that everybody else installs from: one API for both."""
    lock = freeze.LOCKS[0].read_text()
    for name in freeze.FROM_DEBIAN:
        assert f"\n{name}==" in lock
        assert f"\n{name}==" not in freeze.without(lock, freeze.FROM_DEBIAN)


def test_only_what_is_named_is_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Debian's packages those named are found by the freezer, and no other."""
    debian, ours = tmp_path / "debian", tmp_path / "ours"
    ours.mkdir()
    for name in ("cryptography", "cryptography-38.0.4.dist-info", "yaml"):
        (debian / name).mkdir(parents=True)
    (debian / "_cffi_backend.cpython-311-x86_64-linux-gnu.so").touch()
    monkeypatch.setattr(freeze, "DISTRIBUTION", debian)
    freeze.link_debian(ours)
    linked = sorted(path.name for path in ours.iterdir())
    assert linked == [
        "_cffi_backend.cpython-311-x86_64-linux-gnu.so",
        "cryptography",
        "cryptography-38.0.4.dist-info",
    ]
    assert (ours / "cryptography").resolve() == debian / "cryptography"


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Debian's package is not installed, the file is named, and what installs it."""
    monkeypatch.setattr(freeze, "DISTRIBUTION", tmp_path)
    with pytest.raises(SystemExit, match=r"cryptography is missing; `build/setup-tools` installs"):
        freeze.link_debian(tmp_path)
