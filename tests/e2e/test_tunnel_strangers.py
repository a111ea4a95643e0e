"""Strangers on the tunnel port: each is refused for its own reason, and costs the agents nothing."""

import random
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from appliance.observe.log import wall_clock
from appliance.tunnel.pool import FIRST_READY, MOST_SPARE
from appliance.wire.messages import Opened, Ping, framed
from tests.e2e.gateway import Gateway, Record, rule, wait_for
from tests.e2e.peers import Endpoint, connect, read_exactly, read_to_end, read_to_reset
from tests.e2e.strangers import (
    DAY,
    SERVER_NAME,
    Guest,
    attach,
    authority_of,
    client_hello,
    hello,
    nobody,
    papers,
    present,
)
from tests.e2e.tunnel import LISTENERS, tunnel, tunnel_ruleset

if TYPE_CHECKING:
    from appliance.tunnel.authority import Authority

NAMES = tuple(f"agent{number}" for number in range(40))
"""Refusals of a kind and agent are one record for a while, so each that is looked for has its own agent."""


class Port:
    """A gateway's tunnel port, and its CA."""

    def __init__(self, gateway: Gateway, state: Path) -> None:
        self.gateway = gateway
        self.authority: Authority = authority_of(state)
        self.number = gateway.port(LISTENERS)
        self._names = iter(NAMES)

    def name(self) -> str:
        """Give an agent that has not been used."""
        return next(self._names)

    def refused(self, refusal: str, agent: str = "") -> Record:
        """Wait for the record of a refusal."""

        def found() -> list[Record]:
            return [
                record
                for record in self.gateway.events("tunnel_refused")
                if record["refusal"] == refusal and record.get("agent", "") == agent
            ]

        wait_for(f"{refusal} {agent} in {self.gateway.events('tunnel_refused')}", found)
        return found()[0]

    @contextmanager
    def agent(self, name: str) -> Iterator[Guest]:
        """Come with good papers."""
        with Guest.secured(self.number, papers(self.authority, name)) as guest:
            yield guest


@contextmanager
def a_port(folder: Path, encryption: str = "tls", agents: tuple[str, ...] = NAMES) -> Iterator[Port]:
    """Start a gateway that nobody serves yet."""
    rules = rule("web", 9, via=agents[0])
    text = tunnel_ruleset(
        rules, state=folder / "state", agents=agents, encryption=encryption, heartbeat="10s"
    )
    with Gateway.start(text) as gateway:
        yield Port(gateway, folder / "state")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    """Give a gateway for those who show a certificate of it."""
    with a_port(tmp_path_factory.mktemp("strangers")) as there:
        yield there


@pytest.fixture(scope="module")
def plain_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    """Give a gateway whose data channels are not encrypted."""
    with a_port(tmp_path_factory.mktemp("plain"), "none") as there:
        yield there


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Port]:
    """Give a gateway for one who shows none."""
    with a_port(tmp_path, agents=("office",)) as there:
        yield there


# -- before and in the handshake --------------------------------------------------------------------------

GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
    "zeros": b"\0" * 4096,
    "random": b"\x47" + random.Random(5).randbytes(4096),
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "record": b"\x16\x03\x01\xff\xff" + b"\x01" * 100,
    "hello": client_hello()[:60] + b"\xff" * 2000,
    "half a prelude": b"PWx1",
}


def test_garbage(tmp_path: Path) -> None:
    """What is no TLS is `garbage`, at its first wrong byte; none of it is answered."""
    with a_port(tmp_path) as port:
        for garbage in GARBAGE.values():
            with Guest.plain(port.number, garbage) as guest, suppress(ConnectionResetError):
                assert read_to_end(guest.socket) == b""
        assert port.refused("garbage")["error"]
        with Guest.plain(port.number) as guest, suppress(OSError):
            for byte in GARBAGE["http"]:
                guest.socket.sendall(bytes((byte,)))
                time.sleep(0.001)
            assert read_to_end(guest.socket) == b""
        assert {record["refusal"] for record in port.gateway.events("tunnel_refused")} == {"garbage"}


def test_those_who_say_nothing(fresh: Port) -> None:
    """Who does not say who it is has five seconds: silent, byte by byte, in the handshake, or after it."""
    flight = client_hello()
    with ExitStack() as stack:
        begun = time.monotonic()
        silent = stack.enter_context(Guest.plain(fresh.number))
        half = stack.enter_context(Guest.plain(fresh.number, flight[:50]))
        waiting = stack.enter_context(Guest.plain(fresh.number, flight))
        prelude = stack.enter_context(Guest.plain(fresh.number, b"PWT"))
        known = stack.enter_context(fresh.agent("office"))
        slow = stack.enter_context(Guest.plain(fresh.number))
        with suppress(OSError):
            for byte in flight[:40]:
                slow.socket.sendall(bytes((byte,)))
                time.sleep(0.01)
        for guest in (silent, half, prelude, slow):
            assert read_to_reset(guest.socket) == b""
        read_to_end(waiting.socket)  # the gateway's flight
        assert known.is_out()
        assert 4 < time.monotonic() - begun < 15
    assert fresh.refused("timeout")
    assert fresh.refused("timeout", "office")


