"""Where the machine's two files come from."""

from pathlib import Path

import pytest

from appliance.machine.config import NETWORK, RULES, Place, Text, first


def places(folder: Path) -> list[Place]:
    """A seed disk, then the PORTWAY partition."""
    (folder / "seed").mkdir()
    (folder / "fat").mkdir()
    return [Place("seed", folder / "seed", is_seed=True), Place("PORTWAY", folder / "fat")]


def test_the_seed_goes_before_the_partition(tmp_path: Path) -> None:
    """What is said for this one machine counts more than what its image says."""
    both, problems = places(tmp_path), list[str]()
    (tmp_path / "fat" / RULES).write_bytes(b"fat")
    assert first(both, RULES, problems) == Text("PORTWAY:rules.toml", b"fat")
    (tmp_path / "seed" / "user-data").write_bytes(b"seed")
    assert first(both, RULES, problems) == Text("seed:user-data", b"seed")
    (tmp_path / "seed" / RULES).write_bytes(b"by name")
    assert first(both, RULES, problems) == Text("seed:rules.toml", b"by name")
    assert problems == []


def test_the_network_of_a_seed(tmp_path: Path) -> None:
    """network-config may be network.toml."""
    (seed, _), problems = places(tmp_path), list[str]()
    (tmp_path / "seed" / "network-config").write_bytes(b'hostname = "a"')
    assert first([seed], NETWORK, problems) == Text("seed:network-config", b'hostname = "a"')


def test_empty_user_data_is_none(tmp_path: Path) -> None:
    """Tools that make seed disks leave the files they were given nothing for empty."""
    (seed, _), problems = places(tmp_path), list[str]()
    (tmp_path / "seed" / "user-data").write_bytes(b"\n")
    assert (first([seed], RULES, problems), problems) == (None, [])


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("user-data", b"#cloud-config\nwrite_files: []\n", "#cloud-config"),
        ("user-data", b"#!/bin/sh\n", "#!"),
        ("network-config", b"version: 2\nethernets: {}\n", "version: 2"),
        ("network-config", b"network:\n  version: 2\n", "network:"),
    ],
)
def test_what_is_for_cloud_init(tmp_path: Path, name: str, text: bytes, shown: str) -> None:
    """YAML and scripts are not guessed at: a sentence says what to put there instead."""
    (seed, _), problems = places(tmp_path), list[str]()
    (tmp_path / "seed" / name).write_bytes(text)
    assert first([seed], RULES if name == "user-data" else NETWORK, problems) is None
    (problem,) = problems
    assert problem == (
        f"seed:{name}: begins with '{shown}', which is for cloud-init; Portway takes the text of rules.toml "
        "as user-data and that of network.toml as network-config"
    )


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A folder in the file's place is a problem, and the next place is asked."""
    both, problems = places(tmp_path), list[str]()
    (tmp_path / "seed" / RULES).mkdir()
    (tmp_path / "fat" / RULES).write_bytes(b"fat")
    assert first(both, RULES, problems) == Text("PORTWAY:rules.toml", b"fat")
    assert problems == ["seed:rules.toml: cannot be read: Is a directory"]
