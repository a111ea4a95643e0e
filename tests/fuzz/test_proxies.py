"""Whatever a proxy says, and whatever is written for its URL."""

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.values import Misread, Proxy
from appliance.wire.http_connect import MAX_RESPONSE, HttpConnect
from appliance.wire.socks5 import Socks5

http = st.lists(
    st.sampled_from(
        [b"HTTP/1.1 ", b"HTTP/1.0 200 OK\r\n", b"100", b"200", b"407", b" X", b"\r\n", b"\n", b"A: b\r\n\r\n"]
    )
    | st.binary(max_size=5),
    max_size=15,
).map(b"".join)
socks = st.lists(
    st.sampled_from([b"\5\0", b"\5\2", b"\1\0", b"\5\0\0\1", b"\0" * 6, b"\5\0\0\3\1a\0\1"])
    | st.binary(max_size=5),
    max_size=8,
).map(b"".join)


def _result(ask: HttpConnect | Socks5, stream: bytes, cuts: list[int]) -> tuple[bool, str, bytes, bytes]:
    sent, at = ask.begin(), 0
    for size in [*cuts, len(stream)]:
        if ask.is_done or ask.failure:
            break
        sent += ask.feed(stream[at : at + size])
        at = min(at + size, len(stream))
        assert len(ask._held) <= MAX_RESPONSE
    assert not (ask.is_done and ask.failure)
    assert ask.failure.isprintable()
    return ask.is_done, ask.failure, ask.surplus + stream[at:] if ask.is_done else b"", sent


@settings(max_examples=500)
@given(http, st.lists(st.integers(1, 20), max_size=20))
def test_any_answer_in_http(stream: bytes, cuts: list[int]) -> None:
    """The same end, and the same bytes left over, however the answer is cut."""
    assert _result(HttpConnect("a:1"), stream, cuts) == _result(HttpConnect("a:1"), stream, [1] * len(stream))


@settings(max_examples=500)
@given(socks, st.lists(st.integers(1, 20), max_size=20), st.sampled_from(["", "me"]))
def test_any_answer_in_socks(stream: bytes, cuts: list[int], user: str) -> None:
    """The same, and the same is sent."""
    whole = _result(Socks5("a.b", 1, user, "x"), stream, cuts)
    assert whole == _result(Socks5("a.b", 1, user, "x"), stream, [1] * len(stream))


@settings(max_examples=500)
@given(
    st.lists(
        st.sampled_from(
            ["http", "socks5", "://", "me", ":", "@", "%41", "%", "a.b", ":80", "/", "[::1]", "10.0.0.1"]
        )
        | st.text(max_size=3),
        max_size=9,
    ).map("".join)
)
def test_any_text_as_a_url(text: str) -> None:
    """A proxy, or what is wrong; a proxy's own text is the same proxy, and what is sent to it can be."""
    try:
        proxy = Proxy.parse(text)
    except Misread:
        return
    assert Proxy.parse(str(proxy)) == Proxy(proxy.scheme, proxy.address)
    HttpConnect("a:1", proxy.user, proxy.password).begin()
    ask = Socks5("a.b", 1, proxy.user, proxy.password)
    ask.begin()
    ask.feed(b"\5\2")
