"""Datagrams in a stream."""

import pytest

from appliance.wire.datagrams import END, MAX_DATAGRAM, DatagramReader, framed, header

DATAGRAMS = [b"hello", b"", b"x", b"y" * 300, b"", b"z" * MAX_DATAGRAM]
STREAM = b"".join(map(framed, DATAGRAMS))


def test_how_a_datagram_is_framed() -> None:
    """Its length, and itself; the greatest is 65,534 bytes."""
    assert framed(b"hello") == b"\0\x05hello"
    assert framed(b"") == b"\0\0"
    assert framed(memoryview(b"abc")[1:]) == b"\0\x02bc"
    assert header(MAX_DATAGRAM) == b"\xff\xfe"
    with pytest.raises(OverflowError):
        framed(bytes(MAX_DATAGRAM + 1))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 4096, 65536, 10**6])
def test_a_stream_is_cut_into_datagrams(size: int) -> None:
    """However it arrives, in a buffer that is used again, each datagram comes once, whole, in order."""
    reader = DatagramReader()
    found = []
    buffer = bytearray(min(size, len(STREAM)))
    for at in range(0, len(STREAM), len(buffer)):
        part = STREAM[at : at + len(buffer)]
        buffer[: len(part)] = part
        found += [bytes(view) for view in reader.feed(memoryview(buffer)[: len(part)])]
        assert reader.buffered < 2 + MAX_DATAGRAM
    assert found == DATAGRAMS
    assert reader.buffered == 0


def test_what_is_whole_is_not_copied() -> None:
    """Datagrams within one read are views of it; a part waits for the next read."""
    buffer = bytearray(framed(b"one") + framed(b"two") + framed(b"three")[:3])
    reader = DatagramReader()
    one, two = reader.feed(buffer)
    assert one.obj is buffer
    assert (bytes(one), bytes(two)) == (b"one", b"two")
    assert reader.buffered == 3
    (three,) = reader.feed(b"hree")
    assert reader.buffered == 0
    assert list(map(bytes, reader.feed(framed(b"four")))) == [b"four"]
    assert bytes(three) == b"three"  # what was put together is not written over by what follows


def test_the_end_of_the_stream() -> None:
    """Within a datagram something is held; between two nothing is."""
    reader = DatagramReader()
    reader.feed(b"\0")
    assert reader.buffered == 1
    reader.feed(b"\x01")
    assert reader.buffered == 2
    assert reader.feed(b"") == []
    assert list(map(bytes, reader.feed(b"a"))) == [b"a"]
    assert reader.buffered == 0


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_end_of_the_flow(size: int) -> None:
    """It comes behind every datagram, however the stream arrives; what follows is none, and is noticed."""
    for more in (b"", b"\0", framed(b"more")):
        reader = DatagramReader()
        stream = framed(b"one") + framed(b"") + END + more
        found = []
        for at in range(0, len(stream), size):
            found += [bytes(view) for view in reader.feed(stream[at : at + size])]
        assert found == [b"one", b""]
        assert reader.is_over
        assert reader.is_overrun == bool(more)
        assert reader.buffered == 0
