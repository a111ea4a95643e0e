"""SHA256SUMS of what is in dist/release, and its signature by minisign: `make sign`.

PORTWAY_MINISIGN_KEY is the secret key: its path, or, as a CI secret, its text. PORTWAY_MINISIGN_PASSWORD
unlocks it. Without a key, and unless PORTWAY_RELEASE is set, the signature is of one that exists for this
moment only, and everything says so.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from build.freeze import version

ROOT: Final = Path(__file__).resolve().parent.parent
RELEASE: Final = ROOT / "dist" / "release"
PUBLISHED: Final = ROOT / "build" / "portway.pub"
"""The public key that releases are verified with, once there is one: a signature of another is refused."""

SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = "SHA256SUMS.minisig"
PUBLIC: Final = "portway.pub"
THROW_AWAY: Final = "portway-THROW-AWAY-KEY.pub"
OWN: Final = frozenset({SUMS, SIGNATURE, PUBLIC, THROW_AWAY})

SHOUT: Final = """\
sign: *** NO RELEASE: signed with a THROW-AWAY KEY, which proves nothing about who made this. ***
sign: *** For a release set PORTWAY_MINISIGN_KEY to the path or the text of the secret key.   ***"""


class NotSignedError(Exception):
    """There is no signature; the message says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A minisign key pair: two files, the password, and whether it exists for one signature only."""

    secret: Path
    public: Path
    password: str
    is_throw_away: bool = False


def main() -> None:
    """Sum and sign what is there."""
    try:
        with tempfile.TemporaryDirectory() as place:
            is_throw_away = sign(RELEASE, key(Path(place), dict(os.environ)))
    except NotSignedError as error:
        sys.exit(f"sign: {error}")
    if is_throw_away:
        print(SHOUT, file=sys.stderr)
    print((RELEASE / SUMS).read_text(), end="")


def sums(folder: Path) -> str:
    """List the files of a folder as sha256sum(1) does, but for those that this module writes."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in OWN]
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def key(place: Path, environment: dict[str, str]) -> Key:
    """Take the key that the environment names, or make one; files that are needed for it go to `place`."""
    said = environment.get("PORTWAY_MINISIGN_KEY", "")
    password = environment.get("PORTWAY_MINISIGN_PASSWORD", "")
    public = place / "public"
    if not said and environment.get("PORTWAY_RELEASE"):
        raise NotSignedError("PORTWAY_RELEASE is set, and PORTWAY_MINISIGN_KEY is not")
    if not said:
        secret = place / "secret"
        _minisign("-G", "-W", "-p", str(public), "-s", str(secret))
        return Key(secret, public, "", is_throw_away=True)
    secret = Path(said)
    if "\n" in said:
        secret = place / "secret"
        secret.touch(0o600)
        secret.write_text(said.strip() + "\n")
    elif not secret.is_file():
        raise NotSignedError(f"PORTWAY_MINISIGN_KEY names no file: {said}")
    _minisign("-R", "-s", str(secret), "-p", str(public), password=password)
    return Key(secret, public, password)


def sign(folder: Path, by: Key, published: Path = PUBLISHED) -> bool:
    """Write the sums, their signature and the public key, verified; say whether the key is a throw-away."""
    if not folder.is_dir():
        raise NotSignedError(f"there is no {folder.name} to sign; `make release` makes it")
    for name in OWN:
        (folder / name).unlink(missing_ok=True)
    (folder / SUMS).write_text(sums(folder))
    note = f"Portway {version()}" + (", THROW-AWAY KEY, no release" if by.is_throw_away else "")
    _minisign("-S", "-s", str(by.secret), "-m", SUMS, "-t", note, password=by.password, cwd=folder)
    expected = published if published.is_file() and not by.is_throw_away else by.public
    try:
        _minisign("-V", "-q", "-p", str(expected.resolve()), "-m", SUMS, cwd=folder)
    except NotSignedError:
        (folder / SIGNATURE).unlink()  # or it would look like a release
        raise
    shutil.copyfile(by.public, folder / (THROW_AWAY if by.is_throw_away else PUBLIC))
    return by.is_throw_away


def _minisign(*words: str, password: str = "", cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            ["minisign", *words],
            input=f"{password}\n" * 2,
            capture_output=True,
            text=True,
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError:
        raise NotSignedError("minisign is not installed; `build/setup-tools` installs it") from None
    if done.returncode:
        raise NotSignedError(f"minisign {words[0]}: {(done.stderr or done.stdout).strip()}")


if __name__ == "__main__":
    main()