def handshake_fails(port: Port, context: ssl.SSLContext, server_name: str = SERVER_NAME) -> None:
    """Come, and be turned away in the handshake or right after it: TLS 1.3 tells a client no earlier."""
    with suppress(OSError), Guest.secured(port.number, context, server_name) as guest:
        assert guest.socket.recv(1) == b""


def other_ca(port: Port, tmp_path: Path) -> ssl.SSLContext:
    return papers(authority_of(tmp_path / "other"), "office", trusted=port.authority.certificate)


def of_its_own(port: Port, tmp_path: Path) -> ssl.SSLContext:
    """The CA's own kind of certificate: self-signed."""
    authority = authority_of(tmp_path / "other")
    context = nobody(port.authority.certificate)
    key = (tmp_path / "other" / "ca.key").read_text()
    present(context, authority.certificate, key)
    return context


def expired(port: Port, _: Path) -> ssl.SSLContext:
    return papers(port.authority, "office", ago=3 * DAY, valid=DAY)


def not_yet(port: Port, _: Path) -> ssl.SSLContext:
    return papers(port.authority, "office", ago=-3 * DAY)


def gateways_own(port: Port, _: Path) -> ssl.SSLContext:
    context = nobody(port.authority.certificate)
    present(context, *port.authority.serve())
    return context


def without(port: Port, _: Path) -> ssl.SSLContext:
    return nobody(port.authority.certificate)


def old_tls(port: Port, _: Path) -> ssl.SSLContext:
    context = papers(port.authority, "office")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        (without, "no_certificate"),
        (other_ca, "unknown_ca"),
        (of_its_own, "unknown_ca"),
        (expired, "expired"),
        (not_yet, "expired"),
        (gateways_own, "handshake_failed"),
        (old_tls, "handshake_failed"),
    ],
)
def test_wrong_papers(fresh: Port, tmp_path: Path, make: Any, refusal: str) -> None:
    """Each certificate that is not one of this CA for an agent, and good now, is refused for what it is."""
    handshake_fails(fresh, make(fresh, tmp_path))
    assert fresh.refused(refusal)["error"]
    assert len(fresh.gateway.events("tunnel_refused")) == 1


def test_an_agent_as_a_gateway(tmp_path: Path) -> None:
    """With an agent's certificate nobody can play the gateway."""
    authority = authority_of(tmp_path / "state")
    issued = authority.enrol("office", wall_clock())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    present(server, issued.certificate, issued.key)
    client = nobody(authority.certificate)
    client.check_hostname = False  # its name is wrong, too
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialling, answering = client.wrap_bio(here, there), server.wrap_bio(there, here, server_side=True)
    with suppress(ssl.SSLWantReadError):
        dialling.do_handshake()
    with suppress(ssl.SSLWantReadError):
        answering.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        dialling.do_handshake()


# -- with good papers -------------------------------------------------------------------------------------


def test_revoked_before(port: Port) -> None:
    """A certificate that was taken back is refused at once."""
    name = port.name()
    context = papers(port.authority, name)
    port.authority.state.revoke(name=name)
    with Guest.secured(port.number, context) as guest:
        assert guest.hello()["cause"] == "revoked"
    assert port.refused("revoked", name)


def test_revoked_between_certificate_and_hello(port: Port) -> None:
    """Nor does one get in that was taken back since it was shown."""
    name = port.name()
    with port.agent(name) as guest:
        wait_for("the handshake's end", lambda: guest.socket.version() == "TLSv1.3")  # type: ignore[attr-defined]
        time.sleep(0.2)  # for the gateway to be through with it; if it is not, it is refused there
        port.authority.state.revoke(name=name)
        assert guest.hello()["cause"] == "revoked"
    assert port.refused("revoked", name)


def test_not_in_the_ruleset(port: Port) -> None:
    """A name that the CA knows, and the ruleset does not."""
    with Guest.secured(port.number, papers(port.authority, "elsewhere")) as guest:
        assert guest.hello()["cause"] == "unknown_agent"
    assert port.refused("unknown_agent", "elsewhere")


