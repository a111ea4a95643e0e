"""What the disk image of the VM has besides the folder form: the kernel, and GRUB for both firmwares."""

from typing import Final

from build.parts import CONCLUDED, ROOT, Form, Part, Registry, debian, sha256
from image.vm.disk import GRUB
from image.vm.kernel import fetch

CACHE: Final = ROOT / ".cache" / "vm"
"""Where `make vm` has unpacked the kernel's package."""


def vm_parts() -> list[Part]:
    """Find them, as the image was made last."""
    kernel = fetch(CACHE)
    release, sources = kernel.package_version, ("linux", kernel.package_version)
    copyright_file = kernel.root / "usr/share/doc" / kernel.package / "copyright"
    files = (("vmlinuz", sha256(kernel.image)),)
    licence = CONCLUDED["linux"]
    return [
        Part(
            Form.VM, Registry.DEBIAN, kernel.package, release, sources, licence, (copyright_file,), "", files
        ),
        *debian(Form.VM, (GRUB / "i386-pc/boot.img", GRUB / "x86_64-efi/chain.mod"), {}),
    ]
