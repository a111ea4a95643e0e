"""What is in the container: the program, its loader and libraries, and what the C library reads."""

import shutil
from pathlib import Path
from typing import Final

APP: Final = "portway/app"
LIBRARIES: Final = "/portway/app/_internal"
RULES: Final = "etc/portway/rules.toml"

USER: Final = 65532
"""What distroless images call nonroot: a number that no host gives to a person or a service."""

MULTIARCH: Final = {
    "ld-linux-x86-64.so.2": "x86_64-linux-gnu",
    "ld-linux-aarch64.so.1": "aarch64-linux-gnu",
}
"""The loaders, and the folder of libraries that Debian's knows."""

TEXTS: Final = {
    "etc/passwd": f"root:x:0:0::/:/\nportway:x:{USER}:{USER}::/:/\n",
    "etc/group": f"root:x:0:\nportway:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}


def lay_out(tree: Path, folder: Path, quickstart: Path) -> None:
    """Lay out the root anew, from the folder form and the ruleset for whoever mounts none."""
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(folder / "app", tree / APP)
    (loader,) = (folder / "lib").iterdir()
    _put(loader.read_bytes(), tree / place_of_loader(loader.name), 0o755)
    (tree / "lib").mkdir(exist_ok=True)
    # Where this loader looks by itself: the program starts before it can name the folder of its libraries.
    (tree / "lib" / MULTIARCH[loader.name]).symlink_to(LIBRARIES)
    for name, text in TEXTS.items():
        _put(text.encode(), tree / name, 0o644)
    _put(quickstart.read_bytes(), tree / RULES, 0o644)
    for path in tree.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def place_of_loader(name: str) -> str:
    """Give the path that every program of the architecture asks for (its ABI's)."""
    return f"lib64/{name}" if name == "ld-linux-x86-64.so.2" else f"lib/{name}"


def _put(contents: bytes, path: Path, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
    path.chmod(mode)
