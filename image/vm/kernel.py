"""The kernel: Debian's for clouds, out of its package; the modules we need, and PID 1's index of them."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

META_PACKAGE = "linux-image-cloud-amd64"
MODULES_LIST = Path(__file__).with_name("modules.txt")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package: its name, its version, and where it lies."""

    package: str
    package_version: str
    release: str
    root: Path

    @property
    def image(self) -> Path:
        """The kernel itself."""
        return self.root / "boot" / f"vmlinuz-{self.release}"


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module: its file, the modules it needs directly, and the devices it is for."""

    name: str
    file: Path
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def fetch(folder: Path) -> Kernel:
    """Download and unpack the package that the meta package names now, unless the folder has it already."""
    try:
        return _fetch(folder)
    except (SystemExit, subprocess.CalledProcessError):
        if os.geteuid() != 0:
            raise
        # apt's lists are missing, or so old that they name a version which has been replaced.
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        return _fetch(folder)


def _fetch(folder: Path) -> Kernel:
    depends = _output("apt-cache", "depends", META_PACKAGE)
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise SystemExit(f"vm: apt knows no {META_PACKAGE}: apt-get update, on Debian 12 for amd64")
    package = found[1]
    version = _output("apt-cache", "show", "--no-all-versions", package)
    package_version = re.search(r"^Version: (\S+)", version, re.MULTILINE)[1]  # type: ignore[index]
    root = folder / f"{package}_{package_version.replace(':', '%3a')}"
    if not root.exists():
        _unpack(package, package_version, root)
    return Kernel(package, package_version, package.removeprefix("linux-image-"), root)


def _unpack(package: str, version: str, root: Path) -> None:
    """Unpack next to the place and rename: a build that was stopped leaves nothing half done there."""
    unfinished = root.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # apt's sandbox user may not write into our folder; as root it says so at length.
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    subprocess.run(
        ["apt-get", "-qq", *sandbox, "download", f"{package}={version}"], cwd=unfinished, check=True
    )
    (package_file,) = unfinished.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package_file, unfinished], check=True)
    package_file.unlink()
    unfinished.rename(root)


def wanted() -> dict[str, str]:
    """Read the list of modules: name to reason."""
    lines = [line for line in MODULES_LIST.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split(maxsplit=1) for line in lines)


def modules(kernel: Kernel) -> list[Module]:
    """The wanted modules and all that they need, each after those that it needs."""
    files = {
        path.stem.replace("-", "_"): path
        for path in sorted((kernel.root / "lib/modules" / kernel.release).rglob("*.ko"))
    }
    chosen: dict[str, Module] = {}

    def choose(name: str) -> None:
        if name in chosen:
            return
        if name not in files:
            raise SystemExit(f"vm: {kernel.package} has no module {name} ({MODULES_LIST.name})")
        module = _module(name, files[name])
        for needed in module.depends:
            choose(needed)
        chosen[name] = module

    for name in wanted():
        choose(name)
    return list(chosen.values())


def _module(name: str, file: Path) -> Module:
    """Read a module's own words about itself, the NUL-separated .modinfo section."""
    words = [line.partition("=")[::2] for line in _output("modinfo", "--null", file).split("\0")]
    depends = next((value for key, value in words if key == "depends"), "")
    aliases = [value for key, value in words if key == "alias"]
    soft = [value for key, value in words if key == "softdep"]
    if any("pre:" in value for value in soft):
        raise SystemExit(f"vm: {name} has soft dependencies, which are not followed: {soft}")
    return Module(name, file, tuple(_names(depends)), tuple(aliases))


def _names(listed: str) -> list[str]:
    return [name.replace("-", "_") for name in listed.split(",") if name]


def index(kernel: Kernel, chosen: list[Module], folder: str) -> bytes:
    """Write what PID 1 reads: each module's file, what to load before it, and the devices it is for."""
    known = {module.name: module for module in chosen}

    def before(module: Module) -> list[str]:
        names: dict[str, None] = {}
        for needed in module.depends:
            names.update(dict.fromkeys([*before(known[needed]), needed]))
        return list(names)

    listed = {
        module.name: {
            "file": f"{folder}/{module.file.name}",
            "deps": before(module),
            "aliases": module.aliases,
        }
        for module in chosen
    }
    return json.dumps({"version": kernel.release, "modules": listed}, indent=1).encode() + b"\n"


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
