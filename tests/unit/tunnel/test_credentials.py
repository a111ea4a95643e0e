"""Who gets through a tunnel's handshake, and what is said of those who do not: real handshakes throughout."""

import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from appliance.outcome import Refusal
from appliance.tunnel.authority import Authority, Issued, key_pem, new_key, open_authority, request_for
from appliance.tunnel.credentials import (
    ALPN,
    agent_context,
    gateway_context,
    peer_of,
    refusal_of,
    server_name,
)
from appliance.tunnel.join import Join
from appliance.tunnel.state import State

EARLY, LATE = 1e9, 4e9
"""2001 and 2096: before and after any time at which these tests run."""

NAME = server_name("a0of1")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return open_authority(State(f"{tmp_path}/state"))


def join(authority: Authority, issued: Issued) -> Join:
    return Join(
        name=issued.record.name,
        gateways=("127.0.0.1:7443",),
        ca=authority.certificate,
        certificate=issued.certificate,
        key=issued.key,
        expires=issued.record.expires,
    )


def enrol(authority: Authority, issued: float = EARLY, expires: float = LATE) -> Join:
    return join(authority, authority.enrol("office", issued, expires - issued))


class Gateway:
    """One end of a socket pair, with what a gateway makes of the other."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.failed: OSError | None = None
        self.peer: tuple[str, str] | None = None
        self.is_resumed = False
        self.alpn: str | None = None

    def serve(self, wire: socket.socket) -> None:
        try:
            with self.context.wrap_socket(wire, server_side=True) as tls:
                self.peer, self.alpn = peer_of(tls), tls.selected_alpn_protocol()
                self.is_resumed = bool(tls.session_reused)
                tls.sendall(b"!")
        except OSError as error:
            self.failed = error
        finally:
            wire.close()

    def meet(self, stranger: Callable[[socket.socket], object]) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        theirs.settimeout(10)
        thread = threading.Thread(target=self.serve, args=(ours,))
        thread.start()
        try:
            stranger(theirs)
        finally:
            theirs.close()
            thread.join()

    def refusal(self, stranger: Callable[[socket.socket], object]) -> Refusal:
        self.meet(stranger)
        assert self.failed, "the handshake went well"
        return refusal_of(self.failed)


def agent(
    context: ssl.SSLContext, name: str = NAME, session: ssl.SSLSession | None = None
) -> Callable[[socket.socket], ssl.SSLSession | OSError | None]:
    """Be an agent: it reads one byte after its handshake. Gives its ticket, or what went wrong."""

    def dial(wire: socket.socket) -> ssl.SSLSession | OSError | None:
        try:
            with context.wrap_socket(wire, server_hostname=name, session=session) as tls:
                assert tls.recv(1) in {b"!", b""}
                return tls.session
        except OSError as error:
            return error

    return dial


def bare(ca: str, certificate: str = "", key: str = "") -> ssl.SSLContext:
    """Be no agent, but know the gateway's CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca)
    if certificate:
        fd = os.memfd_create("test")
        os.write(fd, f"{certificate}{key}".encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
        os.close(fd)
    return context


def test_an_enrolled_agent_gets_in(authority: Authority) -> None:
    """The gateway learns its name and serial; both speak the protocol by name, in TLS 1.3."""
    issued = authority.enrol("office", EARLY, LATE - EARLY)
    gateway = Gateway(gateway_context(authority))
    gateway.meet(agent(agent_context(join(authority, issued))))
    assert (gateway.failed, gateway.peer) == (None, ("office", issued.record.serial))
    assert gateway.alpn == ALPN


def test_a_renewed_certificate_gets_in(authority: Authority) -> None:
    """What was signed for an agent's own new key is as good, under the agent's name."""
    old, key = enrol(authority), new_key()
    renewed = authority.renew("office", "0" * 32, request_for(key), EARLY, LATE - EARLY)
    gateway = Gateway(gateway_context(authority))
    new = replace(old, certificate=renewed.certificate, key=key_pem(key))
    gateway.meet(agent(agent_context(new)))
    assert (gateway.failed, gateway.peer) == (None, ("office", renewed.record.serial))


def test_no_key_is_left_in_a_file(authority: Authority, tmp_path: Path) -> None:
    """Making the contexts leaves no descriptor open, and nothing on the disk but the CA and the record."""
    joined = enrol(authority)
    before = sorted(tmp_path.rglob("*")), sorted(Path("/proc/self/fd").iterdir())
    gateway_context(authority)
    agent_context(joined)
    assert (sorted(tmp_path.rglob("*")), sorted(Path("/proc/self/fd").iterdir())) == before


def test_no_certificate(authority: Authority) -> None:
    """Whoever shows none is told so, and the gateway says so."""
    assert Gateway(gateway_context(authority)).refusal(agent(bare(authority.certificate))) is (
        Refusal.NO_CERTIFICATE
    )


def test_an_agent_of_another_ca_does_not_trust_this_gateway(authority: Authority, tmp_path: Path) -> None:
    """The agent ends the handshake, and both sides know why."""
    other = enrol(open_authority(State(f"{tmp_path}/other")))
    found: list[object] = []
    gateway = Gateway(gateway_context(authority))
    refusal = gateway.refusal(lambda wire: found.append(agent(agent_context(other))(wire)))
    assert refusal is Refusal.UNKNOWN_CA
    (seen,) = found
    assert isinstance(seen, OSError)
    assert refusal_of(seen) is Refusal.UNKNOWN_CA


def test_a_certificate_of_another_ca(authority: Authority, tmp_path: Path) -> None:
    """Somebody who takes any gateway, with a certificate of some other CA, is refused."""
    other = enrol(open_authority(State(f"{tmp_path}/other")))
    stranger = bare(authority.certificate, other.certificate, other.key)
    assert Gateway(gateway_context(authority)).refusal(agent(stranger)) is Refusal.UNKNOWN_CA


def test_a_forged_certificate(authority: Authority) -> None:
    """A certificate in this CA's name that another key has signed is refused."""
    forger = Authority(authority.state, new_key(), authority._ca, authority.certificate)
    forged = enrol(forger)
    assert Gateway(gateway_context(authority)).refusal(agent(agent_context(forged))) is Refusal.UNKNOWN_CA


@pytest.mark.parametrize(("issued", "expires"), [(EARLY, EARLY + 1), (LATE, LATE + 1)])
def test_out_of_date(authority: Authority, issued: float, expires: float) -> None:
    """A certificate that is no longer good, or not yet, is refused as expired, and the agent is told."""
    late = enrol(authority, issued, expires)
    found: list[object] = []
    gateway = Gateway(gateway_context(authority))
    refusal = gateway.refusal(lambda wire: found.append(agent(agent_context(late))(wire)))
    assert refusal is Refusal.EXPIRED
    (seen,) = found
    assert isinstance(seen, OSError)


def test_an_agent_is_no_gateway(authority: Authority) -> None:
    """An agent's certificate does not serve: another agent turns away from it."""
    joined = enrol(authority)
    impostor = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    fd = os.memfd_create("test")
    os.write(fd, f"{joined.certificate}{joined.key}".encode())
    impostor.load_cert_chain(f"/proc/self/fd/{fd}")
    os.close(fd)
    found: list[object] = []
    Gateway(impostor).meet(lambda wire: found.append(agent(agent_context(joined))(wire)))
    assert isinstance(found[0], ssl.SSLCertVerificationError)


def test_a_gateway_is_no_agent(authority: Authority) -> None:
    """The gateway's own certificate does not let anybody in."""
    certificate, key = authority.serve()
    stranger = agent(bare(authority.certificate, certificate, key))
    assert Gateway(gateway_context(authority)).refusal(stranger) is Refusal.HANDSHAKE_FAILED


def test_another_name(authority: Authority) -> None:
    """An agent takes a gateway for itself only under the names of a gateway."""
    found: list[object] = []
    dial = agent(agent_context(enrol(authority)), "gateway.example")
    Gateway(gateway_context(authority)).meet(lambda wire: found.append(dial(wire)))
    assert isinstance(found[0], ssl.SSLCertVerificationError)


def test_tls_1_2(authority: Authority) -> None:
    """An older TLS is a handshake that fails, not garbage."""
    joined = enrol(authority)
    old = bare(authority.certificate, joined.certificate, joined.key)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert Gateway(gateway_context(authority)).refusal(agent(old)) is Refusal.HANDSHAKE_FAILED


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
        b"CONNECT gateway:7443 HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00" * 64,
        b"\xff" * 64,
        b"\x05\x01\x00" + b"\x00" * 20,
        b"\x16\x03\x01\xff\xff" + b"\x00" * 64,
        b"\x16\x03\x01\x00\x40" + b"\xff" * 64,
        b"\x17\x03\x03\x00\x10" + b"\x00" * 16,
        b"\x80\x2e\x01\x00\x02" + b"\x00" * 60,
    ],
    ids=["http", "connect", "ssh", "zeros", "ones", "socks", "long", "no message", "data", "sslv2"],
)
def test_garbage(authority: Authority, sent: bytes) -> None:
    """What is no TLS is refused as garbage."""

    def talk(wire: socket.socket) -> None:
        wire.sendall(sent)
        wire.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            wire.recv(100)

    assert Gateway(gateway_context(authority)).refusal(talk) is Refusal.GARBAGE


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x00", b"\x16\x03\x01\x01\x00\x01"])
def test_an_end_within_the_handshake(authority: Authority, sent: bytes) -> None:
    """Who goes away has failed in the handshake."""
    assert Gateway(gateway_context(authority)).refusal(lambda wire: wire.sendall(sent)) is (
        Refusal.HANDSHAKE_FAILED
    )


