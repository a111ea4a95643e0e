"""The page about the machine is made from the program."""

from pathlib import Path

from appliance.machine.network_file import read_network
from appliance.machine.network_model import InterfaceTable, NetworkFile
from appliance.machine.reference import page
from appliance.ruleset.keys import keys_of

PAGE = Path(__file__).parents[3] / "docs" / "machine.md"


def test_page_is_made_from_the_model() -> None:
    """docs/machine.md is what the program prints, and has a row for every key."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == page()
    keys = [*keys_of(NetworkFile), *keys_of(InterfaceTable)]
    assert all(f"| `{key}` |" in text for key in keys if key != "interface")


def test_the_example_can_be_read() -> None:
    """What the page shows as network.toml is one."""
    example = page().split("```toml\n")[1].split("```")[0]
    assert isinstance(read_network(example.encode(), "network.toml"), NetworkFile)
