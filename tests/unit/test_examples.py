"""The example rulesets."""

from pathlib import Path

import pytest

from appliance.ruleset import Ruleset, read
from appliance.ruleset.keys import HEADERS, keys_of

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))


def test_there_are_examples() -> None:
    """Examples are found where they should be."""
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_is_right(example: Path) -> None:
    """Every example is accepted as it stands."""
    assert isinstance(read(example.read_bytes(), example.name), Ruleset)


def test_everything_has_every_key() -> None:
    """The example of that name leaves no key out."""
    (text,) = (example.read_text(encoding="utf-8") for example in EXAMPLES if example.stem == "everything")
    for table, header in HEADERS.items():
        parts = [part for part in text.split("\n[") if f"[{part}".startswith(header)]
        assert {key for key in keys_of(table) for part in parts if f"\n{key} = " in part} == set(
            keys_of(table)
        )
