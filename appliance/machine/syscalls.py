"""The system calls that Python has no function for, each raising OSError where it fails."""

import ctypes
import os
import platform
from enum import IntEnum, IntFlag
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)

_FINIT_MODULE: Final = {"x86_64": 313, "aarch64": 273}
"""The number of finit_module(2), which glibc does not wrap, by machine (asm/unistd.h)."""


class MountFlag(IntFlag):
    """The flags of mount(2)."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32


class Restart(IntEnum):
    """What reboot(2) is told."""

    AUTOBOOT = 0x01234567
    POWER_OFF = 0x4321FEDC
    CAD_OFF = 0
    """From here on Ctrl-Alt-Del is a SIGINT to PID 1 and reboots nothing by itself."""


class Capability(IntEnum):
    """A capability (capabilities(7))."""

    SYS_TIME = 25


PR_SET_NAME: Final = 15
PR_CAPBSET_DROP: Final = 24
PR_SET_KEEPCAPS: Final = 8
PR_SET_NO_NEW_PRIVS: Final = 38

_CAPABILITY_VERSION: Final = 0x20080522


class _Timeval(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("microseconds", ctypes.c_long))


def _call(name: str, *args: object, about: str | None = None) -> int:
    result = int(getattr(_libc, name)(*args))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about)
    return result


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount a file system (mount(2))."""
    texts = (source.encode(), target.encode(), kind.encode())
    _call("mount", *texts, ctypes.c_ulong(flags), data.encode(), about=target)


def unmount(target: str) -> None:
    """Take a mount away (umount(2))."""
    _call("umount", target.encode(), about=target)


def swap_on(device: str) -> None:
    """Swap to a device (swapon(2))."""
    _call("swapon", device.encode(), ctypes.c_int(0), about=device)


def load_module(path: str) -> None:
    """Load a kernel module (finit_module(2)); FileExistsError when it is there already."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        number = ctypes.c_long(_FINIT_MODULE[platform.machine()])
        _call("syscall", number, ctypes.c_int(fd), b"", ctypes.c_int(0), about=path)
    finally:
        os.close(fd)


def restart(how: Restart) -> None:
    """Turn the machine off, reboot it, or have Ctrl-Alt-Del be a signal (reboot(2))."""
    _call("reboot", ctypes.c_int(how - (1 << 32) if how >= 1 << 31 else how))


def prctl(option: int, argument: int | bytes) -> None:
    """Set a property of this process (prctl(2))."""
    value = argument if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    zero = ctypes.c_ulong(0)
    _call("prctl", ctypes.c_int(option), value, zero, zero, zero)


def set_capabilities(wanted: tuple[Capability, ...]) -> None:
    """Have these capabilities and no others, permitted and effective (capset(2))."""
    mask = sum(1 << capability for capability in wanted)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    low = mask & 0xFFFFFFFF
    data = (ctypes.c_uint32 * 6)(low, low, 0, mask >> 32, mask >> 32, 0)
    _call("capset", header, data)


def slew_clock(seconds: float) -> None:
    """Have the kernel bring the clock forward by so much, gradually: 0.5 ms a second (adjtime(3))."""
    microseconds = round(seconds * 1e6)
    delta = _Timeval(microseconds // 1_000_000, microseconds % 1_000_000)
    _call("adjtime", ctypes.byref(delta), None)