@pytest.mark.parametrize("protocols", [["h2"], []])
def test_another_protocol(port: Port, protocols: list[str]) -> None:
    """Who does not say that it speaks this protocol is told which one is spoken."""
    name = port.name()
    context = papers(port.authority, name)
    context.set_alpn_protocols(protocols)
    with Guest.secured(port.number, context) as guest:
        assert "portway/1" in guest.hello()["message"]
    assert port.refused("version", name)


def test_another_version(port: Port) -> None:
    """The version of the messages is looked at, too."""
    name = port.name()
    with port.agent(name) as guest:
        assert guest.hello(version=2)["cause"] == "version"
    assert port.refused("version", name)


def test_expired_and_resumed(tmp_path: Path) -> None:
    """A session's ticket is no longer good for whose certificate has expired since."""
    with a_port(tmp_path, agents=("office",)) as port:
        context = papers(port.authority, "office", valid=2.0)
        with Guest.secured(port.number, context) as guest:
            assert guest.hello()["type"] == "welcome"
            session = guest.socket.session  # type: ignore[attr-defined]
        time.sleep(2.1)
        with suppress(OSError), Guest.secured(port.number, context, session=session) as guest:
            assert guest.hello().get("type") != "welcome"
        assert [each["refusal"] for each in port.gateway.await_event("tunnel_refused")] == ["expired"]


# -- messages ---------------------------------------------------------------------------------------------


def test_attach(port: Port) -> None:
    """A data channel shows whose it is, once, and with its own agent's certificate."""
    one, other = port.name(), port.name()
    with port.agent(one) as guest:
        guest.hello()
        good = guest.attach(1)
        with port.agent(one) as channel:
            channel.say(good)
            for wrong in (good, guest.attach(2, proof="0" * 64), guest.attach(3, link="0" * 16)):
                with port.agent(one) as again:
                    again.say(wrong)
                    assert again.is_out()
            with port.agent(other) as thief:
                thief.say(guest.attach(4))
                assert thief.is_out()
            guest.say(Ping(1))
            assert guest.hear_until("pong")
            channel.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):  # it is still there
                channel.socket.recv(1)
    assert port.refused("unknown_link", one)
    assert port.refused("protocol", other)


def test_a_channel_that_talks(port: Port) -> None:
    """A data channel has nothing to say before it is opened, be it in the same breath."""
    name = port.name()
    with port.agent(name) as guest:
        guest.hello()
        with port.agent(name) as channel:
            channel.say(guest.attach(1))
            time.sleep(0.05)
            with suppress(OSError):
                channel.socket.sendall(b"hello")
            assert channel.is_out()
        with port.agent(name) as channel:
            channel.socket.sendall(framed(guest.attach(2)) + b"hello")
            assert channel.is_out()
        guest.say(Ping(1))
        assert guest.hear_until("pong")
    assert port.refused("protocol", name)


def test_too_many_channels(port: Port) -> None:
    """An agent keeps as many ready as it is asked to, and a few more; further ones are closed."""
    name = port.name()
    context = papers(port.authority, name)
    with Guest.secured(port.number, context) as guest, ExitStack() as stack:
        guest.hello()
        numbers = range(FIRST_READY + MOST_SPARE + 1)
        channels = [stack.enter_context(Guest.secured(port.number, context)) for _ in numbers]
        for number, channel in zip(numbers, channels, strict=True):
            channel.say(guest.attach(number))
        assert channels[-1].is_out()
    assert port.refused("full", name)


def test_a_stale_hello(port: Port) -> None:
    """A lower generation of an agent's worker never replaces a higher one, which does replace it."""
    name = port.name()
    with port.agent(name) as old, port.agent(name) as new, port.agent(name) as late:
        assert old.hello(generation=3)["type"] == "welcome"
        assert new.hello(generation=4)["type"] == "welcome"
        assert old.hear_until("bye")["reason"] == "replaced"
        assert late.hello(generation=4)["cause"] == "stale"
        new.say(Ping(1))
        assert new.hear_until("pong")
    assert port.refused("stale", name)


FIRST_WORDS = {
    "too long": b"\xff\xff" + b" " * 100,
    "no length": b"\0\0",
    "a Ping": b'\0\x1a{"type":"ping","number":1}',
    "no JSON": b"\0\x04abcd",
    "no text": b"\0\x04\xff\xfe\xff\xfe",
}


@pytest.mark.parametrize("words", FIRST_WORDS.values(), ids=FIRST_WORDS)
def test_first_words(port: Port, words: bytes) -> None:
    """What is no Hello and no Attach is not heard out."""
    name = port.name()
    with port.agent(name) as guest:
        guest.socket.sendall(words)
        assert guest.is_out()
    assert port.refused("protocol", name)["error"]


