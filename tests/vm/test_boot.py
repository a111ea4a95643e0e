"""From power-on to power-off, by each firmware."""

from pathlib import Path

import pytest

from tests.e2e.gateway import rule, ruleset
from tests.e2e.peers import Echo, connect, digest, finish, payload, read_to_end
from tests.ports import free_for_both_families
from tests.vm.virtual_machine import HOST, Firmware, VirtualMachine, disk_of

SIZE = 1 << 20


@pytest.mark.parametrize(
    ("firmware", "memory"), [(Firmware.BIOS, 112), (Firmware.UEFI, 192), (Firmware.NONE, 112)]
)
def test_a_whole_life(tmp_path: Path, firmware: Firmware, memory: int) -> None:
    """By BIOS with 112 MB, UEFI with 192 MB, or the kernel alone: it forwards, says so, and goes off."""
    port = free_for_both_families()
    with Echo() as echo:
        rules = ruleset(rule("echo", f"{HOST}:{echo.port}", listen=f"0.0.0.0:{port}"), workers=2)
        disk = disk_of(tmp_path, rules=rules)
        with VirtualMachine.start(
            tmp_path, firmware=firmware, memory=memory, disks=[disk], ports=[port]
        ) as machine:
            machine.await_text('"event":"ready"')
            machine.await_text('"event":"lease_obtained"')
            sent = payload(SIZE)
            with connect(("127.0.0.1", port)) as client:
                client.sendall(sent)
                finish(client)
                assert digest(read_to_end(client)) == digest(sent)
            (record,) = machine.sessions("echo")
            assert (record["cause"], record["up"], record["down"]) == ("client_eof", SIZE, SIZE)
            machine.await_text("health   healthy")
            machine.await_text("10.0.2.15/24")
            assert machine.stop() == 0
            assert machine.records("stopped")
            machine.check()
