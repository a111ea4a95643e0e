"""Freeze the program: `make binary`. Standard library only; runs under the interpreter that is frozen.

Makes, from the working tree:

    dist/folder/                             the folder form: launcher, loader, libraries, program
    dist/portway-VERSION-linux-ARCH.tar.gz   the same, for hosts whose /tmp is noexec or read-only
    dist/portway                             the same, in one file that unpacks itself (selfextract.c)

The folder form brings its own dynamic loader and C library, so that it runs on any Linux of its architecture:
older glibc, musl, an empty chroot. The same inputs give the same bytes: the hash seed is fixed (PyInstaller
writes sets), every time stamp is 0, names are sorted, and no file holds the path that it was built in.
"""

import argparse
import gzip
import hashlib
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build"
DIST: Final = ROOT / "dist"
CACHE: Final = ROOT / ".cache" / "freeze"

LOCKS: Final = (ROOT / "requirements.lock", BUILD / "requirements.lock")

DISTRIBUTION: Final = Path("/usr/lib/python3/dist-packages")
"""Where Debian keeps Python packages of its own."""

FROM_DEBIAN: Final = {
    "cryptography": ("cryptography", "cryptography-*.dist-info"),
    "cffi": ("_cffi_backend.*.so",),
    "pycparser": (),
}
"""Locked packages that are Debian's in the forms, and what is taken of them. The wheel of cryptography has an
OpenSSL of its own, 12 MB beside the one of `ssl`; Debian's uses that one, and both get security updates."""

DYNAMIC_LOADERS: Final = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}

# PyInstaller's bootloader puts its folder into LD_LIBRARY_PATH and starts itself anew, for which it needs
# /proc or the system's loader. The three variables say that it has done so (bootloader/src/pyi_main.c, 6.x:
# level -1 is "needs restart"): --library-path does the same, and leads no other program to these libraries.
LAUNCHER: Final = """\
#!/bin/sh
# Starts Portway with the loader and the libraries of this folder, whatever the host has.
here=$(dirname -- "$(readlink -f -- "$0")")
app=$here/app
export _PYI_ARCHIVE_FILE="$app/portway" _PYI_PARENT_PROCESS_LEVEL=-1 _PYI_LINUX_PROCESS_NAME=portway
exec "$here/lib/{loader}" --library-path "$app/_internal" --argv0 "$app/portway" "$app/portway" "$@"
"""

TRAILER: Final = struct.Struct("<Q8s")
"""What selfextract.c finds at its end: the packed tar's size in bytes, and a word to know it by."""


def main() -> None:
    """Make all the forms, or say what is missing."""
    options = _options()
    arch = platform.machine()
    if arch not in DYNAMIC_LOADERS:
        sys.exit(f"freeze: {arch} is none of {', '.join(DYNAMIC_LOADERS)}")
    folder = freeze_folder(_environment(options.also), DYNAMIC_LOADERS[arch], options.also)
    name = f"portway-{version()}-linux-{arch}"
    plain = CACHE / "folder.tar"
    pack(folder, plain, top="")
    write_gzip(folder, DIST / f"{name}.tar.gz", top=name)
    write_single(plain, DIST / "portway", DYNAMIC_LOADERS[arch])
    for made in (DIST / "portway", DIST / f"{name}.tar.gz"):
        print(f"{made.stat().st_size:>11,} B  {made.relative_to(ROOT)}")
    print(f"{sum(file.stat().st_size for file in folder.rglob('*')):>11,} B  {folder.relative_to(ROOT)}/")
    _run(sys.executable, str(BUILD / "selftest.py"), version())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Freeze Portway into dist/.")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="PACKAGE==VERSION",
        help="freeze this in, to see its size",
    )
    return parser.parse_args()


