"""QUIC: aioquic's client against its server, by streams that go both ways at once."""

import asyncio
import datetime as dt
import hashlib
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.e2e.gateway import Gateway, rule, ruleset
from tests.real.datagrams import flows, free_ports, total
from tests.real.programs import Address

STREAMS = 4
BYTES = 3 << 20
"""Of each stream, each way."""
PIECE = 64 << 10
PROTOCOL = "echo"
NAME = "quic.example"
LONGEST = 60.0
WINDOW = 256 << 10
"""What one connection may have on its way to an end: less than a socket's buffer holds."""


@dataclass(frozen=True)
class Identity:
    """A server's key and certificate, signed by itself."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls) -> "Identity":
        """Make one that is valid now."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
        now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - day).not_valid_after(now + day)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        return cls(key, builder.sign(key, hashes.SHA256()))

    def server(self) -> QuicConfiguration:
        """Configure the server."""
        return QuicConfiguration(
            is_client=False,
            alpn_protocols=[PROTOCOL],
            certificate=self.certificate,
            private_key=self.key,
            max_data=WINDOW,
        )

    def client(self) -> QuicConfiguration:
        """Configure a client that takes no other server."""
        trusted = self.certificate.public_bytes(serialization.Encoding.PEM)
        return QuicConfiguration(
            is_client=True,
            alpn_protocols=[PROTOCOL],
            server_name=NAME,
            verify_mode=ssl.CERT_REQUIRED,
            cadata=trusted,
            max_data=WINDOW,
        )


class Client:
    """A connection whose socket can be changed, as when a phone leaves its network."""

    def __init__(self, protocol: QuicConnectionProtocol) -> None:
        self.protocol = protocol
        self._transport: asyncio.DatagramTransport | None = None

    async def rebind(self) -> str:
        """Go on from another port; give it as the log writes it."""
        loop, before = asyncio.get_running_loop(), self._transport
        # The protocol sends through the transport that it was told of last.
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self.protocol, local_addr=("127.0.0.1", 0)
        )
        if before is not None:
            before.close()
        return "{}:{}".format(*self._transport.get_extra_info("sockname"))

    async def close(self) -> None:
        """Say goodbye."""
        self.protocol.close()
        await self.protocol.wait_closed()
        if self._transport is not None:
            self._transport.close()

    async def echo(self, seed: int) -> None:
        """Send a stream, and read it back meanwhile."""
        reader, writer = await self.protocol.create_stream()
        sent, received = hashlib.sha256(), hashlib.sha256()
        dice = random.Random(seed)
        # At once: until something is written, aioquic gives the next stream the same number.
        for _ in range(BYTES // PIECE):
            piece = dice.randbytes(PIECE)
            sent.update(piece)
            writer.write(piece)
        writer.write_eof()
        count = 0
        while piece := await reader.read(PIECE):
            received.update(piece)
            count += len(piece)
        assert count == BYTES
        assert received.digest() == sent.digest()


@asynccontextmanager
async def connected(identity: Identity, address: Address) -> AsyncIterator[Client]:
    """Connect to a server."""
    client = Client(QuicConnectionProtocol(QuicConnection(configuration=identity.client())))
    await client.rebind()
    try:
        client.protocol.connect(address)
        await client.protocol.wait_connected()
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def serving(identity: Identity, address: Address) -> AsyncIterator[None]:
    """Run a server that sends back what it receives."""
    tasks = set[asyncio.Task[None]]()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(echo(reader, writer)))

    server = await serve(*address, configuration=identity.server(), stream_handler=start)
    try:
        yield
        await asyncio.gather(*tasks)
    finally:
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo a stream to its end."""
    while piece := await reader.read(PIECE):
        writer.write(piece)
    writer.write_eof()


@pytest.fixture(scope="module")
def identity() -> Identity:
    """Give a server's identity."""
    return Identity.make()


async def transfer(identity: Identity, server: Address, gateway: Address) -> None:
    """Send and receive several streams at once."""
    async with asyncio.timeout(LONGEST), serving(identity, server), connected(identity, gateway) as client:
        await asyncio.gather(*map(client.echo, range(STREAMS)))


async def roam(identity: Identity, server: Address, gateway: Address) -> list[str]:
    """Send and receive a stream from each of three ports, in one connection; give the ports."""
    async with asyncio.timeout(LONGEST), serving(identity, server), connected(identity, gateway) as client:
        ports = []
        for seed in range(3):
            ports.append(await client.rebind())
            await client.echo(seed)
        return ports


def test_streams_both_ways(identity: Identity) -> None:
    """Four streams go and come as they were, side by side, in one flow; the record has their bytes."""
    server, listen = free_ports(), free_ports()
    text = rule("quic", "{}:{}".format(*server), "{}:{}".format(*listen), protocol="udp")
    with Gateway.start(ruleset(text)) as gateway:
        asyncio.run(transfer(identity, server, listen))
        (record,) = flows(gateway, "quic", may_drop=True)
    for way in ("up", "down"):
        assert record[way] > STREAMS * BYTES
        assert record[f"{way}_datagrams"] > STREAMS * BYTES / 1500


def test_client_that_changes_its_port(identity: Identity) -> None:
    """A connection goes on when its client's port changes: a flow of its own each, to the same endpoint."""
    server, listen = free_ports(), free_ports()
    text = rule("quic", "{}:{}".format(*server), "{}:{}".format(*listen), protocol="udp")
    with Gateway.start(ruleset(text)) as gateway:
        ports = asyncio.run(roam(identity, server, listen))
        those = flows(gateway, "quic", may_drop=True)
    by_client = {each["client"]: each for each in those}
    assert set(ports) <= set(by_client)
    assert all(by_client[port][way] > BYTES for port in ports for way in ("up", "down"))
    assert total(those, "up") > 3 * BYTES