def next_words(link: str) -> dict[str, Any]:
    """What an agent may not say on its control channel."""
    return {
        "another Hello": hello(generation=2),
        "an Attach": attach(link, "0" * 64, 1),
        "a Want": b'{"type":"want","ready":9}',
        "an Open": b'{"type":"open"}',
        "a Welcome": b'{"type":"welcome"}',
        "no JSON": b"{",
        "8193 bytes": b" " * 8193,
        "a huge number": b'{"type":"ping","number":1e400}',
    }


@pytest.mark.parametrize("which", next_words(""))
def test_next_words(port: Port, which: str) -> None:
    """A link ends with the first message that does not belong there, and nothing else does."""
    name = port.name()
    with port.agent(name) as guest:
        link = guest.hello()["link"]
        guest.say(next_words(link)[which])
        assert guest.is_out()

    def lost() -> list[Record]:
        return [record for record in port.gateway.events("agent_lost") if record["agent"] == name]

    wait_for("the end of the link", lost)
    assert lost()[0]["error"].startswith("protocol: ")


def test_a_flood_of_messages(port: Port) -> None:
    """Nobody else waits for an agent that never stops talking."""
    chatty, quiet = port.name(), port.name()
    with port.agent(chatty) as guest, port.agent(quiet) as other:
        guest.hello()
        other.hello()
        pings = b"".join(framed(Ping(number)) for number in range(2000))
        guest.socket.settimeout(0.2)
        longest = 0.0
        with suppress(OSError):  # it is cut off in the end: it does not read the answers
            for number in range(20):
                guest.socket.sendall(pings)
                begun = time.monotonic()
                other.say(Ping(number))
                assert other.hear_until("pong")["number"] == number
                longest = max(longest, time.monotonic() - begun)
        assert longest < 2


# -- without encryption -----------------------------------------------------------------------------------


def test_plain_where_it_is_to_be_encrypted(port: Port) -> None:
    """A data channel without TLS is none, where TLS is asked for, whatever it can prove."""
    with port.agent(port.name()) as guest:
        guest.hello()
        with Guest.plain(port.number, b"PWT1\0") as channel:
            channel.say(guest.attach(1))
            assert channel.is_out()
    assert port.refused("protocol")


def test_plain(plain_port: Port) -> None:
    """Where it is not, each number is good once, and a control channel is never plain."""
    name = plain_port.name()
    with plain_port.agent(name) as guest:
        guest.hello()
        with Guest.plain(plain_port.number, b"PWT1\0") as channel:
            channel.say(guest.attach(1))
            with Guest.plain(plain_port.number, b"PWT1\0") as again:
                again.say(guest.attach(1))
                assert again.is_out()
            with Guest.plain(plain_port.number, b"PWT1\0") as again:
                again.say(hello())
                assert again.is_out()
            channel.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                channel.socket.recv(1)
    assert plain_port.refused("unknown_link")
    assert plain_port.refused("protocol")


# -- taken back -------------------------------------------------------------------------------------------


def test_revoked_with_a_session() -> None:
    """An agent that is taken back loses its link and its sessions within seconds."""
    with Endpoint() as endpoint, tunnel(rule("web", endpoint.port, via="office")) as world:
        with connect(world.gateway.address("web")) as client, endpoint.accept() as server:
            client.sendall(b"ping")
            assert read_exactly(server, 4) == b"ping"
            authority_of(world.folder / "state").state.revoke(name="office")
            begun = time.monotonic()
            assert read_to_reset(client) == b""
            assert time.monotonic() - begun < 3
        assert world.gateway.session()["cause"] == "endpoint_reset"
        assert world.gateway.await_event("agent_lost")[0]["error"] == "revoked"


def test_revoked_with_a_session_of_a_link_that_has_ended(fresh: Port) -> None:
    """Nor does it keep those whose control channel it has let go."""
    context = papers(fresh.authority, "office")
    with Guest.secured(fresh.number, context) as guest, Guest.secured(fresh.number, context) as channel:
        guest.hello()
        channel.say(guest.attach())
        with connect(fresh.gateway.address("web")) as client:
            assert channel.hear()["type"] == "open"
            channel.say(Opened("127.0.0.1:9"))
            client.sendall(b"ping")
            assert channel.socket.recv(8) == b"\0\0\0\4ping"
            guest.socket.close()
            fresh.gateway.await_event("agent_lost")
            fresh.authority.state.revoke(name="office")
            assert read_to_reset(client) == b""
    assert fresh.gateway.session()["cause"] == "endpoint_reset"
