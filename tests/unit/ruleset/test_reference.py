"""The reference page."""

import re
from pathlib import Path

from appliance.ruleset import Ruleset, read, reference
from appliance.ruleset.keys import HEADERS, keys_of, literal

PAGE = Path(__file__).parents[3] / "docs" / "ruleset.md"


def test_the_page_is_made_from_the_model() -> None:
    """docs/ruleset.md is what the program prints: a key changed in one place is changed in both."""
    assert PAGE.read_text(encoding="utf-8") == reference.page()


def test_the_page_has_every_key() -> None:
    """Every key has a row, below its table's header, and no row lacks a cell."""
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| (.+) \|$", reference.page(), re.MULTILINE)
    tables = [
        table
        for header in re.findall(r"^## `(.+)`$", reference.page(), re.MULTILINE)
        for table in HEADERS
        if HEADERS[table] == header
    ]
    assert [row[0] for row in rows] == [key for table in tables for key in keys_of(table)]
    assert len(tables) == len(HEADERS)


def test_every_row_says_what_leaving_its_key_out_means() -> None:
    """The third cell is never empty: required, a value, or words."""
    cells = re.findall(r"^\| `(\w+)` \| .+? \| (.+?) \| ", reference.page(), re.MULTILINE)
    assert ("idle_timeout", "as `[defaults]` has it") in cells
    assert ("via", "this host dials the endpoints itself") in cells
    assert ("encryption", '`"tls"`') in cells
    assert ("encryption", "as `[tunnel]` has it") in cells
    assert ("idle_timeout", "1h for TCP, 1m for UDP") in cells
    assert ("receive_buffer", '`"4MiB"`') in cells
    assert ("name", "required") in cells
    assert len(cells) == sum(len(keys_of(table)) for table in HEADERS)


def test_its_example_is_right() -> None:
    """The ruleset at the head of the page is one."""
    (example,) = re.findall(r"```toml\n(.*?)```", reference.page(), re.DOTALL)
    assert isinstance(read(example.encode(), "page"), Ruleset)


def test_its_examples_are_right() -> None:
    """Every example of a key is accepted, each in its table, beside what that needs."""
    for table, header in HEADERS.items():
        for key in keys_of(table).values():
            for example in key.examples:
                tables = {
                    "[[rule]]": {"name": '"a"', "listen": '":1"', "to": '"a:1"'},
                    "[tunnel]": {"listen": '":2"', "state": '"/a"'},
                    "[[agent]]": {"name": '"office"'},
                }
                if key.for_flows:
                    tables["[[rule]]"]["protocol"] = '"udp"'
                tables.setdefault(header, {})[key.name] = literal(example)
                text = "".join(
                    f"{name}\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
                    for name, keys in tables.items()
                )
                assert isinstance(read(text.encode(), "f"), Ruleset), text
