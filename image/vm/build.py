"""`make vm`: dist/portway.raw and .qcow2, and dist/vm/ for booting the kernel directly.

python -m image.vm.build [--folder dist/folder] [--out dist] [--cache .cache/vm]
"""

import argparse
import os
import subprocess
from pathlib import Path

from appliance import __version__
from image.contents import LINK, OURS, listing
from image.vm import disk, initramfs
from image.vm.kernel import Kernel, fetch, modules, wanted

HERE = Path(__file__).parent
EPOCH = 1_700_000_000
"""The time of everything in the image where SOURCE_DATE_EPOCH does not say another."""
ROOM = "128M"
"""The virtual size of the qcow2: it has the room for slot b."""
ARGUMENTS = (
    "console=tty0 console=ttyS0,115200 panic=10 oops=panic "
    # Environment of PID 1: PyInstaller's bootloader need not start itself once more for a library path.
    f"_PYI_ARCHIVE_FILE={initramfs.INIT} _PYI_PARENT_PROCESS_LEVEL=-1 _PYI_LINUX_PROCESS_NAME=portway "
    f"rdinit={initramfs.INIT} -- machine"
)
"""The last console is /dev/console. A kernel that fails restarts after 10 s; what follows -- is PID 1's."""
FILES = ("README.txt", "rules.toml", "network.toml")


def main() -> None:
    """Build all of it."""
    options = _options()
    options.out.joinpath("vm").mkdir(parents=True, exist_ok=True)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))
    kernel = fetch(options.cache)
    initrd = initramfs.build(options.cache / "tree", options.folder, kernel, epoch)
    files = {name: (HERE / "fat" / name).read_bytes() for name in FILES}
    contents = disk.Contents(__version__, kernel.image.read_bytes(), initrd, ARGUMENTS, files, epoch)
    raw = options.out / "portway.raw"
    raw.write_bytes(disk.build(contents, (HERE / "grub.cfg").read_text()))
    (options.out / "vm/vmlinuz").write_bytes(contents.kernel)
    (options.out / "vm/initrd").write_bytes(initrd)
    (options.out / "vm/cmdline").write_text(ARGUMENTS + "\n")
    convert(raw, options.out / "portway.qcow2")
    listed = contents_of(options.cache / "tree", kernel)
    (options.out / "portway-vm-files.txt").write_text(listed)
    print(f"{raw}: {raw.stat().st_size} bytes, {kernel.package} {kernel.package_version}")


def contents_of(tree: Path, kernel: Kernel) -> str:
    """List the files of the initramfs, which is all of the system."""
    chosen, asked = modules(kernel), wanted()
    names = {module.name: f"lib/modules/{module.file.name}" for module in chosen}
    by = {name: module.name for module in chosen for name in module.depends}
    reasons = {names[name]: asked.get(name) or f"needed by {by[name]}" for name in names}
    owner = f"{kernel.package} {kernel.package_version}"
    why = "the interpreter's hash seed, before /dev is mounted"
    device = f"{LINK:>11}  {initramfs.RANDOM:<66}  {OURS:<42}  {why}\n"
    return device + listing(tree, dict.fromkeys(names.values(), owner), reasons)


def convert(raw: Path, qcow2: Path) -> None:
    """Make the compressed form, with room."""
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, qcow2], check=True)
    subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", qcow2, ROOM], check=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the disk image of the VM.")
    parser.add_argument("--folder", type=Path, default=Path("dist/folder"), help="the folder form")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="where the images go")
    parser.add_argument("--cache", type=Path, default=Path(".cache/vm"), help="what is downloaded")
    return parser.parse_args()


if __name__ == "__main__":
    main()
