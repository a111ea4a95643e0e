"""The environment block, as GRUB writes and reads it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.machine import grubenv
from tests.e2e.needs import lack

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"), min_size=1, max_size=10)


@given(st.dictionaries(NAMES, TEXT, max_size=5))
def test_what_is_written_is_read(names: dict[str, str]) -> None:
    """Any value comes back, with backslashes and line ends, and the block has its fixed size."""
    block = grubenv.render(names)
    assert len(block) == grubenv.SIZE
    assert grubenv.parse(block) == names


def test_grubs_own_tool_reads_it(tmp_path: Path) -> None:
    """What we write is what grub-editenv lists, and what it writes is what we read."""
    if shutil.which("grub-editenv") is None:
        lack("grub-editenv is not installed")
    path = tmp_path / "grubenv"
    path.write_bytes(grubenv.render({"saved_entry": "a", "arguments": "console=ttyS0 -- machine"}))
    subprocess.run(["grub-editenv", path, "set", "next_entry=b"], check=True)
    subprocess.run(["grub-editenv", path, "unset", "arguments"], check=True)
    assert grubenv.parse(path.read_bytes()) == {"saved_entry": "a", "next_entry": "b"}


def test_a_block_that_is_none() -> None:
    """A file of other contents, or one cut short, is refused: nothing is guessed from it."""
    for block in (b"", b"#" * grubenv.SIZE, grubenv.render({})[:-1]):
        with pytest.raises(ValueError, match="not a GRUB environment block"):
            grubenv.parse(block)


def test_too_much() -> None:
    """What does not fit is refused, not cut."""
    with pytest.raises(ValueError, match="do not fit"):
        grubenv.render({"arguments": "x" * grubenv.SIZE})
