"""How the relays are configured, and the order they run in."""

import tomllib
from pathlib import Path

import click
import pytest

from bench.__main__ import choose_cores
from bench.process import Cores
from bench.relays import BULK, DIRECT, HTTP, KINDS, PORTWAY, SPLICE, Route
from bench.run import rotated

ROUTES = (
    Route(HTTP, ("127.0.0.9", 20_001), ("127.0.0.9", 20_000)),
    Route(BULK, ("127.0.0.9", 20_003), ("127.0.0.1", 20_002)),
)


def configured(key: str, directory: Path, file: str) -> str:
    """Configure a relay and return the file it is started with."""
    KINDS[key].commands(directory, ROUTES)
    return (directory / file).read_text()


def test_portway_is_measured_with_one_worker_and_its_defaults(tmp_path: Path) -> None:
    """The ruleset sets one worker and a rule for each route, and nothing that makes it faster."""
    ruleset = tomllib.loads(configured(PORTWAY, tmp_path, "ruleset.toml"))
    assert ruleset == {
        "gateway": {"workers": 1},
        "rule": [
            {"name": "http", "listen": "127.0.0.9:20001", "to": "127.0.0.9:20000"},
            {"name": "bulk", "listen": "127.0.0.9:20003", "to": "127.0.0.1:20002"},
        ],
    }


def test_haproxy_splices_only_where_it_says_so(tmp_path: Path) -> None:
    """One of the two HAProxy configurations splices both ways, the other not at all; both have one thread."""
    spliced, plain = (configured(key, tmp_path, "haproxy.cfg") for key in (SPLICE, "haproxy"))
    options = "  option splice-request\n  option splice-response\n"
    assert options in spliced
    assert plain == spliced.replace(options, "")
    assert "nbthread 1" in plain


def test_every_relay_gets_every_route(tmp_path: Path) -> None:
    """Each relay's commands or configuration name each listening port and each endpoint."""
    for key, kind in KINDS.items():
        directory = tmp_path / key
        directory.mkdir()
        commands = kind.commands(directory, ROUTES)
        text = str(commands) + "".join(path.read_text() for path in directory.iterdir())
        expected = () if key == DIRECT else ("20000", "20001", "20002", "20003")
        assert all(port in text for port in expected), key


def test_each_relay_is_first_as_often_as_the_others() -> None:
    """Over as many repetitions as there are relays, each stands in each place once."""
    kinds = list(KINDS.values())
    orders = [rotated(kinds, repetition) for repetition in range(len(kinds))]
    assert all(len({order[place].key for order in orders}) == len(kinds) for place in range(len(kinds)))


def test_no_relay_at_all_has_an_order() -> None:
    """Nothing to run is an empty order, not an error."""
    assert rotated([], 3) == []


def test_the_relay_and_the_load_get_a_core_each() -> None:
    """With two cores they are kept apart unless told otherwise; on one core nothing is pinned."""
    assert choose_cores({2, 3, 5}, pin=None) == Cores(relay=2, load=5)
    assert choose_cores({2, 3, 5}, pin=False) == Cores(None, None)
    assert choose_cores({2}, pin=None) == Cores(None, None)


def test_pinning_on_one_core_is_refused() -> None:
    """Asked to pin where there is one core, it says so instead of putting relay and load together."""
    with pytest.raises(click.UsageError, match="two cores"):
        choose_cores({0}, pin=True)
