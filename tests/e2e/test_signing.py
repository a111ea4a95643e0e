"""Signing a release with the real minisign."""

import os
import subprocess
from pathlib import Path

import pytest

from build.sign import PUBLIC, SIGNATURE, SUMS, THROW_AWAY, NotSignedError, key, sign
from tests.e2e import needs

PASSWORD = "correct horse"  # noqa: S105  of a key that ends with the test


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder with something to sign."""
    needs.program("minisign")
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "portway").write_bytes(b"a gateway")
    return folder


def pair(place: Path, password: str) -> tuple[Path, Path]:
    """Make a key pair, as its owner would."""
    place.mkdir()
    secret, public = place / "secret", place / "public"
    command = ["minisign", "-G", "-p", str(public), "-s", str(secret), *([] if password else ["-W"])]
    subprocess.run(command, input=f"{password}\n" * 2, capture_output=True, text=True, check=True)
    return secret, public


def verifies(release: Path, public: Path) -> bool:
    told = subprocess.run(
        ["minisign", "-V", "-p", public, "-m", release / SUMS], capture_output=True, check=False
    )
    return told.returncode == 0


def test_without_a_key_it_is_signed_and_says_that_it_is_worth_nothing(release: Path, tmp_path: Path) -> None:
    """No release is ever unsigned; a throw-away key is in the file's name and in the signature's comment."""
    assert sign(release, key(tmp_path, {}))
    assert verifies(release, release / THROW_AWAY)
    assert "THROW-AWAY KEY" in (release / SIGNATURE).read_text()
    assert not (release / PUBLIC).exists()


@pytest.mark.parametrize(("by", "password"), [("path", ""), ("text", ""), ("text", PASSWORD)])
def test_signs_with_the_key_that_is_named(release: Path, tmp_path: Path, by: str, password: str) -> None:
    """A key signs that is given by path or as text, with a password or none; its public half is beside."""
    secret, public = pair(tmp_path / "pair", password)
    said = str(secret) if by == "path" else secret.read_text()
    mine = key(tmp_path, {"PORTWAY_MINISIGN_KEY": said, "PORTWAY_MINISIGN_PASSWORD": password})
    assert not sign(release, mine, published=tmp_path / "none")
    assert verifies(release, public)
    assert (release / PUBLIC).read_text().splitlines()[1] == public.read_text().splitlines()[1]
    assert not (release / THROW_AWAY).exists()


def test_a_change_of_any_file_shows(release: Path, tmp_path: Path) -> None:
    """What was changed after signing fails sha256sum, and a changed list fails the signature."""
    sign(release, key(tmp_path, {}))
    check = ["sha256sum", "--check", "--quiet", SUMS]
    assert subprocess.run(check, cwd=release, capture_output=True, check=False).returncode == 0
    (release / "portway").write_bytes(b"another")
    assert subprocess.run(check, cwd=release, capture_output=True, check=False).returncode == 1
    (release / SUMS).write_text((release / SUMS).read_text().replace("portway", "portwax"))
    assert not verifies(release, release / THROW_AWAY)


def test_a_key_that_is_not_the_published_one_is_refused(release: Path, tmp_path: Path) -> None:
    """Where the project has published its key, no other key makes a release."""
    secret, _ = pair(tmp_path / "mine", "")
    _, published = pair(tmp_path / "published", "")
    with pytest.raises(NotSignedError, match="minisign -V"):
        sign(release, key(tmp_path, {"PORTWAY_MINISIGN_KEY": str(secret)}), published)
    assert not {SIGNATURE, PUBLIC} & {path.name for path in release.iterdir()}


def test_a_release_is_signed_with_a_key_that_was_given(tmp_path: Path) -> None:
    """Where a release is made for others, a missing key is an error."""
    with pytest.raises(NotSignedError, match="PORTWAY_MINISIGN_KEY is not"):
        key(tmp_path, {"PORTWAY_RELEASE": "yes"})


def test_a_wrong_key_or_password_is_an_error_and_no_signature(release: Path, tmp_path: Path) -> None:
    """A key that cannot be used never falls back to a throw-away one."""
    secret, _ = pair(tmp_path / "pair", PASSWORD)
    with pytest.raises(NotSignedError, match="names no file"):
        key(tmp_path, {"PORTWAY_MINISIGN_KEY": str(tmp_path / "nowhere")})
    with pytest.raises(NotSignedError, match=r"(?i)password"):
        key(tmp_path, {"PORTWAY_MINISIGN_KEY": str(secret), "PORTWAY_MINISIGN_PASSWORD": "wrong"})
    assert not (release / SIGNATURE).exists()
    assert os.listdir(release) == ["portway"]  # noqa: PTH208
