"""Whatever the other end of a tunnel sends: a message within its bounds, or a MessageError."""

import json
import select
import socket
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.tunnel.messages import Messages
from appliance.wire.messages import (
    FROM_AGENT,
    HEADER_BYTES,
    Limit,
    MessageError,
    cause_of,
    decoded,
    framed,
)
from appliance.wire.messages import Failed as FailedMessage
from tests.unit.net.loop import loop
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


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(SENT) | st.binary(max_size=20), max_size=8).map(b"".join),
    st.lists(st.integers(1, 50), max_size=20),
)
def test_any_stream(stream: bytes, cuts: list[int]) -> None:
    """However it arrives, the messages are the same, up to the first that is none; what follows is unread."""
    assert _taken(stream, cuts) == _taken(stream, [])


def _taken(stream: bytes, cuts: list[int]) -> tuple[list[msgspec.Struct], int]:
    """Give the messages, and how many bytes of the stream are still in the kernel."""
    taken: list[msgspec.Struct] = []
    at = 0
    with loop() as made:
        ours, peer = socket.socketpair()
        with ours, peer:
            messages = Messages(made.reactor, ours, Limit.AGENT)
            for size in [*cuts, len(stream)]:
                peer.send(stream[at : at + size])
                at += size
                try:
                    while (message := messages.take(FROM_AGENT)) is not None:
                        taken.append(message)
                except MessageError:
                    unread = len(ours.recv(1 << 16)) if _is_readable(ours) else 0
                    return taken, unread + max(0, len(stream) - at)
    return taken, 0


def _is_readable(ours: socket.socket) -> bool:
    return bool(select.select([ours], [], [], 0)[0])
