"""appliance/program.py: what a frozen program knows of itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance import program


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder form that says that it is running."""
    for name in ("app", "lib", "app/_internal"):
        (tmp_path / name).mkdir()
    (tmp_path / "lib" / "ld-linux-x86-64.so.2").touch()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "app" / "portway"))
    return tmp_path


def test_from_source_the_command_is_the_package_in_this_python() -> None:
    """Nothing is frozen: there is no tree, and no lifeline to hand on."""
    assert program.command() == [sys.executable, "-m", "appliance"]
    assert program.tree() is None
    assert program.lifeline() == ()


def test_a_folder_is_started_with_its_own_loader(folder: Path) -> None:
    """The system's loader may be too old, or not be there."""
    assert program.tree() == folder
    loader, *_, executable = program.command()
    assert (loader, executable) == (f"{folder}/lib/ld-linux-x86-64.so.2", f"{folder}/app/portway")


def test_an_image_is_started_as_it_is(folder: Path) -> None:
    """Where the loader is the system's, there is none in the tree, and no tree."""
    (folder / "lib" / "ld-linux-x86-64.so.2").unlink()
    (folder / "lib").rmdir()
    assert program.tree() is None
    assert program.command() == [f"{folder}/app/portway"]


@pytest.mark.parametrize(("before", "after"), [(None, None), ("/usr/local/lib", "/usr/local/lib")])
def test_other_programs_get_their_own_library_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, after: str | None
) -> None:
    """Programs such as systemctl must not load what the folder brings for itself."""
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{folder}/app/_internal")
    if before is not None:
        monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", before)
    program.settle()
    assert os.environ.get("LD_LIBRARY_PATH") == after


@pytest.mark.usefixtures("folder")
def test_a_library_path_of_the_hosts_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher names no libraries in the environment: what stands there is the host's."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/other/lib")
    program.settle()
    assert os.environ["LD_LIBRARY_PATH"] == "/opt/other/lib"


def test_the_folder_goes_with_the_process_that_was_started_and_with_no_fork(tmp_path: Path) -> None:
    """A worker that ends must not take the program away from the master."""
    unpacked = tmp_path / "portway-abcdef"
    unpacked.mkdir()
    code = (
        "import os, sys; from appliance import program; sys.frozen = True;"
        "os.environ.update(PORTWAY_UNPACKED=sys.argv[1], PORTWAY_LIFELINE=f'{os.getpid()}:5');"
        "program.settle();"
        "child = os.fork();"
        "child or sys.exit(0);"
        "os.waitpid(child, 0); print(os.path.isdir(sys.argv[1]), program.lifeline())"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(unpacked)], capture_output=True, text=True, check=True
    )
    assert child.stdout.strip() == "True (5,)"
    assert not unpacked.exists()