def test_something_else_where_a_gateway_should_be(authority: Authority) -> None:
    """An agent that reaches a web server tells garbage from a gateway that refuses it."""
    context = agent_context(enrol(authority))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        found = agent(context)(theirs)
    assert isinstance(found, OSError)
    assert refusal_of(found) is Refusal.GARBAGE


def test_a_ticket_is_good_at_every_worker(authority: Authority) -> None:
    """A process forked from the one with the context knows an agent again that had its ticket elsewhere."""
    context, dialler = gateway_context(authority), agent_context(enrol(authority))
    tickets: list[ssl.SSLSession | OSError | None] = []
    first = Gateway(context)
    first.meet(lambda wire: tickets.append(agent(dialler)(wire)))
    (ticket,) = tickets
    assert isinstance(ticket, ssl.SSLSession)
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    if (child := os.fork()) == 0:
        status = 1
        try:
            second = Gateway(context)
            second.serve(ours)
            status = 0 if second.is_resumed and second.peer == first.peer else 2
        finally:
            os._exit(status)
    ours.close()
    with theirs:
        assert isinstance(agent(dialler, session=ticket)(theirs), ssl.SSLSession)
    assert os.waitpid(child, 0)[1] == 0


def test_time_is_up() -> None:
    """A time-out of the connection is told as one."""
    assert refusal_of(TimeoutError()) is Refusal.TIMEOUT
    assert refusal_of(ConnectionResetError()) is Refusal.HANDSHAKE_FAILED
