"""Places in a text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.ruleset.source import Source

TEXT = "one\r\n\ttwo\n\nü"


@pytest.mark.parametrize(
    ("index", "line", "column", "excerpt"),
    [
        (-5, 1, 1, "one"),
        (0, 1, 1, "one"),
        (3, 1, 4, "one"),
        (5, 2, 1, "\ttwo"),
        (6, 2, 2, "\ttwo"),
        (9, 2, 5, "\ttwo"),
        (10, 3, 1, ""),
        (11, 4, 1, "ü"),
        (12, 4, 2, "ü"),
        (99, 4, 2, "ü"),
    ],
)
def test_an_index_has_a_place(index: int, line: int, column: int, excerpt: str) -> None:
    """Lines and columns count from 1; a line's end belongs to it; outside is drawn in."""
    place = Source("f", TEXT).at(index)
    assert (place.line, place.column, place.excerpt) == (line, column, excerpt)


@settings(deadline=None)
@given(st.text("ab\n\r", max_size=30), st.data())
def test_every_character_is_found_at_its_place(text: str, data: st.DataObject) -> None:
    """The place of an index leads back to that index, or to the end of its line where a CR was taken off."""
    index = data.draw(st.integers(0, len(text)))
    place = Source("f", text).at(index)
    lines = text.split("\n")
    start = sum(len(line) + 1 for line in lines[: place.line - 1])
    assert lines[place.line - 1].removesuffix("\r") == place.excerpt
    assert start + place.column - 1 in {index, index - 1}


@settings(deadline=None)
@given(st.text("ab\n", max_size=20), st.integers(-3, 30), st.integers(-3, 30))
def test_any_line_and_column_is_drawn_into_the_text(text: str, line: int, column: int) -> None:
    """A place is always within the text, whatever a parser claims."""
    place = Source("f", text).place(line, column)
    assert 1 <= place.line <= text.count("\n") + 1
    assert 1 <= place.column <= len(place.excerpt) + 1