def version() -> str:
    """Read the version where it stands, without importing the package."""
    text = (ROOT / "appliance" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        sys.exit("freeze: appliance/__init__.py names no version")
    return found.group(1)


def _environment(also: list[str]) -> Path:
    """Make a virtual environment of exactly what the locks name, once for each state of them."""
    wanted = hashlib.sha256(b"".join(lock.read_bytes() for lock in LOCKS))
    wanted.update(f"{sys.version} {also} {FROM_DEBIAN}".encode())
    place = CACHE / f"venv-{wanted.hexdigest()[:16]}"
    done = place / "done"
    if not done.exists():
        shutil.rmtree(place, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(place))
        locks = [place / f"{lock.parent.name}-{lock.name}" for lock in LOCKS]
        for lock, written in zip(LOCKS, locks, strict=True):
            written.write_text(without(lock.read_text(), FROM_DEBIAN))
        pip = (
            str(place / "bin" / "pip"),
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--no-compile",
        )
        # The report is what build/parts.py knows the archives' hashes from.
        _run(
            *pip,
            f"--report={place / 'report.json'}",
            "--require-hashes",
            "--no-deps",  # a lock names all of them
            *(word for lock in locks for word in ("-r", str(lock))),
        )
        if also:
            _run(*pip, *also)
        link_debian(_site_packages(place))
        done.touch()
    return place


def without(lock: str, packages: Iterable[str]) -> str:
    """Take packages out of a lock file: the line that names one, and the lines of its hashes."""
    named = "|".join(map(re.escape, packages))
    return re.sub(rf"^(?:{named})==.*\n(?: .*\n)*", "", lock, flags=re.MULTILINE)


def _site_packages(environment: Path) -> Path:
    return environment / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"


def link_debian(site_packages: Path) -> None:
    """Put links to Debian's packages among the others, so that nothing else of Debian's is found."""
    for pattern in (one for patterns in FROM_DEBIAN.values() for one in patterns):
        found = sorted(DISTRIBUTION.glob(pattern))
        if not found:
            sys.exit(
                f"freeze: {DISTRIBUTION / pattern} is missing; `build/setup-tools` installs what is needed"
            )
        for path in found:
            (site_packages / path.name).symlink_to(path)


def freeze_folder(environment: Path, loader: str, also: list[str]) -> Path:
    """Let PyInstaller collect the program, and put the launcher, the loader and the C library beside it."""
    made = CACHE / "made"
    shutil.rmtree(made, ignore_errors=True)
    _run(
        str(environment / "bin" / "pyinstaller"),
        "--noconfirm", "--clean", "--log-level=ERROR",
        f"--workpath={CACHE / 'work'}", f"--distpath={made}",
        str(BUILD / "portway.spec"),
        env={
            **os.environ,
            "PYTHONHASHSEED": "1",
            "PYINSTALLER_CONFIG_DIR": str(CACHE / "pyinstaller"),
            "PORTWAY_FREEZE_ALSO": " ".join(re.split("[=<>]", one)[0] for one in also),
        },
    )  # fmt: skip
    folder = DIST / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.move(made / "app", folder / "app")
    _deflate(folder / "app" / "_internal" / "base_library.zip")
    (folder / "lib").mkdir()
    for library, source in _system_libraries(folder / "app").items():
        shutil.copyfile(source, folder / "app" / "_internal" / library)
    shutil.copyfile(_interpreter(folder / "app" / "portway"), folder / "lib" / loader)
    (folder / "portway").write_text(LAUNCHER.format(loader=loader))
    _run(sys.executable, "-m", "build.licences", str(folder / "LICENSES.txt"), cwd=ROOT)
    for path in folder.rglob("*"):
        is_program = path.is_dir() or path.name in {"portway", loader}
        path.chmod(0o755 if is_program else 0o644)
    return folder


def _deflate(archive: Path) -> None:
    """Pack the modules that PyInstaller only stores: 0.6 MB of 1.0, for less than a millisecond at start."""
    with zipfile.ZipFile(archive) as stored:
        modules = {name: stored.read(name) for name in sorted(stored.namelist())}
    with zipfile.ZipFile(archive, "w") as packed:
        for name, code in modules.items():
            packed.writestr(zipfile.ZipInfo(name), code, zipfile.ZIP_DEFLATED, 9)


def _system_libraries(app: Path) -> dict[str, str]:
    """Find what the frozen files need of the C library and do not bring along: file name and path of each.

    PyInstaller leaves these to the host. In `_internal` and nowhere else: its bootloader starts itself anew
    with that folder as the whole LD_LIBRARY_PATH.
    """
    needed: dict[str, str] = {}
    for file in [app / "portway", *sorted(app.rglob("*.so*"))]:
        for line in _output("ldd", str(file)).splitlines():
            found = re.fullmatch(r"\s*(\S+) => (/\S+) \(0x[0-9a-f]+\)", line)
            if found and not (app / "_internal" / found.group(1)).exists():
                needed[found.group(1)] = found.group(2)
            elif "not found" in line and not (app / "_internal" / line.split()[0]).exists():
                sys.exit(f"freeze: {file.name} needs {line.strip()}")
    return dict(sorted(needed.items()))


def _interpreter(program: Path) -> str:
    """Name the dynamic loader that a program asks for."""
    found = re.search(r"Requesting program interpreter: (\S+)\]", _output("readelf", "-lW", str(program)))
    assert found is not None
    return found.group(1)


def pack(folder: Path, to: Path, top: str) -> None:
    """Write a tar that depends on nothing but names, modes and contents; `top` is put before each name."""
    with tarfile.open(to, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            entry = tar.gettarinfo(path, arcname=str(Path(top) / path.relative_to(folder)))
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if path.is_dir():
                tar.addfile(entry)
            else:
                with path.open("rb") as contents:
                    tar.addfile(entry, contents)


def write_gzip(folder: Path, to: Path, top: str) -> None:
    """Write the tarball of the folder form."""
    plain = to.with_suffix("")
    pack(folder, plain, top)
    with to.open("wb") as packed, gzip.GzipFile("", "wb", 9, packed, mtime=0) as out:
        out.write(plain.read_bytes())
    plain.unlink()


def write_single(plain: Path, to: Path, loader: str) -> None:
    """Write the single file: the unpacker, the packed tar, the trailer."""
    unpacker, packed = CACHE / "selfextract", CACHE / "folder.tar.zst"
    _run(
        "gcc", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none",
        f'-DLOADER="{loader}"', "-o", str(unpacker), "selfextract.c", "-lzstd",
        cwd=BUILD,
    )  # fmt: skip
    _run("zstd", "-19", "-T1", "--quiet", "--force", "--no-check", str(plain), "-o", str(packed))
    tail = TRAILER.pack(packed.stat().st_size, b"PORTWAY1")
    new = to.with_name(f".{to.name}.new")
    new.write_bytes(unpacker.read_bytes() + packed.read_bytes() + tail)
    new.chmod(0o755)
    new.replace(to)  # one that runs cannot be written to (ETXTBSY)


def _run(*command: str, **extra: object) -> None:
    try:
        subprocess.run(command, check=True, **extra)  # type: ignore[call-overload]
    except FileNotFoundError:
        sys.exit(f"freeze: {command[0]} is not installed; `build/setup-tools` installs what is needed")
    except subprocess.CalledProcessError as error:
        sys.exit(f"freeze: {Path(command[0]).name} ended with status {error.returncode}")


def _output(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
