"""dig against NSD: one rule for both protocols, on one port."""

import os
import re
import subprocess
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import needs
from tests.e2e.gateway import Gateway, Record, rule, ruleset
from tests.real.datagrams import SILENCE, flows, free_port_everywhere, free_ports, sessions, total
from tests.real.programs import Address, find, folder_of, run, running

HOSTS = 250
DIGS, NAMES = 8, 50
STRINGS = 14
STRING = 250
"""A TXT record of STRINGS strings: more than an Ethernet frame and less than what EDNS asks for here."""
LARGE = STRINGS * STRING
BUFFER = 4096

CONFIG = """
server:
    ip-address: {host}@{port}
    username: "{user}"
    zonesdir: "{folder}"
    database: ""
    pidfile: ""
    xfrdfile: "{folder}/xfrd.state"
    xfrdir: "{folder}"
    zonelistfile: "{folder}/zones"
    ipv4-edns-size: {buffer}
    rrl-ratelimit: 0
    server-count: 1
remote-control:
    control-enable: no
zone:
    name: example.test
    zonefile: "{folder}/zone"
"""
ZONE = """$ORIGIN example.test.
$TTL 3600
@ IN SOA ns hostmaster 1 3600 600 86400 60
@ IN NS ns
ns IN A 192.0.2.1
large IN TXT {large}
"""


@dataclass(frozen=True)
class Answer:
    """What dig says of an answer."""

    said: str

    @property
    def over(self) -> str:
        """UDP or TCP."""
        return self._found(r"^;; SERVER: .*\((UDP|TCP)\)$")

    @property
    def size(self) -> int:
        """Bytes of the message."""
        return int(self._found(r"^;; MSG SIZE  rcvd: (\d+)$"))

    @property
    def flags(self) -> Sequence[str]:
        """Of its header: `tc` is truncated."""
        return self._found(r"^;; flags: ([a-z ]+);").split()

    @property
    def is_second(self) -> bool:
        """Whether dig asked again by TCP."""
        return ";; Truncated, retrying in TCP mode." in self.said

    def _found(self, pattern: str) -> str:
        match = re.search(pattern, self.said, re.MULTILINE)
        assert match, self.said
        return match[1]


def address_of(number: int) -> str:
    """Give the address that the zone has for a host."""
    return f"198.51.100.{number}"


def dig(server: Address, *words: str) -> str:
    """Ask, once: a datagram that is lost is not sent again, and the status says so."""
    host, port = server
    return run([find("dig"), "-r", f"@{host}", "-p", str(port), "+tries=1", "+timeout=20", *words]).decode()


def ask_host(server: Address, *words: str) -> Answer:
    """Ask for one host's address, and check it."""
    answer = Answer(dig(server, "host-7.example.test", "A", *words))
    assert re.search(
        rf"^host-7\.example\.test\.\s+3600\s+IN\s+A\s+{address_of(7)}$", answer.said, re.MULTILINE
    )
    assert "aa" in answer.flags
    return answer


def ask_large(server: Address, *words: str) -> Answer:
    """Ask for the large record."""
    return Answer(dig(server, "large.example.test", "TXT", *words))


def strings(answer: Answer) -> list[str]:
    """Give the strings of the TXT record in an answer."""
    return re.findall(r'"([^"]*)"', answer.said)


def large_strings() -> list[str]:
    """Give the strings of the large record."""
    return [f"{number:03}".ljust(STRING, "x") for number in range(STRINGS)]


@pytest.fixture(scope="module")
def nsd() -> Iterator[Address]:
    """Run NSD with a zone of its own."""
    server = find("nsd")
    find("dig")
    host, port = free_ports()
    with folder_of(None) as folder:
        lines = [f"host-{number} IN A {address_of(number)}\n" for number in range(1, HOSTS)]
        large = " ".join(f'"{each}"' for each in large_strings())
        (folder / "zone").write_text(ZONE.format(large=large) + "".join(lines))
        user = "" if os.geteuid() else "root"  # the folder is ours alone
        config = folder / "nsd.conf"
        config.write_text(CONFIG.format(host=host, port=port, user=user, folder=folder, buffer=BUFFER))
        with running([server, "-d", "-c", str(config)], lambda: is_up((host, port)), folder):
            yield host, port


def is_up(server: Address) -> bool:
    """Whether it answers for its zone."""
    host, port = server
    command = [
        find("dig"),
        "-r",
        f"@{host}",
        "-p",
        str(port),
        "+tries=1",
        "+timeout=1",
        "example.test",
        "SOA",
    ]
    return b"status: NOERROR" in subprocess.run(command, capture_output=True, check=False).stdout


@dataclass(frozen=True)
class Dns:
    """A gateway before NSD."""

    gateway: Gateway
    address: Address
    causes: Collection[str]
    """How a flow of one question ends."""

    def flows(self) -> list[Record]:
        """Stop the gateway; give the records of its flows: each was answered as often as it asked."""
        those = flows(self.gateway, "dns", self.causes)
        assert all(each["up_datagrams"] == each["down_datagrams"] for each in those), those
        return those


