"""The client's side of SOCKS 5."""

import pytest

from appliance.wire.socks5 import Socks5

GRANTED = bytes.fromhex("05 00 00 01 0a000001 1f90")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("198.51.100.1", "01 c6336401"),
        ("2001:db8::1", "04 20010db8000000000000000000000001"),
        ("fe80::1%eth0", "04 fe800000000000000000000000000001"),
        ("gateway.example", "03 0f 676174657761792e6578616d706c65"),
    ],
)
def test_what_is_sent(host: str, address: str) -> None:
    """No authentication is offered where there is no user; a name is left to the proxy."""
    ask = Socks5(host, 7443)
    assert ask.begin() == bytes.fromhex("05 01 00")
    assert ask.feed(b"\5\0") == bytes.fromhex(f"05 01 00 {address} 1d13")
    assert ask.feed(GRANTED) == b""
    assert ask.is_done


def test_user_and_password() -> None:
    """Both ways are offered; the password is sent once it is asked for (RFC 1929)."""
    ask = Socks5("198.51.100.1", 80, "me", "sésame")
    assert ask.begin() == bytes.fromhex("05 02 00 02")
    assert ask.feed(b"\5\2") == bytes.fromhex("01 02 6d65 07 73c3a973616d65")
    assert ask.feed(b"\1\0") == bytes.fromhex("05 01 00 01 c6336401 0050")
    ask.feed(GRANTED)
    assert ask.is_done
    spared = Socks5("198.51.100.1", 80, "me", "x")
    spared.begin()
    assert spared.feed(b"\5\0")[:3] == b"\5\1\0"


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    "reply",
    [
        "05 00 00 01 00000000 0000",
        "05 00 00 04" + "00" * 18,
        "05 00 00 03 03 612e62 0050",
        "05 00 00 03 00 0050",
    ],
)
def test_a_way_is_open(reply: str, size: int) -> None:
    """However the answers come, whatever address is in them; what follows is no longer the proxy's."""
    stream = b"\5\0" + bytes.fromhex(reply) + b"Hi!"
    ask = Socks5("a.b", 1)
    ask.begin()
    sent = surplus = b""
    for at in range(0, len(stream), size):
        part = stream[at : at + size]
        if ask.is_done:
            surplus += part
        else:
            sent += ask.feed(part)
            surplus += ask.surplus
    assert sent == bytes.fromhex("05 01 00 03 03 612e62 0001")
    assert ask.is_done
    assert surplus == b"Hi!"


@pytest.mark.parametrize(
    ("stream", "user", "failure"),
    [
        ("05 ff", "", "the proxy wants a user and a password"),
        ("05 02", "", "the proxy wants a way to say who we are that was not offered (2)"),
        ("05 01", "me", "the proxy wants a way to say who we are that was not offered (1)"),
        ("05 ff", "me", "the proxy takes no user and password"),
        ("05 02 01 01", "me", "the proxy refuses this user and password"),
        ("04 5a", "", "the proxy does not speak SOCKS 5"),
        ("48", "", "the proxy does not speak SOCKS 5"),
        ("05 00 04", "", "the proxy does not speak SOCKS 5"),
        ("05 00 05 00 00 02 00", "", "the proxy does not speak SOCKS 5"),
        ("05 00 05 02", "", "the proxy refuses to connect to [2001:db8::1]:80: its rules do not allow it"),
        ("05 00 05 05 00 01 00", "", "the proxy refuses to connect to [2001:db8::1]:80: connection refused"),
        ("05 00 05 77", "", "the proxy refuses to connect to [2001:db8::1]:80: reply 119"),
    ],
)
def test_a_way_is_not_open(stream: str, user: str, failure: str) -> None:
    """One sentence says why, at once or byte by byte; nothing is taken after it."""
    said = bytes.fromhex(stream)
    for parts in ([said], [bytes((byte,)) for byte in said]):
        ask = Socks5("2001:db8::1", 80, user, "x")
        ask.begin()
        for part in parts:
            ask.feed(part)
        assert ask.failure == failure
        assert ask.feed(GRANTED) == b""
        assert not ask.is_done
