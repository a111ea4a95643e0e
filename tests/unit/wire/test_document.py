"""docs/tunnel-protocol.md and the code say the same: its test vectors, and every key of every message."""

import re
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from appliance.net.pipes import PipePool
from appliance.net.reactor import IN
from appliance.net.relay import Relay, Relayed
from appliance.net.sealed import END, Sealing
from appliance.tunnel.link import proof_of
from appliance.wire import datagrams
from appliance.wire.client_hello import ClientHello, look
from appliance.wire.datagrams import DatagramReader, framed
from appliance.wire.messages import HEADER_BYTES, MessageError, decoded, length_of
from appliance.wire.messages import framed as framed_message
from appliance.wire.server_name import worker_meant
from tests.unit.net.loop import loop, tcp_pair
from tests.unit.wire import saying

DOCUMENT = Path(__file__).parents[3] / "docs" / "tunnel-protocol.md"
TEXT = DOCUMENT.read_text()


def vectors(kind: str) -> list[list[str]]:
    """Give the lines of each block of a kind."""
    return [
        block.splitlines() for block in re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize("lines", vectors("message"), ids=lambda lines: lines[0][9:16])
def test_a_message(lines: list[str]) -> None:
    """The bytes are the JSON behind its length, are read, and said again they are the same bytes."""
    sent = bytes.fromhex("".join(lines[1:]))
    body = sent[HEADER_BYTES:]
    assert length_of(sent, 65535) == len(body)
    assert body == lines[0].encode()
    read = []
    for decoder in saying.DECODERS:
        each: msgspec.json.Decoder[Any] = decoder
        try:
            read.append(decoded(each, body))
        except MessageError:
            continue
    assert read
    assert [framed_message(message) for message in read] == [sent] * len(read)


def test_every_message_is_there_with_every_key() -> None:
    """One vector for each type, and each key of it in the text."""
    types = [msgspec.json.decode(lines[0])["type"] for lines in vectors("message")]
    assert sorted(types) == sorted({msgspec.to_builtins(message)["type"] for message in saying.EACH})
    for message in saying.EACH:
        for key in msgspec.to_builtins(message):
            assert re.search(rf"\b{key}\b", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)), key


def test_server_names() -> None:
    """Each name means the worker that the document says."""
    (lines,) = vectors("server-name")
    for line in lines:
        name, workers, worker = line.split()
        assert worker_meant(name, int(workers)) == (None if worker == "-" else int(worker)), line


def test_a_client_hello() -> None:
    """The name is found in it."""
    ((name, *lines),) = vectors("client-hello")
    assert look(bytes.fromhex("".join(lines))) == ClientHello(name)


def test_a_proof() -> None:
    """Secret, link and number make the proof."""
    ((secret, line, proof),) = vectors("proof")
    link, number = line.split()
    assert proof_of(secret, link, int(number)) == proof


def test_pieces() -> None:
    """What a direction sends: each read is a piece, then comes the end; the agent's word is one more."""
    ((line,),) = vectors("pieces")
    with ExitStack() as stack, loop() as at:
        client, source, sink, agent = (stack.enter_context(each) for each in (*tcp_pair(), *tcp_pair()))
        way = Sealing(Relay(at.reactor, PipePool(0)), Mock(Relayed), source, sink)
        way.back = Mock(is_sink_lost=False, ended=False)
        at.reactor.watch(way.fd, IN, way)
        for said in (b"hello", b"x"):
            client.send(said)
            at.until(lambda said=said: way.moved >= len(said))  # type: ignore[misc]
            way.moved = 0
        client.shutdown(socket.SHUT_WR)
        at.until(lambda: way.ended)
        assert agent.recv(100) + END == bytes.fromhex(line)


def test_datagrams() -> None:
    """The stream is the three datagrams that the text names, and the flow's end."""
    ((line,),) = vectors("datagrams")
    stream = bytes.fromhex(line)
    reader = DatagramReader()
    assert [bytes(view) for view in reader.feed(stream)] == [b"hello", b"", b"x"]
    assert reader.is_over
    assert b"".join(map(framed, (b"hello", b"", b"x"))) + datagrams.END == stream
    assert HEADER_BYTES == 2
