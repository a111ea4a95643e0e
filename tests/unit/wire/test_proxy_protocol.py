"""PROXY protocol headers, against the specification's examples and a receiver written from it."""

import pytest

from appliance.ruleset import ProxyProtocol
from appliance.wire.proxy_protocol import header
from tests.unit.wire.receiving import Header, receive

SESSION = "01KARPYX5V4T9Q2M7XKD000042"
V1, V2 = ProxyProtocol.V1, ProxyProtocol.V2


@pytest.mark.parametrize(
    ("client", "local", "line"),
    [
        ("192.168.0.1:56324", "192.168.0.11:443", b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"),
        (
            "255.255.255.255:65535",
            "255.255.255.255:65535",
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ),
        ("[2001:db8::1]:1024", "[2001:db8::2]:80", b"PROXY TCP6 2001:db8::1 2001:db8::2 1024 80\r\n"),
        ("203.0.113.9:51022", "[2001:db8::2]:80", b"PROXY TCP6 ::ffff:203.0.113.9 2001:db8::2 51022 80\r\n"),
        ("[2001:db8::1]:1024", "198.51.100.1:80", b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.1 1024 80\r\n"),
        ("[::ffff:203.0.113.9]:5", "198.51.100.1:80", b"PROXY TCP4 203.0.113.9 198.51.100.1 5 80\r\n"),
        ("[fe80::1%eth0]:1024", "[fe80::2%eth0]:80", b"PROXY TCP6 fe80::1 fe80::2 1024 80\r\n"),
        ("unix", "unix:/run/web.sock", b"PROXY UNKNOWN\r\n"),
    ],
)
def test_version_1(client: str, local: str, line: bytes) -> None:
    """The lines of the specification (2.1); one address of each family is said in IPv6."""
    assert header(V1, client, local, SESSION) == line


def test_version_2_byte_by_byte() -> None:
    """Signature, version and command, family, length, addresses, ports, and the session's id (2.2)."""
    assert header(V2, "203.0.113.9:51022", "198.51.100.1:2222", SESSION) == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 11 0029 cb007109 c6336401 c74e 08ae 05 001a"
    ) + SESSION.encode("ascii")
    assert header(V2, "[2001:db8::1]:1024", "[2001:db8::2]:80", "") == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 21 0024"
        "20010db8000000000000000000000001 20010db8000000000000000000000002 0400 0050"
    )
    assert header(V2, "unix", "unix:/run/web.sock", "") == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 20 00 0000"
    )


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize(
    ("client", "local", "source", "destination"),
    [
        ("203.0.113.9:51022", "198.51.100.1:2222", ("203.0.113.9", 51022), ("198.51.100.1", 2222)),
        ("[2001:db8::1]:1", "[::1]:65535", ("2001:db8::1", 1), ("::1", 65535)),
        ("203.0.113.9:51022", "[::1]:80", ("::ffff:203.0.113.9", 51022), ("::1", 80)),
    ],
)
def test_a_receiver_reads_it(
    version: ProxyProtocol, client: str, local: str, source: tuple[str, int], destination: tuple[str, int]
) -> None:
    """Both addresses, both ports, and nothing of what follows; in version 2 the session's id."""
    found, rest = receive(header(version, client, local, SESSION) + b"SSH-2.0-")
    assert (found.source, found.destination) == (source, destination)
    assert found.unique_id == (b"" if version is V1 else SESSION.encode("ascii"))
    assert rest == b"SSH-2.0-"


@pytest.mark.parametrize(
    "client",
    [
        *(
            "",
            "unix",
            "unix:/x",
            "203.0.113.9",
            "203.0.113.9:",
            "203.0.113.9:65536",
            "203.0.113.999:1",
            "[::1]",
        ),
        *(
            "[::1]:x",
            "[zz]:1",
            "[1.2.3.4]:1",
            "::1:80",
            "203.0.113.9:1\r\nPROXY",
            "203.0.113.9:1\n",
            "[::]]:1",
        ),
        *("203.0.113.9:\u0661", "\udc80", "1.2.3.4 5.6.7.8:1"),
    ],
)
def test_what_is_no_address(client: str) -> None:
    """Not known, and no byte of it is sent: it comes from the other end of a tunnel."""
    local = "198.51.100.1:80"
    assert header(V1, client, local, SESSION) == header(V1, local, client, SESSION) == b"PROXY UNKNOWN\r\n"
    for one, other in ((client, local), (local, client)):
        found, rest = receive(header(V2, one, other, SESSION))
        assert found == Header("LOCAL", None, None, SESSION.encode("ascii"))
        assert rest == b""


def test_an_id_has_a_greatest_length() -> None:
    """128 bytes of it (2.2.5)."""
    found, _ = receive(header(V2, "unix", "unix", "x" * 200))
    assert found.unique_id == b"x" * 128