@contextmanager
def before(nsd: Address, listen: str, address: Address, *, is_one: bool) -> Iterator[Dns]:
    """Start a gateway with one rule for both protocols, on one port."""
    more: dict[str, str | int] = {"protocol": "tcp+udp", "idle_timeout": "1s"}
    if is_one:
        more["responses"] = 1
    causes = {"answered"} if is_one else SILENCE
    with Gateway.start(ruleset(rule("dns", "{}:{}".format(*nsd), listen, **more))) as gateway:
        yield Dns(gateway, address, causes)


@pytest.fixture(params=["one response", "until idle"])
def dns(nsd: Address, request: pytest.FixtureRequest) -> Iterator[Dns]:
    """Give a gateway before it."""
    address = free_ports()
    with before(nsd, "{}:{}".format(*address), address, is_one=request.param == "one response") as started:
        yield started


def test_question_by_udp(dns: Dns) -> None:
    """One question is one flow of one datagram each way; its end is its answer's, or silence."""
    answer = ask_host(dns.address, "+notcp")
    assert answer.over == "UDP"
    record = dns.gateway.session()
    assert record["cause"] == ("answered" if "answered" in dns.causes else "idle_timeout")
    assert dns.flows() == [record]
    assert record["up_datagrams"] == 1
    assert record["down"] == answer.size
    assert record["listener"] == "{}:{}".format(*dns.address)


def test_question_by_tcp(dns: Dns) -> None:
    """The same port answers by TCP."""
    answer = ask_host(dns.address, "+tcp")
    assert answer.over == "TCP"
    (record,) = sessions(dns.gateway, "dns")
    assert record["down"] == 2 + answer.size, "TCP has the length before the message"
    assert not dns.flows()


def test_large_answer(dns: Dns) -> None:
    """An answer of more than an Ethernet frame comes whole, by UDP, to who asked with EDNS for that."""
    answer = ask_large(dns.address, f"+bufsize={BUFFER}", "+ignore")
    assert answer.over == "UDP"
    assert "tc" not in answer.flags
    assert strings(answer) == large_strings()
    assert answer.size > LARGE
    (record,) = dns.flows()
    assert record["down"] == answer.size
    assert record["down_datagrams"] == 1


def test_truncated_answer(dns: Dns) -> None:
    """An answer that does not fit is truncated by the server, and dig gets it from the same port by TCP."""
    answer = ask_large(dns.address, "+noedns")
    assert answer.is_second
    assert answer.over == "TCP"
    assert strings(answer) == large_strings()
    (flow,) = dns.flows()
    (session,) = sessions(dns.gateway, "dns")
    assert flow["down"] <= 512 < LARGE < session["down"]


def test_many_questions(dns: Dns, tmp_path: Path) -> None:
    """Of many questions at once each gets its own answer, at the first try."""

    def ask(which: int) -> list[str]:
        names = tmp_path / f"names-{which}"
        numbers = [1 + (which * NAMES + each) % (HOSTS - 1) for each in range(NAMES)]
        names.write_text("".join(f"host-{number}.example.test A\n" for number in numbers))
        # From an address of its own: dig sets SO_REUSEPORT, and the kernel may give two of them one port.
        words = ["-b", free_ports()[0], "+notcp", "+short", "-f", str(names)]
        found = dig(dns.address, *words).split()
        assert found == [address_of(number) for number in numbers]
        return found

    with ThreadPoolExecutor(DIGS) as pool:
        list(pool.map(ask, range(DIGS)))
    those = dns.flows()
    assert total(those, "up_datagrams") == DIGS * NAMES
    if "answered" in dns.causes:
        assert len(those) == DIGS * NAMES
        assert {each["up_datagrams"] for each in those} == {1}


def test_ipv6_listener(nsd: Address) -> None:
    """A client of IPv6 gets its answer, by UDP and by TCP, from an endpoint of IPv4."""
    needs.ipv6()
    address = "::1", free_port_everywhere()
    with before(nsd, f"[::1]:{address[1]}", address, is_one=True) as dns:
        for way in ("+notcp", "+tcp"):
            ask_host(address, way)
        large = ask_large(address, f"+bufsize={BUFFER}", "+ignore")
        assert strings(large) == large_strings()
        those = [*dns.flows(), *sessions(dns.gateway, "dns")]
    assert len(those) == 3
    assert all(each["client"].startswith("[::1]:") for each in those)


def test_listener_at_every_address(nsd: Address) -> None:
    """Who asked one of a host's addresses is answered from that one, in both families: dig takes no other."""
    needs.ipv6()
    port = free_port_everywhere()
    places = ["127.0.0.1", "127.1.2.3", free_ports()[0], "::1"]
    with before(nsd, f":{port}", ("", port), is_one=True) as dns:
        for host in places:
            answer = ask_host((host, port), "+notcp")
            assert f";; SERVER: {host}#{port}" in answer.said
        those = dns.flows()
    assert len(those) == len(places)
    assert sum(each["client"].startswith("[::1]:") for each in those) == 1
