"""URLs of proxies."""

import pytest

from appliance.values import Misread, Proxy, TargetAddress


@pytest.mark.parametrize(
    ("text", "scheme", "address", "user", "password"),
    [
        ("http://proxy.internal:3128", "http", "proxy.internal:3128", "", ""),
        ("HTTP://10.0.0.1:8080/", "http", "10.0.0.1:8080", "", ""),
        ("socks5://[2001:db8::1]:1080", "socks5", "[2001:db8::1]:1080", "", ""),
        ("socks5h://a.b:1080", "socks5", "a.b:1080", "", ""),
        ("http://me:open%20sesame@a.b:1", "http", "a.b:1", "me", "open sesame"),
        ("http://me@a.b:1", "http", "a.b:1", "me", ""),
        ("socks5://m%40e:p@:w%C3%A9/@a.b:1", "socks5", "a.b:1", "m@e", "p@:wé/"),
    ],
)
def test_a_url_reads(text: str, scheme: str, address: str, user: str, password: str) -> None:
    """Scheme, one host and port, and who we are to it."""
    assert Proxy.parse(text) == Proxy(scheme, TargetAddress.parse(address), user, password)


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("proxy:3128", "is no URL of a proxy", "write one"),
        ("", "is no URL of a proxy", "write one"),
        ("https://proxy:3128", "spoken to in TLS", "write http://"),
        ("socks4://proxy:1080", "of an old kind", "only SOCKS version 5"),
        ("ftp://proxy:21", "no proxy that is known", "write http:// or socks5://"),
        ("http://proxy", "has no port", "such as :3128"),
        ("socks5://[::1]", "has no port", "such as :1080"),
        ("http://proxy:3128/x", "has a path", "scheme, host and port"),
        ("http://proxy:1-2", "no one host and port", "write one"),
        ("http://unix:/x:1", "has a path", "scheme, host and port"),
        ("http://:3128", "has no host", None),
        ("http://proxy:99999", "is no port number", None),
        ("http://0.0.0.0:1", "cannot be dialled", None),
        ("http://a%zz:b@proxy:1", "none of %00 to %ff in its user", "%25"),
        ("http://a:%ff@proxy:1", "not UTF-8", "UTF-8"),
        ("http://a:%0a@proxy:1", "cannot be sent", "255 bytes"),
        (f"http://a:{'x' * 256}@proxy:1", "cannot be sent", "255 bytes"),
        ("http://:b@proxy:1", "no user", "user:password@"),
        ("http://a%3Ab:c@proxy:1", "no user", "user:password@"),
    ],
)
def test_a_wrong_url_is_explained(text: str, what: str, hint: str | None) -> None:
    """What is wrong, and what to write instead."""
    with pytest.raises(Misread) as wrong:
        Proxy.parse(text)
    assert what in wrong.value.what
    assert hint is None or hint in (wrong.value.hint or "")


@pytest.mark.parametrize(
    "text",
    [
        "http://me:sesame@proxy",
        "https://me:sesame@proxy:1",
        "me:sesame@proxy:1",
        "http://me:sesame@%@p:x",
        "http://me:sesame%@p:1",
    ],
)
def test_no_message_has_the_password(text: str) -> None:
    """Whatever is wrong: it would end in a log. Nor have the text and the repr of what was read."""
    with pytest.raises(Misread) as wrong:
        Proxy.parse(text)
    assert "sesame" not in f"{wrong.value.what} {wrong.value.hint}"
    proxy = Proxy.parse("http://me:sesame@proxy:1")
    assert str(proxy) == "http://proxy:1"
    assert "sesame" not in repr(proxy)
