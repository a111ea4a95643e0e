"""What an operator writes, and where: the disk's files, a seed disk, mistakes."""

import subprocess
from pathlib import Path

from tests.e2e.gateway import rule, ruleset
from tests.e2e.peers import Echo, connect, echoes
from tests.ports import free_for_both_families
from tests.vm.virtual_machine import HOST, VirtualMachine, disk_of, get

STATIC = """hostname = "gateway-1"
[[interface]]
ipv4 = "10.0.2.77/24"
gateway4 = "10.0.2.2"
"""


def _seed(folder: Path, **files: str) -> Path:
    """Make a NoCloud seed disk."""
    disk = folder / "seed.img"
    disk.write_bytes(bytes(1 << 20))
    subprocess.run(["mkfs.vfat", "-n", "CIDATA", disk], check=True, stdout=subprocess.DEVNULL)
    for name, text in files.items():
        target = f"::{name.replace('_', '-')}"
        subprocess.run(["mcopy", "-i", disk, "-", target], input=text.encode(), check=True)
    return disk


def test_bad_rules(tmp_path: Path) -> None:
    """A mistake is shown with its place and a hint, and the machine stays up and does what it can."""
    disk = disk_of(tmp_path, rules='[[rule]]\nname = "web"\nlisen = ":80"\nto = "10.0.0.5:80"\n')
    with VirtualMachine.start(tmp_path, disks=[disk]) as machine:
        machine.await_text('"event":"ready"')
        machine.await_text("health   healthy")
        assert "rules.toml:3:1" in machine.log()
        assert "did you mean listen?" in machine.log()
        assert machine.log().count('"event":"machine_started"') == 1
        assert machine.stop() == 0


def test_the_last_good_rules(tmp_path: Path) -> None:
    """Rules that ran well are kept: with a mistake in the next ones, the machine goes on with them."""
    port = free_for_both_families()
    with Echo() as echo:
        good = ruleset(rule("echo", f"{HOST}:{echo.port}", listen=f"0.0.0.0:{port}"))
        disk = disk_of(tmp_path, rules=good)
        with VirtualMachine.start(tmp_path, disks=[disk]) as machine:
            machine.await_text("health   healthy")
            assert machine.stop() == 0
        assert get(disk, "rules.last-good.toml") == good
        subprocess.run(["mcopy", "-o", "-i", f"{disk}@@1M", "-", "::rules.toml"], input=b"[[rule", check=True)
        with VirtualMachine.start(tmp_path, disks=[disk], ports=[port]) as machine:
            machine.await_text('"event":"ready"')
            machine.await_text('"event":"lease_obtained"')
            with connect(("127.0.0.1", port)) as client:
                assert echoes(client)
            machine.await_text("rules.toml:1:")


def test_a_static_address(tmp_path: Path) -> None:
    """network.toml gives the machine an address and a name, and nobody asks DHCP."""
    disk = disk_of(tmp_path, network=STATIC)
    with VirtualMachine.start(tmp_path, disks=[disk]) as machine:
        machine.await_text("Portway 0.1.0 on gateway-1")
        machine.await_text("10.0.2.77/24")
        machine.await_text("health   healthy")
        assert not machine.records("lease_obtained")


def test_a_seed_disk(tmp_path: Path) -> None:
    """A NoCloud disk's rules and network come before those of the machine's own disk."""
    port = free_for_both_families()
    with Echo() as echo:
        rules = ruleset(rule("seeded", f"{HOST}:{echo.port}", listen=f"0.0.0.0:{port}"))
        seed = _seed(tmp_path, user_data=rules, network_config='hostname = "seeded"\n', meta_data="")
        disks = [disk_of(tmp_path), seed]
        with VirtualMachine.start(tmp_path, disks=disks, ports=[port]) as machine:
            machine.await_text('"event":"ready"')
            machine.await_text('"event":"lease_obtained"')
            with connect(("127.0.0.1", port)) as client:
                assert echoes(client)
            machine.await_text("on seeded")
