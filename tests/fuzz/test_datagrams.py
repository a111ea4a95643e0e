"""Any stream is datagrams."""

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.wire.datagrams import END, DatagramReader, framed


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40), max_size=10), st.lists(st.integers(0, 30), max_size=30))
def test_datagrams_come_back(datagrams: list[bytes], cuts: list[int]) -> None:
    """However the stream is cut."""
    assert _read(b"".join(map(framed, datagrams)), cuts) == (datagrams, 0)


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([b"\0", b"\1", b"\2", b"\xff"]) | st.binary(max_size=5), max_size=40), st.data()
)
def test_any_bytes(pieces: list[bytes], data: st.DataObject) -> None:
    """What is given and what is held are the whole stream up to the flow's end, however it is cut."""
    stream = b"".join(pieces)
    datagrams, held = _read(stream, data.draw(st.lists(st.integers(0, 30), max_size=10)))
    told = b"".join(map(framed, datagrams))
    assert stream.startswith(told)
    rest = stream[len(told) :]
    assert held == (0 if rest.startswith(END) else len(rest))


def _read(stream: bytes, cuts: list[int]) -> tuple[list[bytes], int]:
    reader = DatagramReader()
    found: list[bytes] = []
    at = 0
    for size in [*cuts, len(stream)]:
        found += map(bytes, reader.feed(stream[at : at + size]))
        at += size
    return found, reader.buffered
