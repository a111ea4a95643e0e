"""The regular expressions of the notations against their parsers."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.ruleset.kinds import TUNNEL_LISTENERS, BufferSize, Heartbeat
from appliance.ruleset.patterns import (
    ADMIN,
    ALLOWED,
    DIFFERENCES,
    DIRECTORY,
    DURATION,
    LISTEN,
    SIZE,
    TARGET,
    TUNNEL_LISTEN,
)
from appliance.values import (
    AllowedTarget,
    ListenAddress,
    Misread,
    TargetAddress,
    parse_duration,
    parse_size,
)
from appliance.values.admin import parse_admin
from appliance.values.directory import parse_directory
from tests.unit.ruleset import written

TALLIED = (
    *("runs backwards", "is too long", "is too short", "is too large", "is too small"),
    *("host name of", "bytes long", "cannot be dialled", "has bits set beyond"),
)
"""What the parser says where only it refuses: one for each of DIFFERENCES."""

Parser = Callable[[str], object]


def directory(text: str) -> str:
    """Read a directory as the model does."""
    return parse_directory(text, example="/var/lib/portway")


NOTATIONS: dict[str, tuple[str, Parser, st.SearchStrategy[str]]] = {
    "listen": (LISTEN, ListenAddress.parse, written.addresses()),
    "target": (TARGET, TargetAddress.parse, written.addresses()),
    "admin": (ADMIN, parse_admin, written.admins()),
    "tunnel": (TUNNEL_LISTEN, TUNNEL_LISTENERS.parse, written.addresses()),
    "allowed": (ALLOWED, AllowedTarget.parse, written.allowed()),
    "directory": (DIRECTORY, directory, written.directories()),
    "heartbeat": (DURATION, Heartbeat.read, written.durations()),
    "duration": (DURATION, parse_duration, written.durations()),
    "size": (SIZE, parse_size, written.sizes()),
    "buffer": (SIZE, BufferSize.read, written.sizes()),
}


def refusal(parse: Parser, text: str) -> str:
    """Give what the parser says against a text, or nothing where it takes it."""
    try:
        parse(text)
    except Misread as misread:
        return misread.what
    return ""


def test_every_difference_is_tallied() -> None:
    """The list of differences in the program is as long as the one these tests allow."""
    assert len(DIFFERENCES) == len(TALLIED)


@pytest.mark.parametrize("notation", NOTATIONS)
@settings(deadline=None, max_examples=600)
@given(data=st.data())
def test_pattern_and_parser_agree(notation: str, data: st.DataObject) -> None:
    """A pattern takes what its parser takes, and beyond that only what is listed as a difference."""
    pattern, parse, texts = NOTATIONS[notation]
    text = data.draw(texts)
    matches = re.search(pattern, text) is not None
    refused = refusal(parse, text)
    assert matches or refused
    assert not (matches and refused) or any(words in refused for words in TALLIED)


@pytest.mark.parametrize(
    ("pattern", "parse", "text", "tallied"),
    [
        (LISTEN, ListenAddress.parse, ":90-80", TALLIED[0]),
        (DURATION, parse_duration, "366d", TALLIED[1]),
        (DURATION, Heartbeat.read, "61s", TALLIED[1]),
        (DURATION, Heartbeat.read, "199ms", TALLIED[2]),
        (SIZE, parse_size, "1025GiB", TALLIED[3]),
        (SIZE, BufferSize.read, "4095B", TALLIED[4]),
        (TARGET, TargetAddress.parse, ".".join(["x" * 62] * 5) + ":80", TALLIED[5]),
        (LISTEN, ListenAddress.parse, "unix:/" + "é" * 60, TALLIED[6]),
        (DIRECTORY, directory, "/" + "é" * 2000, TALLIED[6]),
        (TARGET, TargetAddress.parse, "[::ffff:0:0]:80", TALLIED[7]),
        (ALLOWED, AllowedTarget.parse, "[::ffff:0:0]:80", TALLIED[7]),
        (ALLOWED, AllowedTarget.parse, "10.0.0.5/8:80", TALLIED[8]),
        (ALLOWED, AllowedTarget.parse, "[2001:db8::5]/64:80", TALLIED[8]),
    ],
)
def test_a_difference_is_one(pattern: str, parse: Parser, text: str, tallied: str) -> None:
    """Each difference that is allowed exists: none is on the list only because it once was one."""
    assert re.search(pattern, text)
    assert tallied in refusal(parse, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        *((LISTEN, ":80"), (TUNNEL_LISTEN, ":7443"), (TARGET, "a:80"), (ALLOWED, "10.0.0.0/8:*")),
        *((ADMIN, "@"), (DURATION, "5s"), (SIZE, "4MiB")),
    ],
)
def test_a_pattern_is_the_whole_text(pattern: str, text: str) -> None:
    """Nothing may stand before or after what a pattern takes, a line end neither."""
    assert re.search(pattern, text)
    for other in (f" {text}", f"{text} ", f"{text}\n", f"\n{text}", f"{text}\n{text}"):
        assert not re.search(pattern, other)


def test_every_port_is_in_the_pattern() -> None:
    """The digits of the port pattern have no gap: it takes exactly the ports there are."""
    listen, target = re.compile(LISTEN), re.compile(TARGET)
    assert [port for port in range(70_000) if listen.search(f":{port}")] == list(range(65_536))
    assert [port for port in range(70_000) if target.search(f"a:{port}")] == list(range(1, 65_536))


def test_every_shape_of_an_ipv6_address() -> None:
    """Pattern and parser agree on any number of groups, around `::` or not, with IPv4 at the end or not."""
    for before in range(10):
        for after in (*range(10), None):
            for tail in ("", "10.0.0.5"):
                groups = ["1"] * before, ["2"] * (after or 0) + [tail] * bool(tail)
                text = ":".join(groups[0] + groups[1]) if after is None else "::".join(map(":".join, groups))
                for zone in ("", "%eth0"):
                    address = f"[{text}{zone}]:80"
                    assert bool(re.search(LISTEN, address)) == (not refusal(ListenAddress.parse, address)), (
                        address
                    )
                    local = address.replace("[1", "[fe80").replace("[:", "[fe80:")
                    assert bool(re.search(LISTEN, local)) == (not refusal(ListenAddress.parse, local)), local


def test_every_prefix_length_is_in_the_pattern() -> None:
    """The digits of the prefix lengths have no gap and no excess, in either family."""
    allowed = re.compile(ALLOWED)
    assert [length for length in range(400) if allowed.search(f"0.0.0.0/{length}:1")] == list(range(33))
    assert [length for length in range(400) if allowed.search(f"[::]/{length}:1")] == list(range(129))
