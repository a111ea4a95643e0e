"""Paths and values as messages name them."""

import datetime as dt

import pytest

from appliance.ruleset.finding import Path, dotted, found


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("rule", 2, "listen", 0), "rule[2].listen[0]"),
        (("gateway", "we ird"), 'gateway."we ird"'),
        (("\x1b", ""), '"\\x1b".""'),
    ],
)
def test_a_path_is_written_as_toml_would(path: Path, text: str) -> None:
    """Keys are joined by dots, positions are in brackets, and what TOML would quote is quoted."""
    assert dotted(path) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("web", '"web"'),
        (True, "true"),
        (False, "false"),
        (-5, "the integer -5"),
        pytest.param(1 << 20_000, "a very large integer", id="huge"),
        (1.5, "the number 1.5"),
        (float("nan"), "the number nan"),
        ([1], "an array"),
        ([], "an empty array"),
        ({}, "a table"),
        (dt.date(2026, 1, 2), "the date or time 2026-01-02"),
        (dt.time(7, 30), "the date or time 07:30:00"),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "the date or time 2026-01-02T00:00:00+00:00"),
    ],
)
def test_every_toml_value_is_named(value: object, text: str) -> None:
    """Whatever TOML holds has a short name; a number too long for int-to-text conversion too."""
    assert found(value) == text
