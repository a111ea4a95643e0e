"""What the tests of UDP share: ports of one's own, whether a server is there, the records of flows."""

import itertools
import os
import socket
import sys
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from appliance.observe.names import deviations
from tests.e2e.gateway import Gateway, Record
from tests.real.programs import ORDERLY, RESET, Address

SILENCE = frozenset({"idle_timeout", "drain"})
"""How a flow ends that nobody ends: nothing came for long enough."""

LOWEST, HIGHEST = 12_000, 32_000
"""Below the ports that the kernel gives to outgoing sockets (net.ipv4.ip_local_port_range, from 32768): a UDP
client that was never bound holds its port at every address."""

_numbers = itertools.count()


def free_ports(count: int = 1) -> Address:
    """Find free ports in a row, for both protocols, at an address that is our own; give the first."""
    number = next(_numbers)
    high, low = divmod(os.getpid() % 65536, 256)
    host = f"127.{64 + number % 32}.{high}.{low}"
    for first in range(LOWEST + number * 101 % 8_000, HIGHEST - count, count):
        if _free(host, range(first, first + count)):
            return host, first
    raise AssertionError(f"no {count} free ports at {host}")


def free_port_everywhere() -> int:
    """Find a port that TCP and UDP can be bound at on every address of both families."""
    for offset in itertools.count():
        port = LOWEST + (os.getpid() * 11 + offset) % (HIGHEST - LOWEST)
        if _free("::", [port]):
            return port
    raise AssertionError


def _free(host: str, ports: Collection[int]) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        for port in ports:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                probe = stack.enter_context(socket.socket(family, kind))
                try:
                    probe.bind((host, port))
                except OSError:
                    return False
    return True


def bound(address: Address) -> bool:
    """Whether a UDP socket is bound there: what is sent to it from now on waits for its server."""
    host, port = address
    # proc(5): the address is the four bytes as this machine's word, in hexadecimal.
    word = int.from_bytes(socket.inet_aton(host), sys.byteorder)
    wanted = f"{word:08X}:{port:04X}"
    return any(line.split()[1] == wanted for line in Path("/proc/net/udp").read_text().splitlines()[1:])


def flows(
    gateway: Gateway, rule: str, causes: Collection[str] = SILENCE, *, may_drop: bool = False
) -> list[Record]:
    """Stop the gateway, so that every flow has its record; give those of a rule, checked.

    `may_drop`: what is sent through it finds out how much the way holds by losing some.
    """
    those = _ended(gateway, rule, "udp", causes)
    assert may_drop or not dropped(gateway, those), (gateway.events("datagrams_dropped"), those)
    return those


def dropped(gateway: Gateway, those: Collection[Record]) -> int:
    """Count the datagrams that a stopped gateway says were dropped, in some flows and before any flow."""
    before = gateway.events("datagrams_dropped")
    return sum(sum(each.get("drops", {}).values()) for each in those) + total(before, "count")


def sessions(gateway: Gateway, rule: str, causes: Collection[str] = ORDERLY | RESET) -> list[Record]:
    """Stop the gateway; give the records of a rule's TCP sessions, checked."""
    return _ended(gateway, rule, "tcp", causes)


def _ended(gateway: Gateway, rule: str, protocol: str, causes: Collection[str]) -> list[Record]:
    gateway.stop()
    gateway.check()
    of_rule = [each for each in gateway.events("session") if each["rule"] == rule]
    those = [each for each in of_rule if each["protocol"] == protocol]
    for record in those:
        assert not deviations(record), record
        assert record["stage"] == "relay", record
        assert record["cause"] in causes, record
    assert len({record["session"] for record in those}) == len(those)
    return those


def total(those: Collection[Record], field: str) -> int:
    """Add up a field of records."""
    return sum(int(each[field]) for each in those)
