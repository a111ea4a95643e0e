"""network.toml: what it may say, and what is wrong with it."""

from ipaddress import IPv4Interface, IPv6Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.machine.network_file import read_network
from appliance.machine.network_model import InterfaceTable, NetworkFile, for_interface

WHOLE = b"""
hostname = "gateway-1"

[[interface]]
name = "eth0"
ipv4 = "192.0.2.5/24"
gateway4 = "192.0.2.1"
ipv6 = "2001:db8::5/64"
gateway6 = "fe80::1"
dns = ["192.0.2.53", "2001:db8::53"]
ntp = ["ntp.example.net", "192.0.2.123"]
mtu = 1400

[[interface]]
mac = "52:54:00:12:34:AB"
ipv4 = "off"

[[interface]]
ipv6 = "off"
"""


def network(text: bytes) -> NetworkFile:
    """Read what is right."""
    read = read_network(text, "network.toml")
    assert isinstance(read, NetworkFile), read
    return read


def told(text: bytes) -> list[tuple[str, str | None]]:
    """Read what is wrong: each problem and its hint."""
    read = read_network(text, "network.toml")
    assert isinstance(read, tuple)
    return [(str(problem), problem.hint) for problem in read]


def test_everything_that_can_be_said() -> None:
    """Every key is understood, and each interface gets the table that is for it."""
    read = network(WHOLE)
    assert read.hostname == "gateway-1"
    first = for_interface(read, "eth0", "52:54:00:00:00:01")
    assert first.ipv4.static == IPv4Interface("192.0.2.5/24")
    assert first.ipv6.static == IPv6Interface("2001:db8::5/64")
    assert (first.gateway4, first.gateway6, first.mtu) == ("192.0.2.1", "fe80::1", 1400)
    assert (first.dns, first.ntp) == (("192.0.2.53", "2001:db8::53"), ("ntp.example.net", "192.0.2.123"))
    assert for_interface(read, "eth1", "52:54:00:12:34:ab").ipv4 == "off"
    assert for_interface(read, "eth2", "52:54:00:00:00:03").ipv6 == "off"


def test_an_empty_file_is_dhcp_everywhere() -> None:
    """Nothing said is DHCP and advertised IPv6 on every interface."""
    assert for_interface(network(b""), "eth7", "") == InterfaceTable()
    assert (InterfaceTable().ipv4, InterfaceTable().ipv6) == ("dhcp", "auto")
    assert InterfaceTable().ipv4.static is None


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        (b'hostnam = "a"', "network.toml:1:1: hostnam: is no known key", "did you mean hostname?"),
        (
            b'hostname = "a_b"',
            'network.toml:1:12: hostname: "a_b" is no host name',
            "letters, digits and hyphens, as in gateway-1",
        ),
        (
            b'[[interface]]\nipv4 = "192.0.2.5"',
            (
                'network.toml:2:8: interface[0].ipv4: "192.0.2.5" '
                'is neither "dhcp", "off" nor an address with its network'
            ),
            'such as "192.0.2.5/24"',
        ),
        (
            b'[[interface]]\nipv6 = "dhcp"',
            (
                'network.toml:2:8: interface[0].ipv6: "dhcp" '
                'is neither "auto", "off" nor an address with its network'
            ),
            'such as "2001:db8::5/64"',
        ),
        (
            b'[[interface]]\ngateway4 = "192.0.2.1"',
            "network.toml:2:1: interface[0].gateway4: is used only where ipv4 is an address",
            "give ipv4 an address, or leave gateway4 out",
        ),
        (
            b'[[interface]]\nipv4 = "192.0.2.5/24"\ngateway4 = "fe80::1"',
            'network.toml:3:12: interface[0].gateway4: "fe80::1" is no IPv4 address',
            'such as "192.0.2.1"',
        ),
        (
            b'[[interface]]\nmac = "5254"',
            'network.toml:2:7: interface[0].mac: "5254" is no hardware address',
            'write it as in "52:54:00:12:34:56"',
        ),
        (
            b'[[interface]]\ndns = "192.0.2.1"',
            'network.toml:2:7: interface[0].dns: wants a list of addresses, found "192.0.2.1"',
            'such as dns = ["192.0.2.53"]',
        ),
        (
            b"[[interface]]\nmtu = 68",
            (
                "network.toml:2:7: interface[0].mtu: wants a whole number from 576 to 65535, "
                "found the integer 68"
            ),
            "such as mtu = 1500",
        ),
        (
            b"[interface]\n",
            "network.toml:1:1: interface: wants a list of tables, found a table",
            "write [[interface]]",
        ),
        (
            b'[[interface]]\nname = "eth0"\n[[interface]]\nname = "eth0"',
            "network.toml:4:8: interface[1].name: is what another table is for, too (network.toml:2)",
            None,
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: bytes, problem: str, hint: str | None) -> None:
    """Each mistake is one problem with line, column and a hint, as a ruleset's are."""
    assert told(text) == [(problem, hint)]


def test_all_at_once() -> None:
    """Every problem of a file is told in one go, in the order of their places."""
    found = told(b"hostname = 5\n[[interface]]\nipv4 = 1\nwhat = 2\n[[interface]]\n[[interface]]\n")
    assert [problem.split(" ")[0] for problem, _ in found] == [
        "network.toml:1:12:",
        "network.toml:3:8:",
        "network.toml:4:1:",
        "network.toml:5:1:",
        "network.toml:6:1:",
    ]


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    """Whatever stands in the file, reading it raises nothing."""
    read_network(text.encode(errors="replace"), "network.toml")
    read_network(f'[[interface]]\nipv4 = "{text}"'.encode(errors="replace"), "network.toml")
