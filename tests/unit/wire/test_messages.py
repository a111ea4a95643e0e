"""The messages of a tunnel: what is taken, what is not, and how a stream is cut into them."""

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from appliance.outcome import LEGAL, Cause, Stage
from appliance.wire import messages
from appliance.wire.messages import HEADER_BYTES, Limit, MessageError, cause_of, decoded, framed
from tests.unit.wire import saying


@dataclass(frozen=True)
class Damage:
    """A key of a message, and a value it must not have."""

    message: msgspec.Struct
    key: str
    value: object

    @property
    def body(self) -> bytes:
        """The message with that value."""
        told = msgspec.to_builtins(self.message)
        assert self.key in told
        return json.dumps({**told, self.key: self.value}).encode()


def taken(body: bytes) -> list[msgspec.Struct]:
    """Give what each of the decoders makes of a body, where it takes it."""
    found: list[msgspec.Struct] = []
    for decoder in saying.DECODERS:
        each: msgspec.json.Decoder[Any] = decoder
        try:
            found.append(decoded(each, body))
        except MessageError:
            continue
    return found


@pytest.mark.parametrize("message", saying.EACH, ids=lambda message: type(message).__name__)
def test_each_message_comes_back(message: msgspec.Struct) -> None:
    """What is sent is a length and JSON that has the type first, and reads back as the same."""
    sent = framed(message)
    body = sent[HEADER_BYTES:]
    assert int.from_bytes(sent[:HEADER_BYTES], "big") == len(body)
    assert next(iter(json.loads(body))) == "type"
    found = taken(body)
    assert found
    assert all(each == message for each in found)


def test_each_decoder_takes_its_own_only() -> None:
    """A message in another's place is refused: an Open on a control channel, a Hello after the first."""
    bodies = {type(message).__name__: framed(message)[HEADER_BYTES:] for message in saying.EACH}
    who = {
        name: [decoder for decoder in saying.DECODERS if _takes(decoder, body)]
        for name, body in bodies.items()
    }
    assert who["Open"] == [messages.OPEN]
    assert who["Attach"] == [messages.FIRST]
    assert who["Hello"] == [messages.FIRST, messages.FROM_AGENT]
    assert who["Opened"] == who["Failed"] == [messages.ANSWER]
    assert who["Ping"] == who["Pong"] == who["Bye"] == [messages.FROM_AGENT, messages.FROM_GATEWAY]
    assert who["Renew"] == [messages.FROM_AGENT]
    for name in ("Welcome", "Refused", "Want", "Renewed"):
        assert who[name] == [messages.FROM_GATEWAY]


