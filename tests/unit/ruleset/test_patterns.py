"""The regular expressions of the notations against their parsers."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.ruleset.model import BufferSize
from appliance.ruleset.patterns import ADMIN, DIFFERENCES, DURATION, LISTEN, SIZE, TARGET
from appliance.values import ListenAddress, Misread, TargetAddress, parse_duration, parse_size
from appliance.values.admin import parse_admin
from tests.unit.ruleset import written

TALLIED = (
    *("runs backwards", "is too long", "is too large", "is too small"),
    *("host name of", "bytes long", "cannot be dialled"),
)
"""What the parser says where only it refuses: one for each of DIFFERENCES."""

Parser = Callable[[str], object]

NOTATIONS: dict[str, tuple[str, Parser, st.SearchStrategy[str]]] = {
    "listen": (LISTEN, ListenAddress.parse, written.addresses()),
    "target": (TARGET, TargetAddress.parse, written.addresses()),
    "admin": (ADMIN, parse_admin, written.admins()),
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
        (SIZE, parse_size, "1025GiB", TALLIED[2]),
        (SIZE, BufferSize.read, "4095B", TALLIED[3]),
        (TARGET, TargetAddress.parse, ".".join(["x" * 62] * 5) + ":80", TALLIED[4]),
        (LISTEN, ListenAddress.parse, "unix:/" + "é" * 60, TALLIED[5]),
        (TARGET, TargetAddress.parse, "[::ffff:0:0]:80", TALLIED[6]),
    ],
)
def test_a_difference_is_one(pattern: str, parse: Parser, text: str, tallied: str) -> None:
    """Each difference that is allowed exists: none is on the list only because it once was one."""
    assert re.search(pattern, text)
    assert tallied in refusal(parse, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(LISTEN, ":80"), (ADMIN, "@"), (TARGET, "a:80"), (DURATION, "5s"), (SIZE, "4MiB")],
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
