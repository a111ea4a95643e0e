"""The newcomer's way to the virtual machine, command by command, as the README has it."""

import shlex
import shutil
import subprocess
from pathlib import Path

from tests.e2e.gateway import rule, ruleset, wait_for
from tests.e2e.peers import Echo, connect, echoes
from tests.ports import free_for_both_families
from tests.vm.virtual_machine import BOOT_PATIENCE, DIST, HOST

README = Path(__file__).parents[2] / "README.md"


def _commands() -> list[str]:
    section = README.read_text().partition("## As a virtual machine")[2].partition("\n## ")[0]
    lines = [line.partition("  #")[0].strip() for line in section.splitlines() if line.startswith("    ")]
    return "\n".join(lines).replace("\\\n", "").splitlines()


def test_the_way_of_a_newcomer(tmp_path: Path) -> None:
    """Each command works, in that order; the last one is a machine that forwards what rules.toml says."""
    make, *prepare, start = _commands()
    assert make == "make vm"
    assert len(prepare) == 2
    (tmp_path / "dist").mkdir()
    shutil.copy(DIST / "portway.raw", tmp_path / "dist")
    port = free_for_both_families()
    with Echo() as echo:
        rules = ruleset(rule("echo", f"{HOST}:{echo.port}", listen=":8080"))
        (tmp_path / "rules.toml").write_text(rules)
        for command in prepare:
            subprocess.run(shlex.split(command), cwd=tmp_path, check=True)
        words = shlex.split(start.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
        log = tmp_path / "log"
        with log.open("wb") as output:
            machine = subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=output)
        try:
            for text in ('"event":"ready"', '"event":"lease_obtained"'):
                wait_for(text, lambda text=text: text in log.read_text(errors="replace"), BOOT_PATIENCE)  # type: ignore[misc]
            with connect(("127.0.0.1", port)) as client:
                assert echoes(client)
        finally:
            machine.kill()
            machine.wait()
