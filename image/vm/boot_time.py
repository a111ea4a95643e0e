"""How long from power-on to the first forwarded byte, and where it goes: `python -m image.vm.boot_time`.

QEMU starts the kernel directly (no firmware), on two processors without hardware help (TCG); medians of some
boots. The shares come from the kernel's own time stamps on the console and from the log:

    start     QEMU itself and the kernel's decompression, before its clock runs
    kernel    up to the start of PID 1, but for
    unpacking the initramfs
    portway   PID 1 up to its first record, which is the gateway's start
    gateway   from there to the first byte back at a client
"""

import argparse
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

DIST = Path("dist")
PATIENCE = 60.0
HOST = "10.0.2.2"
"""This host, as the machine reaches it."""
_RULES = '[[rule]]\nname = "first"\nlisten = "0.0.0.0:8080"\nto = "{host}:{port}"\n'


@dataclass(frozen=True, slots=True)
class Boot:
    """Seconds of one boot; the parts add up to the whole."""

    whole: float
    start: float
    kernel: float
    unpacking: float
    portway: float
    gateway: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the boot of the VM.")
    parser.add_argument("--boots", type=int, default=5)
    parser.add_argument("--memory", type=int, default=128, help="MB")
    options = parser.parse_args()
    boots = [asdict(boot(options.memory)) for _ in range(options.boots)]
    for name in boots[0]:
        times = [each[name] for each in boots]
        print(f"{name:<10} {statistics.median(times):6.2f} s   ({min(times):.2f}-{max(times):.2f})")


def boot(memory: int) -> Boot:
    """Turn a machine on, and wait for the first byte that comes back through it."""
    with tempfile.TemporaryDirectory() as name, _greeting() as endpoint:
        folder = Path(name)
        console, seed = folder / "console", _seed(folder, _RULES.format(host=HOST, port=endpoint))
        port = _free_port()
        began = time.monotonic()
        machine = subprocess.Popen(_command(memory, console, seed, port), stdin=subprocess.DEVNULL)
        try:
            _first_byte(port, began + PATIENCE)
            whole = time.monotonic() - began
            time.sleep(0.5)  # for the session's record
        finally:
            machine.kill()
            machine.wait()
        return _shares(whole, console.read_text(errors="replace"))


def _shares(whole: float, console: str) -> Boot:
    """Take the whole apart, by what the console says; its clock starts when the kernel's does."""
    unpacking = _stamp("Freeing initrd memory", console) - _stamp("Trying to unpack rootfs", console)
    init = _stamp("Run .* as init", console)
    started = re.search(r'"event":"machine_started".*?"time":"([^"]*)".*"uptime_ms":([0-9.]+)', console)
    forwarded = re.search(r'"event":"session".*?"time":"([^"]*)"', console)
    if started is None:
        raise SystemExit("boot_time: no machine_started on the console")
    uptime = float(started[2]) / 1000
    # The record of the first session is written when it ends, right after its one byte; or not yet.
    gateway = _seconds(forwarded[1]) - _seconds(started[1]) if forwarded else 0.0
    return Boot(whole, whole - uptime - gateway, init - unpacking, unpacking, uptime - init, gateway)


def _stamp(text: str, console: str) -> float:
    found = re.search(rf"\[ *([0-9.]+)\] {text}", console)
    if found is None:
        raise SystemExit(f"boot_time: the console never said {text!r}")
    return float(found[1])


def _seconds(text: str) -> float:
    hours, minutes, seconds = text.rstrip("Z").partition("T")[2].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _command(memory: int, console: Path, seed: Path, port: int) -> list[str]:
    command = [
        "qemu-system-x86_64",
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
    ]
    command += ["-m", str(memory), "-display", "none", "-monitor", "none", "-serial", f"file:{console}"]
    command += ["-kernel", f"{DIST}/vm/vmlinuz", "-initrd", f"{DIST}/vm/initrd"]
    command += ["-append", (DIST / "vm/cmdline").read_text().strip()]
    command += ["-drive", f"if=virtio,format=raw,file={seed}"]
    return [*command, "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:8080"]


def _seed(folder: Path, rules: str) -> Path:
    """Make a seed disk with the rules."""
    disk = folder / "seed"
    disk.write_bytes(bytes(1 << 20))
    subprocess.run(["/usr/sbin/mkfs.vfat", "-n", "CIDATA", disk], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mcopy", "-i", disk, "-", "::rules.toml"], input=rules.encode(), check=True)
    return disk


@contextmanager
def _greeting() -> Iterator[int]:
    """Have a server that sends a byte to whoever comes; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client, suppress(OSError):
                        client.sendall(b"!")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _first_byte(port: int, deadline: float) -> None:
    """Ask again and again: QEMU takes connections before the machine does, and a lost SYN waits a second."""
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.1) as client:
            client.settimeout(0.1)
            if client.recv(1):
                return
    raise SystemExit(f"boot_time: no byte within {PATIENCE:.0f} s")


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
