"""Telephony: SIPp's callers before the gateway, its callees behind; one rule for a range of ports."""

import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.gateway import PATIENCE, Gateway, rule, ruleset
from tests.real.datagrams import bound, flows, free_ports
from tests.real.programs import Address, find, run, running
from tests.real.sip import callee, caller

PORTS = 120
LINES, CALLS = 4, 10
"""So many callees, each at a port of its own, are called so often."""
STEP = PORTS // LINES
SPEECH = 10
"""Where a callee hears, counted from its first port."""
PACKETS, PAYLOAD, HEADER = 25, 160, 12
"""RTP of half a second: 20 ms each."""
LENGTH_MS = 1000
ROUNDS = 20


@dataclass(frozen=True)
class Range:
    """As many ports in a row, at one address."""

    host: str
    first: int

    @classmethod
    def free(cls) -> "Range":
        """Find one."""
        return cls(*free_ports(PORTS))

    def __str__(self) -> str:
        """As a ruleset has it."""
        return f"{self.host}:{self.first}-{self.first + PORTS - 1}"

    def at(self, number: int) -> Address:
        """Give one of its ports."""
        return self.host, self.first + number


def sipp(scenario: Path, host: str, *words: str) -> list[str]:
    """Give a command; what is lost is not sent again, so that it fails."""
    # Its control port is one of a few that it tries, and so at an address of its own.
    own = ["-i", host, "-mi", host, "-ci", host]
    return [find("sipp"), "-sf", str(scenario), *own, "-nostdin", "-nr", "-trace_err", *words]


@contextmanager
def line(inside: Range, listen: Range, number: int, folder: Path) -> Iterator[Path]:
    """Run a callee that sends back what it hears; give what it writes."""
    scenario = folder / "callee.xml"
    scenario.write_text(callee())
    (_, port), hears = inside.at(number), inside.at(number + SPEECH)
    words = ["-p", str(port), "-mp", str(hears[1]), "-rtp_echo"]
    host, speech = listen.at(number + SPEECH)
    words += ["-key", "gateway", host, "-key", "gateway_port", str(speech)]
    ready = [inside.at(number), hears]
    # SIGUSR1 is its orderly end, at which it tells what it has counted.
    command = sipp(scenario, inside.host, *words)
    with running(command, lambda: all(map(bound, ready)), folder, stop=signal.SIGUSR1):
        yield folder / "sipp.log"


def call(to: Address, folder: Path) -> str:
    """Make the calls of a line, all at once; give what the program reports."""
    audio, scenario = folder / "speech", folder / "caller.xml"
    audio.write_bytes(bytes(number % 251 for number in range(PACKETS * PAYLOAD)))
    scenario.write_text(caller(str(audio), LENGTH_MS))
    host, port = free_ports(4)
    # A socket for each call.
    words = ["-t", "un", "-max_socket", "100", "-mp", str(port), "-m", str(CALLS), "-r", "20"]
    words += ["-timeout", "40s", "-timeout_error"]
    return run([*sipp(scenario, host, *words), "{}:{}".format(*to)], cwd=folder).decode()


def test_calls(tmp_path: Path) -> None:
    """Every call succeeds, nothing is sent twice, speech comes back; the records have each message of it."""
    inside, listen = Range.free(), Range.free()
    text = rule("sip", str(inside), str(listen), protocol="udp")
    with Gateway.start(ruleset(text)) as gateway, ExitStack() as stack, ThreadPoolExecutor(LINES) as pool:
        folders = [tmp_path / f"line-{number}" for number in range(2 * LINES)]
        for folder in folders:
            folder.mkdir()
        lines = range(0, PORTS, STEP)
        for number, folder in zip(lines, folders[:LINES], strict=True):
            stack.enter_context(line(inside, listen, number, folder))
        for said in pool.map(call, map(listen.at, lines), folders[LINES:]):
            assert re.search(rf"Successful call +\| +0 +\| +{CALLS} ", said), said
            assert re.search(r"Failed call +\| +0 +\| +0 ", said), said
        those = flows(gateway, "sip")
    for number in lines:
        of_line = [each for each in those if each["listener"] == "{}:{}".format(*listen.at(number))]
        assert [(each["up_datagrams"], each["down_datagrams"]) for each in of_line] == [(3, 3)] * CALLS
        (speech,) = [
            each for each in those if each["listener"] == "{}:{}".format(*listen.at(number + SPEECH))
        ]
        assert speech["endpoint"] == "{}:{}".format(*inside.at(number + SPEECH))
        assert CALLS <= speech["up_datagrams"] == speech["down_datagrams"] <= CALLS * PACKETS
        assert speech["up"] == speech["down"] == speech["up_datagrams"] * (HEADER + PAYLOAD)
    assert len(those) == LINES * (CALLS + 1)


def test_media_on_every_port() -> None:
    """A port of the range leads to the port of the same place at the endpoint, and answers come from it."""
    inside, listen = Range.free(), Range.free()
    text = rule("media", str(inside), str(listen), protocol="udp")
    with Gateway.start(ruleset(text)) as gateway, ExitStack() as stack:
        servers = [stack.enter_context(datagram_socket(inside.at(number))) for number in range(PORTS)]
        clients = [stack.enter_context(datagram_socket(("127.0.0.1", 0))) for _ in range(PORTS)]
        for turn in range(ROUNDS):
            for number, client in enumerate(clients):
                client.sendto(packet(turn, number), listen.at(number))
            for number, server in enumerate(servers):
                data, sender = server.recvfrom(2048)
                assert data == packet(turn, number)
                server.sendto(b"to " + data, sender)
            for number, client in enumerate(clients):
                assert client.recvfrom(2048) == (b"to " + packet(turn, number), listen.at(number))
        those = flows(gateway, "media")
    pairs = {(each["listener"], each["endpoint"]) for each in those}
    places = [["{}:{}".format(*each.at(number)) for number in range(PORTS)] for each in (listen, inside)]
    assert pairs == set(zip(*places, strict=True))
    assert len(those) == PORTS
    assert {(each["up_datagrams"], each["down_datagrams"]) for each in those} == {(ROUNDS, ROUNDS)}


def datagram_socket(address: Address) -> socket.socket:
    """Bind a UDP socket."""
    made = socket.socket(type=socket.SOCK_DGRAM)
    made.settimeout(PATIENCE)
    made.bind(address)
    return made


def packet(turn: int, number: int) -> bytes:
    """Give what passes at a turn of a port."""
    return f"{turn} {number} ".encode().ljust(HEADER + PAYLOAD, b"~")