def _takes(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> bool:
    try:
        decoded(decoder, body)
    except MessageError:
        return False
    return True


def test_a_key_of_a_later_release_is_passed_over() -> None:
    """Within version 1 something may be added."""
    body = json.dumps({**msgspec.to_builtins(saying.HELLO), "mood": {"is": ["good"]}}).encode()
    assert decoded(messages.FIRST, body) == saying.HELLO


@pytest.mark.parametrize(
    "damage",
    [
        Damage(saying.HELLO, "version", -1),
        Damage(saying.HELLO, "version", "1"),
        Damage(saying.HELLO, "instance", "0" * 31),
        Damage(saying.HELLO, "instance", "0" * 32 + "\n"),
        Damage(saying.HELLO, "instance", "A" * 32),
        Damage(saying.HELLO, "generation", 2**53),
        Damage(saying.HELLO, "generation", True),
        Damage(saying.HELLO, "worker", 2),
        Damage(saying.HELLO, "worker", -1),
        Damage(saying.HELLO, "workers", 0),
        Damage(saying.HELLO, "workers", 257),
        Damage(saying.HELLO, "software", "x" * 65),
        Damage(saying.HELLO, "type", "hullo"),
        Damage(saying.WELCOME, "link", "0" * 15),
        Damage(saying.WELCOME, "secret", "0" * 63),
        Damage(saying.WELCOME, "heartbeat", 0.0),
        Damage(saying.WELCOME, "heartbeat", 61),
        Damage(saying.WELCOME, "encryption", "rot13"),
        Damage(saying.WELCOME, "ready", 65536),
        Damage(saying.WELCOME, "allow_to", ["x" * 321]),
        Damage(saying.WELCOME, "allow_to", ["x"] * 4097),
        Damage(saying.WELCOME, "worker", 2),
        Damage(saying.ATTACH, "number", -1),
        Damage(saying.ATTACH, "proof", "a5" * 31),
        Damage(saying.ATTACH, "link", None),
        Damage(saying.OPEN, "session", "01KARPYX5V4T9Q2M7XKD00004I"),
        Damage(saying.OPEN, "session", "../../etc/passwd"),
        Damage(saying.OPEN, "protocol", "sctp"),
        Damage(saying.OPEN, "to", ""),
        Damage(saying.OPEN, "client", "x" * 321),
        Damage(saying.OPEN, "connect_timeout", 0),
        Damage(saying.OPEN, "idle_timeout", 1e12),
        Damage(saying.OPEN, "proxy_protocol", "v3"),
        Damage(messages.Failed(cause="x"), "cause", "Dial refused"),
        Damage(messages.Opened(endpoint="x"), "endpoint", ["x"]),
        Damage(messages.Bye(reason="drain"), "reason", "x" * 33),
    ],
    ids=lambda damage: f"{type(damage.message).__name__}-{damage.key}-{str(damage.value)[:20]!r}",
)
def test_a_field_out_of_its_bounds(damage: Damage) -> None:
    """Refused, whoever reads it, with a reason that can be shown."""
    assert taken(damage.body) == []


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"x", b"[]", b"null", b"{}", b'{"type":"ping"}', b'{"type":"ping","number":1}x'),
        *(b'{"type":"ping","number":1e999}', b'{"type":"ping","number":1.5}', b'{"type":1,"number":1}'),
        *(b'{"type":"bye","reason":"\xff"}', b'{"type":"bye","reason":"\\ud800"}', b"[" * 5000),
        b'{"type":"' + b"x" * 1000 + b'\\u001b[2J"}',
        b'{"type":"ping","number":' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: body[:30],
)
def test_what_is_no_message(body: bytes) -> None:
    """Refused with a short reason that steers no terminal."""
    for decoder in saying.DECODERS:
        each: msgspec.json.Decoder[Any] = decoder
        with pytest.raises(MessageError) as wrong:
            decoded(each, body)
        assert len(str(wrong.value)) <= 800
        assert str(wrong.value).isprintable()


def test_the_longest_of_each_fit_their_limit() -> None:
    """A list of targets, a request and an Open at their greatest are not refused for their length."""
    hello = msgspec.structs.replace(
        saying.HELLO, software="x" * 64, generation=2**53 - 1, worker=254, workers=255
    )
    assert len(framed(hello)) - HEADER_BYTES <= Limit.STRANGER
    assert len(framed(saying.ATTACH)) - HEADER_BYTES <= Limit.STRANGER
    text = "x" * 320
    longest = msgspec.structs.replace(saying.OPEN, rule="x" * 64, to=text, client=text, local=text)
    assert len(framed(longest)) - HEADER_BYTES <= Limit.DATA
    welcome = msgspec.structs.replace(saying.WELCOME, allow_to=["192.168.100.0/24:1-65535"] * 2400)
    assert len(framed(welcome)) - HEADER_BYTES <= Limit.GATEWAY
    with pytest.raises(MessageError, match="where up to 65535"):
        framed(msgspec.structs.replace(saying.WELCOME, allow_to=["x" * 320] * 300))


@pytest.mark.parametrize("cause", [*Cause, "", "no_such_cause"])
def test_the_cause_of_a_failure(cause: str) -> None:
    """Whatever an agent names, a session that was being dialled can end by it."""
    found = cause_of(messages.Failed(cause=cause))
    assert found in LEGAL[Stage.DIAL]
    assert found not in {Cause.INTERNAL, Cause.DRAIN}
    assert cause_of(messages.Failed(cause="dial_refused")) is Cause.DIAL_REFUSED
    assert cause_of(messages.Failed(cause="client_eof")) is Cause.DIAL_UNREACHABLE
