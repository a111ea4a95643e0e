"""Whatever the other end of a tunnel sends: a message within its bounds, or a MessageError."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.wire.messages import HEADER_BYTES, MessageError, Reader, cause_of, decoded, framed
from appliance.wire.messages import Failed as FailedMessage
from tests.unit.wire import saying

SENT = [framed(message) for message in saying.EACH]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def hold(body: bytes) -> None:
    """Hold what is promised for any body: what is taken can be said again, and is the same then."""
    for decoder in saying.DECODERS:
        each: msgspec.json.Decoder[Any] = decoder
        try:
            message = decoded(each, body)
        except MessageError:
            continue
        assert decoded(each, framed(message)[HEADER_BYTES:]) == message
        if isinstance(message, FailedMessage):
            cause_of(message)


@settings(max_examples=300)
@given(st.binary(max_size=100) | st.text(max_size=60).map(lambda text: json.dumps({"type": text}).encode()))
def test_any_bytes(body: bytes) -> None:
    """Bytes of no meaning."""
    hold(body)


@settings(max_examples=1000)
@given(st.sampled_from(saying.EACH), st.data())
def test_a_message_with_other_values(message: msgspec.Struct, data: st.DataObject) -> None:
    """A message some of whose fields are something else, or missing."""
    told = msgspec.to_builtins(message)
    for key in data.draw(st.lists(st.sampled_from(sorted(told)), min_size=1, max_size=2)):
        if data.draw(st.booleans()):
            told[key] = data.draw(values)
        else:
            told.pop(key, None)
    hold(json.dumps(told).encode())


@settings(max_examples=500)
@given(st.sampled_from(SENT), st.data())
def test_a_message_with_damage(sent: bytes, data: st.DataObject) -> None:
    """A message with bytes cut out or put in."""
    body = sent[HEADER_BYTES:]
    begin = data.draw(st.integers(0, len(body)))
    end = begin + data.draw(st.integers(0, 4))
    hold(body[:begin] + data.draw(st.binary(max_size=4)) + body[end:])


@settings(max_examples=500)
@given(st.binary(max_size=400), st.integers(1, 200), st.lists(st.integers(1, 50), max_size=20))
def test_any_stream(stream: bytes, limit: int, cuts: list[int]) -> None:
    """The same bodies however the stream arrives; memory within the limit; after a wrong length, nothing."""
    whole = _bodies(stream, limit, [len(stream)])
    assert _bodies(stream, limit, cuts) == whole
    for body in whole:
        hold(body)


def _bodies(stream: bytes, limit: int, cuts: list[int]) -> list[bytes]:
    reader = Reader(limit)
    bodies: list[bytes] = []
    at = 0
    for size in [*cuts, len(stream)]:
        reader.put(stream[at : at + size])
        at += size
        try:
            while (body := reader.take()) is not None:
                assert 0 < len(body) <= limit
                bodies.append(body)
        except MessageError:
            return bodies
        assert reader.buffered < HEADER_BYTES + limit
    return bodies
