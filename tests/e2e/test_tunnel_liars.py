"""A compromised gateway or agent: what it can do to the other end is bounded, and no fault is in any log.

Both ends are fuzzed over real sockets, with good certificates: messages cut, repeated, mutated and misplaced,
by a seeded random.
"""

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.tunnel.pool import MOST_READY
from appliance.wire.messages import Bye, Failed, Opened, Ping, Pong, Refused, Renew, Renewed, Want
from tests.e2e.damage import damaged
from tests.e2e.gateway import Gateway, resident_bytes, rule, wait_for
from tests.e2e.liar import listen_to, lying, opening, welcome
from tests.e2e.peers import Endpoint, connect, read_exactly, read_to_end
from tests.e2e.strangers import Guest, authority_of, hello, papers
from tests.e2e.tunnel import LISTENERS, agent, tunnel_ruleset

MOST_GROWN = 30 << 20
"""Bytes by which a process may have grown in the end."""

CONTROL = 60
CHANNELS = 200

# -- a compromised agent ----------------------------------------------------------------------------------


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Give a gateway with two agents, neither of which is here."""
    rules = [rule(name, 9, via=name, connect_timeout="1s") for name in ("office", "lab")]
    text = tunnel_ruleset(*rules, state=tmp_path / "state", agents=("office", "lab"), heartbeat="10s")
    with Gateway.start(text) as running:
        yield running


def test_it_gets_its_own_sessions_only(gateway: Gateway, tmp_path: Path) -> None:
    """Those of another agent are none of its; of its own, what it says is one short line of the log."""
    port, context = gateway.port(LISTENERS), papers(authority_of(tmp_path / "state"), "office")
    with Guest.secured(port, context) as guest, Guest.secured(port, context) as channel:
        guest.hello()
        channel.say(guest.attach())
        with connect(gateway.address("lab")) as client, suppress(ConnectionResetError):
            assert read_to_end(client) == b""
        assert gateway.session()["cause"] == "agent_offline"
        with connect(gateway.address("office")) as client:
            assert channel.hear()["rule"] == "office"
            channel.say(Opened("10.0.0.1:1\n{}\x1b[31m" + "\n" * 300))
            client.sendall(b"1")
            assert channel.socket.recv(5) == b"\0\0\0\0011"
            channel.socket.close()
        endpoint = gateway.sessions(2)[1]["endpoint"]
        assert endpoint.startswith(r"10.0.0.1:1\n{}\x1b[31m\n")
        assert len(endpoint) <= 320


def test_it_never_answers(gateway: Gateway, tmp_path: Path) -> None:
    """A session that it does not answer has the time that any endpoint has, and a second for the way."""
    port, context = gateway.port(LISTENERS), papers(authority_of(tmp_path / "state"), "office")
    with Guest.secured(port, context) as guest, Guest.secured(port, context) as channel:
        guest.hello()
        channel.say(guest.attach())
        with connect(gateway.address("office")) as client, suppress(ConnectionResetError):
            assert read_to_end(client) == b""
        record = gateway.session()
        assert record["cause"] == "dial_timeout"
        assert record["duration_ms"] < 4000


def test_a_gateway_takes_anything(gateway: Gateway, tmp_path: Path) -> None:
    """Whatever agents say, the gateway does not stumble, and does not grow."""
    port, context = gateway.port(LISTENERS), papers(authority_of(tmp_path / "state"), "office")
    grown = -resident_bytes(gateway.workers[0])
    for seed in range(CONTROL):
        source = random.Random(seed)
        with suppress(OSError), Guest.secured(port, context) as guest:
            if seed % 3 == 0:
                guest.socket.sendall(damaged(source, hello()))
            guest.hello(instance=f"{seed:032x}")
            said = (Ping(1), Pong(1), Renew("-----BEGIN"), Bye("drain"), hello(), Opened("a"), Want(3))
            for _ in range(5):
                guest.socket.sendall(damaged(source, source.choice(said)))
    for seed in range(CONTROL // 2):
        source = random.Random(seed)
        with (
            suppress(OSError),
            Guest.secured(port, context) as guest,
            Guest.secured(port, context) as channel,
        ):
            guest.hello(instance=f"{seed:032x}")
            channel.say(guest.attach())
            with connect(gateway.address("office")) as client:
                channel.socket.settimeout(1)
                channel.hear()
                channel.socket.sendall(damaged(source, source.choice((Opened("127.0.0.1:9"), Failed("x")))))
                client.sendall(b"1")
    grown += resident_bytes(gateway.workers[0])
    assert grown < MOST_GROWN
    with Guest.secured(port, context) as guest:
        assert guest.hello()["type"] == "welcome"


# -- a compromised gateway --------------------------------------------------------------------------------


def test_an_agent_makes_no_more_channels_than_it_should(tmp_path: Path) -> None:
    """However many a gateway asks for, there are MOST_READY."""

    def welcomes(guest: Guest, _: int) -> None:
        guest.say(welcome(ready=65535))
        guest.say(Want(65535))
        listen_to(guest)

    with lying(tmp_path, welcomes, lambda guest, _: listen_to(guest)) as liar, agent(liar.join):
        wait_for("all channels", lambda: liar.attaches == MOST_READY)
        time.sleep(0.3)  # a little longer than one takes
        assert liar.attaches == MOST_READY


def test_an_agent_dials_no_more_often_than_it_should(tmp_path: Path) -> None:
    """A gateway that always says goodbye is dialled with pauses."""

    def welcomes(guest: Guest, _: int) -> None:
        guest.say(welcome(ready=0))
        guest.say(Bye("drain"))
        listen_to(guest)

    with lying(tmp_path, welcomes, lambda guest, _: listen_to(guest)) as liar, agent(liar.join):
        time.sleep(1)
        assert 1 < liar.hellos < 12


DENIED = (
    "127.0.0.2:{}",
    "localhost:{}",
    "[::ffff:127.0.0.1]:{}",
    "0.0.0.0:{}",
    "[::]:{}",
    "127.1:{}",
    "127.0.0.1:1-65535",
    "127.0.0.1:0",
    "unix:/run/docker.sock",
    "http://127.0.0.1:{}/",
    "127.0.0.1:{}\n",
    "*:{}",
)


@pytest.mark.parametrize("by", ["option", "gateway"])
def test_an_agent_reaches_what_it_is_allowed_to(tmp_path: Path, by: str) -> None:
    """Neither another address, nor a name that leads there, nor another way to write it; nor by UDP."""
    answers: list[str] = []

    with Endpoint(("127.0.0.1", 0)) as endpoint:
        orders = [to.format(endpoint.port) for to in DENIED]

        def welcomes(guest: Guest, _: int) -> None:
            guest.say(welcome(allow_to=["10.0.0.0/8:*"] if by == "gateway" else None))
            listen_to(guest)

        def opens(guest: Guest, number: int) -> None:
            if number <= 2 * len(orders):
                to, protocol = orders[(number - 1) // 2], ("tcp", "udp")[number % 2]
                guest.say(opening(to, protocol=protocol))
                answers.append(f"{protocol} {to} {guest.hear().get('cause')}")
            listen_to(guest)

        more = ("--allow-to", "10.0.0.0/8:*") if by == "option" else ()
        with lying(tmp_path, welcomes, opens) as liar, agent(liar.join, *more):
            wait_for("all answers", lambda: len(answers) >= 2 * len(orders))
        assert not [answer for answer in answers if not answer.endswith(" agent_denied")]
        endpoint.socket.settimeout(0)
        with pytest.raises(BlockingIOError):
            endpoint.socket.accept()


def test_an_introduction_says_nothing_but_addresses(tmp_path: Path) -> None:
    """What a gateway says of a client cannot continue the header that an endpoint is sent."""
    with Endpoint() as endpoint:

        def welcomes(guest: Guest, _: int) -> None:
            guest.say(welcome())
            listen_to(guest)

        def opens(guest: Guest, number: int) -> None:
            if number == 1:
                client = "192.0.2.1:1\r\nGET / HTTP/1.1\r\n"
                guest.say(opening(endpoint.to, client=client, local="x\r\n", proxy_protocol="v1"))
            listen_to(guest)

        with lying(tmp_path, welcomes, opens) as liar, agent(liar.join), endpoint.accept() as server:
            assert read_exactly(server, 15) == b"PROXY UNKNOWN\r\n"
            server.settimeout(0.2)
            with pytest.raises(TimeoutError):
                server.recv(1)


def test_an_agent_takes_anything(tmp_path: Path) -> None:
    """Whatever a gateway says, an agent does not stumble, does not grow, and finds back to an honest one."""
    is_honest = False

    def says(guest: Guest, number: int) -> None:
        source = random.Random(number)
        if is_honest:
            guest.say(welcome())
            listen_to(guest)
            return
        if source.random() < 0.2:
            guest.socket.sendall(damaged(source, welcome(ready=32)))
        guest.say(welcome(ready=32, heartbeat=0.5, workers=source.choice((1, 1, 2, 3))))
        said = [Ping(1), Pong(1), Want(64), Bye("drain"), Bye("replaced"), welcome()]
        said += [Renewed("x", 2.0**40), Refused("x", "y\n\x1b", True)]
        for _ in range(8):
            guest.socket.sendall(damaged(source, source.choice(said)))
            time.sleep(0.02)
        time.sleep(0.2)

    with Endpoint() as endpoint:

        def opens(guest: Guest, number: int) -> None:
            source = random.Random(number)
            if is_honest:
                guest.say(opening(endpoint.to))
                guest.hear()
                return
            protocol = source.choice(("tcp", "udp"))
            more = {"protocol": protocol, "proxy_protocol": source.choice(("", "v2"))}
            guest.socket.sendall(damaged(source, opening("127.0.0.1:9", **more)))
            guest.socket.settimeout(0.5)
            guest.hear()
            guest.socket.sendall(source.randbytes(source.randrange(100)))

        with lying(tmp_path, says, opens) as liar, agent(liar.join, workers=2, links=None) as running:
            wait_for("a first word", lambda: liar.attaches > 0)
            grown = -resident_bytes(running.workers[0])
            wait_for("much talk", lambda: liar.hellos > CONTROL // 4 and liar.attaches > CHANNELS, 40)
            grown += resident_bytes(running.workers[0])
            is_honest = True
            liar.cut()
            endpoint.accept().close()
            liar.close()  # the agent waits for its sessions
        assert grown < MOST_GROWN
