"""Resumed handshakes at a gateway's tunnel port: as good as whole ones, no more and no less."""

import socket
import ssl
import subprocess
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from appliance.problem import Problem
from appliance.tunnel.credentials import agent_context
from appliance.tunnel.join_file import load_join
from appliance.wire.messages import Attach, framed
from appliance.wire.server_name import worker_name
from tests.e2e.gateway import rule
from tests.e2e.tunnel import Tunnel, tunnel
from tests.program import program

PATIENCE = 20.0


class Answer(NamedTuple):
    """What became of one connection."""

    session: ssl.SSLSession | None
    is_resumed: bool
    said: bytes


def context_of(join: Path) -> ssl.SSLContext:
    """Make an agent's."""
    found = load_join(str(join))
    assert not isinstance(found, Problem)
    return agent_context(found)


def knock(world: Tunnel, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Answer:
    """Shake hands, claim a link that there is not, and read what the gateway says to the end."""
    claim = framed(Attach(version=1, link="0" * 16, number=1, proof="0" * 64))
    plain = socket.create_connection(("127.0.0.1", world.port), PATIENCE)
    with closing(
        context.wrap_socket(plain, server_hostname=worker_name(0), session=session, suppress_ragged_eofs=True)
    ) as tls:
        tls.sendall(claim)
        said = b""
        try:
            while data := tls.recv(4096):
                said += data
        except OSError:
            pass
        return Answer(tls.session, bool(tls.session_reused), said)


def test_a_resumed_handshake_is_taken_and_a_revoked_one_is_not() -> None:
    """Who resumes is known by its certificate, gets no other ticket, and is refused once revoked."""
    with tunnel(rule("way", 9, via="office"), agents=0) as world:
        context = context_of(world.join)
        first = knock(world, context)
        assert first.session is not None
        assert first.session.has_ticket
        assert not first.is_resumed
        second = knock(world, context, first.session)
        assert second.is_resumed
        assert second.session == first.session
        refused = world.gateway.await_event("tunnel_refused")
        assert {(each["agent"], each["refusal"]) for each in refused} == {("office", "unknown_link")}
        words = ("revoke", str(world.gateway.folder / "rules.toml"), "office")
        subprocess.run([*program(), *words], check=True, capture_output=True)
        assert b"revoked" in knock(world, context, first.session).said
