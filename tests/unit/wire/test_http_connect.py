"""The client's side of HTTP CONNECT."""

import pytest

from appliance.wire.http_connect import MAX_RESPONSE, HttpConnect


def test_what_is_sent() -> None:
    """A request in the target's form, with credentials where there are any."""
    assert HttpConnect("gateway.example:7443").begin() == (
        b"CONNECT gateway.example:7443 HTTP/1.1\r\nHost: gateway.example:7443\r\n\r\n"
    )
    assert HttpConnect("[2001:db8::1]:7443", "Aladdin", "open sesame").begin() == (
        b"CONNECT [2001:db8::1]:7443 HTTP/1.1\r\nHost: [2001:db8::1]:7443\r\n"
        b"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
    )


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-agent: x\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 204\r\n\r\n",
        b"HTTP/1.1 200 \n\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_a_way_is_open(answer: bytes, size: int) -> None:
    """However the answer comes; what follows it is no longer the proxy's."""
    ask = HttpConnect("a:1")
    ask.begin()
    surplus = b""
    for at in range(0, len(answer) + 6, size):
        part = (answer + b"\r\n\r\nHi")[at : at + size]
        if ask.is_done:
            surplus += part
        else:
            assert ask.feed(part) == b""
            surplus += ask.surplus
    assert ask.is_done
    assert not ask.failure
    assert surplus == b"\r\n\r\nHi"


@pytest.mark.parametrize(
    ("answer", "user", "failure"),
    [
        (b"HTTP/1.1 407 X\r\n\r\n", "", "the proxy wants a user and a password"),
        (b"HTTP/1.1 407 X\r\n\r\n", "me", "the proxy refuses this user and password"),
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n", "me", "the proxy refuses this user and password"),
        (
            b"HTTP/1.1 403 Forbidden\r\nA: b\r\n\r\n<html>",
            "",
            "the proxy refuses to connect to a:1: 403 Forbidden",
        ),
        (b"HTTP/1.1 502\r\n\r\n", "", "the proxy refuses to connect to a:1: 502"),
        (b"HTTP/1.1 301 \x1b[2J\xff\r\n\r\n", "", "the proxy refuses to connect to a:1: 301 \\x1b[2J\ufffd"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "",
            "the proxy refuses to connect to a:1: 101 Switching Protocols",
        ),
        (b"SSH-2.0-OpenSSH", "", "the proxy does not answer in HTTP"),
        (b"\x05\x00", "", "the proxy does not answer in HTTP"),
        (b"\x15", "", "the proxy does not answer in HTTP"),
        (b"HTTP/2 200 OK\r\n\r\n", "", "the proxy does not answer in HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "", "the proxy does not answer in HTTP"),
        (b"HTTP/1.1 \r\n\r\n", "", "the proxy does not answer in HTTP"),
        (b"HTTP/1.1 100 X\r\n\r\nhello", "", "the proxy does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 2000, "", "the proxy answers with more than 8192 bytes"),
        (b"HTTP/1.1 100 X\r\n\r\n" * 1000, "", "the proxy answers with more than 8192 bytes"),
    ],
)
def test_a_way_is_not_open(answer: bytes, user: str, failure: str) -> None:
    """One sentence says why, whole answer or byte by byte; nothing is taken after it."""
    for parts in ([answer], [bytes((byte,)) for byte in answer]):
        ask = HttpConnect("a:1", user, "x")
        for part in parts:
            ask.feed(part)
        assert ask.failure == failure
        assert not ask.is_done
        ask.feed(b"HTTP/1.1 200 OK\r\n\r\n")
        assert not ask.is_done
        assert ask.surplus == b""


def test_the_longest_answer() -> None:
    """MAX_RESPONSE bytes are taken, whatever follows them in the same read."""
    head = b"HTTP/1.1 200 OK\r\nA: "
    answer = head + b"b" * (MAX_RESPONSE - len(head) - 4) + b"\r\n\r\n"
    ask = HttpConnect("a:1")
    ask.feed(answer + b"x" * 100)
    assert ask.is_done
    assert ask.surplus == b"x" * 100
