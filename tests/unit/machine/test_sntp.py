"""SNTP: what an answer says about the clock."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.machine.sntp import Sample, ask, read

COOKIE = b"12345678"
EPOCH = 2_208_988_800


def stamp(seconds: float) -> bytes:
    """Write a time as NTP does."""
    whole = int(seconds) + EPOCH
    return struct.pack("!II", whole & 0xFFFFFFFF, int((seconds % 1) * (1 << 32)))


def answer(
    arrived: float, left: float, *, first: int = 0x24, stratum: int = 2, reference: bytes = b"\0" * 4
) -> bytes:
    """Build a server's answer to COOKIE."""
    head = bytes((first, stratum, 6, 0xEC)) + bytes(8) + reference + bytes(8)
    return head + COOKIE + stamp(arrived) + stamp(left)


def test_a_question_says_nothing_but_itself() -> None:
    """48 octets, version 4, mode client, and no time of this clock."""
    assert ask(COOKIE) == b"\x23" + bytes(39) + COOKIE


def test_offset_and_delay() -> None:
    """A clock 10 s behind, with 0.2 s on the way there and back and 0.1 s in the server."""
    sent = 1_800_000_000.0
    found = read(answer(sent + 10.1, sent + 10.2), COOKIE, sent, sent + 0.3)
    assert isinstance(found, Sample)
    assert found.offset == pytest.approx(10.0, abs=1e-5)
    assert found.delay == pytest.approx(0.2, abs=1e-5)


def test_after_2036() -> None:
    """The seconds of NTP begin anew on 7 February 2036; a clock that is at 2024 finds out."""
    later = 2_100_000_000.0
    found = read(answer(later, later), COOKIE, 1_704_067_201.0, 1_704_067_201.0)
    assert isinstance(found, Sample)
    assert found.offset == pytest.approx(later - 1_704_067_201.0, abs=1e-3)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"short", "is too short"),
        (answer(1.8e9, 1.8e9).replace(COOKIE, b"87654321"), "is no answer to the question"),
        (answer(1.8e9, 1.8e9, first=0x23), "is no answer to the question"),
        (answer(1.8e9, 1.8e9, first=0xE4), "does not know the time itself"),
        (answer(1.8e9, 1.8e9, stratum=16), "does not know the time itself"),
        (answer(1.8e9, 1.8e9, stratum=0, reference=b"RATE"), "asks to be left alone (RATE)"),
        (answer(1.8e9, 1.8e9)[:40] + bytes(8), "has no time"),
    ],
)
def test_answers_of_no_use(data: bytes, what: str) -> None:
    """An answer that cannot be used says why."""
    assert read(data, COOKIE, 1.8e9, 1.8e9) == what


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    """Nothing that a network may send raises."""
    read(data, COOKIE, 1.8e9, 1.8e9)
