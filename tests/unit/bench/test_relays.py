"""How the relays are configured, and the order they run in."""

import tomllib
from pathlib import Path

import click
import pytest

from bench.__main__ import choose_cores
from bench.process import Cores, Program
from bench.relays import (
    BULK,
    DIRECT,
    FLOWS,
    HTTP,
    IDLE,
    KINDS,
    NGINX,
    PORTS,
    PORTWAY,
    SPLICE,
    TRAINS,
    Route,
    Routes,
    Running,
    Way,
)
from bench.run import LOADS, rotated, takes_part

ROUTES = (
    Route(Way(HTTP, ("127.0.0.9", 20_000)), ("127.0.0.9", 20_001)),
    Route(Way(BULK, ("127.0.0.1", 20_002)), ("127.0.0.9", 20_003)),
)
UDP_ROUTES = (
    Route(Way(FLOWS, ("127.0.0.65", 20_004), udp=True, responses=1), ("127.0.0.9", 20_005)),
    Route(Way(PORTS, ("127.0.0.65", 21_000), udp=True, ports=1_000), ("127.0.0.9", 21_000)),
)
ECHO_ROUTE = Route(Way(TRAINS, ("127.0.0.65", 20_006), udp=True), ("127.0.0.9", 20_007))


def configured(key: str, directory: Path, file: str, routes: Routes = ROUTES) -> str:
    """Configure a relay and return the file it is started with."""
    KINDS[key].commands(directory, routes)
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


def test_portway_is_told_of_udp_what_nginx_is_told(tmp_path: Path) -> None:
    """Rules of datagrams name their protocol, one answer a flow where it is so, and equally long ranges."""
    ruleset = tomllib.loads(configured(PORTWAY, tmp_path, "ruleset.toml", UDP_ROUTES))
    assert ruleset["rule"] == [
        {
            "name": "flows",
            "listen": "127.0.0.9:20005",
            "to": "127.0.0.65:20004",
            "protocol": "udp",
            "responses": 1,
        },
        {
            "name": "ports",
            "listen": "127.0.0.9:21000-21999",
            "to": "127.0.0.65:21000-21999",
            "protocol": "udp",
        },
    ]


def test_nginx_forwards_datagrams_as_the_rules_say(tmp_path: Path) -> None:
    """The same routes: one answer ends a flow, a range goes to the same ports, buffers are large."""
    config = configured(NGINX, tmp_path, "nginx.conf", UDP_ROUTES)
    flows, ports = (line for line in config.splitlines() if "server {" in line)
    assert "listen 127.0.0.9:20005 udp rcvbuf=4m; proxy_pass 127.0.0.65:20004;" in flows
    assert "proxy_responses 1;" in flows
    assert "listen 127.0.0.9:21000-21999 udp rcvbuf=4m; proxy_pass 127.0.0.65:$server_port;" in ports
    assert "proxy_responses" not in ports


def test_nginx_empties_its_listeners_where_that_is_cheaper(tmp_path: Path) -> None:
    """With trains, and only there, it accepts all that has come."""
    assert "multi_accept on" in configured(NGINX, tmp_path, "nginx.conf", (*ROUTES, ECHO_ROUTE))
    assert "multi_accept" not in configured(NGINX, tmp_path, "nginx.conf", (*ROUTES, *UDP_ROUTES))


def test_who_forwards_no_udp_takes_no_part_in_it() -> None:
    """Of the relays Portway and nginx run the loads of datagrams, and every relay all others."""
    parts = {load: {key for key, kind in KINDS.items() if takes_part(kind, load)} for load in LOADS}
    relays = KINDS.keys() - {DIRECT}
    assert parts["datagrams"] == parts["trains"] == parts["flows"] == {DIRECT, PORTWAY, NGINX}
    assert parts["bulk"] == parts["requests"] == parts["connections"] == relays | {DIRECT}
    assert parts[PORTS] == {PORTWAY, NGINX}
    assert parts[IDLE] == relays


def test_records_are_counted_by_protocol(tmp_path: Path) -> None:
    """A flow's record is one with both its event and its protocol; other events are none."""
    log = tmp_path / "log"
    log.write_bytes(
        b'{"event":"session","level":"info","protocol":"udp"}\n'
        b'{"event":"session","level":"info","protocol":"tcp"}\n'
        b'{"event":"listening","level":"info","protocol":"udp"}\n'
        b'{"event":"session","level":"info","protocol":"udp"}\n'
    )
    program = Program(["true"], log)
    program.end()
    relay = Running(KINDS[PORTWAY], (program,), ROUTES)
    assert (relay.records("udp"), relay.records("tcp")) == (2, 1)
    assert Running(KINDS[NGINX], (program,), ROUTES).records("udp") == 0


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
