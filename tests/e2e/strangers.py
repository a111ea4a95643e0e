"""Who comes to a tunnel's port with bad intent, or with somebody else's papers: raw sockets, step by step."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from appliance.observe.log import wall_clock
from appliance.tunnel.authority import VALID, Authority, open_authority
from appliance.tunnel.credentials import ALPN
from appliance.tunnel.link import proof_of
from appliance.tunnel.state import State
from appliance.wire.messages import VERSION, Attach, Hello, framed
from tests.e2e.gateway import PATIENCE
from tests.tls import Leaf

DAY = 86400.0
SERVER_NAME = "w0.gateway.portway"


def authority_of(state: Path) -> Authority:
    """Give the CA of a gateway's state directory."""
    return open_authority(State(str(state)))


def papers(
    authority: Authority, name: str, *, trusted: str | None = None, ago: float = 0.0, valid: float = VALID
) -> ssl.SSLContext:
    """Give the context of an agent, enrolled `ago` seconds ago; `trusted` is the CA it trusts instead."""
    issued = authority.enrol(name, wall_clock() - ago, valid)
    context = nobody(authority.certificate if trusted is None else trusted)
    present(context, issued.certificate, issued.key)
    return context


def present(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Have a context show a certificate."""
    Leaf(f"{certificate}\n{key}".encode()).load_into(context)


def nobody(ca: str) -> ssl.SSLContext:
    """Give a context without a certificate that trusts a CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=ca)
    context.set_alpn_protocols([ALPN])
    return context


def client_hello(server_name: str = SERVER_NAME) -> bytes:
    """Give the first flight of a handshake."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    begun = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    try:
        begun.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError


class Guest:
    """One connection to a tunnel's port."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._welcome: dict[str, Any] = {}

    @classmethod
    @contextmanager
    def plain(cls, port: int, first: bytes = b"") -> Iterator["Guest"]:
        """Come without TLS, and say something."""
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(first)
            yield cls(connection)

    @classmethod
    @contextmanager
    def secured(
        cls,
        port: int,
        context: ssl.SSLContext,
        server_name: str = SERVER_NAME,
        session: ssl.SSLSession | None = None,
    ) -> Iterator["Guest"]:
        """Come with TLS."""
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as connection,
            context.wrap_socket(connection, server_hostname=server_name, session=session) as secured,
        ):
            yield cls(secured)

    def say(self, message: msgspec.Struct | bytes) -> None:
        """Send a message; bytes are a body."""
        if isinstance(message, bytes):
            self.socket.sendall(len(message).to_bytes(2, "big") + message)
        else:
            self.socket.sendall(framed(message))

    def hear(self) -> dict[str, Any]:
        """Give the next message; an empty one for the end, be it in order or not."""
        try:
            header = self._exactly(2)
            body = self._exactly(int.from_bytes(header, "big")) if header else b""
        except OSError:
            return {}
        return json.loads(body) if body else {}

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count and (more := self.socket.recv(count - len(data))):
            data += more
        return data if len(data) == count else b""

    def hear_until(self, kind: str) -> dict[str, Any]:
        """Give the next message of a kind, or the end."""
        while (heard := self.hear()) and heard["type"] != kind:
            continue
        return heard

    def is_out(self) -> bool:
        """Wait for the end; say whether nothing comes before, but for what a control channel says anyway."""
        while heard := self.hear():
            if heard["type"] not in {"ping", "pong", "want", "refused"}:
                return False
        return True

    def hello(self, **changes: Any) -> dict[str, Any]:
        """Say Hello, and give the answer."""
        self.say(hello(**changes))
        self._welcome = self.hear()
        return self._welcome

    def attach(self, number: int = 1, **changes: Any) -> Attach:
        """Make the Attach of a data channel of this control channel."""
        return attach(self._welcome["link"], self._welcome["secret"], number, **changes)


def hello(**changes: Any) -> Hello:
    """Make a Hello."""
    told = {
        "version": VERSION,
        "instance": "0" * 32,
        "generation": 1,
        "worker": 0,
        "workers": 1,
        "software": "stranger",
    }
    return Hello(**{**told, **changes})


def attach(of: str, secret: str, number: int, **changes: Any) -> Attach:
    """Make an Attach for a link."""
    told = {"version": VERSION, "link": of, "number": number, "proof": proof_of(secret, of, number)}
    return Attach(**{**told, **changes})
