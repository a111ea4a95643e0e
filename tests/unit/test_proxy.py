"""What a proxy's URL may look like."""

import pytest

from appliance.values import Misread, Proxy, TargetAddress


@pytest.mark.parametrize(
    ("text", "scheme", "address", "user", "password"),
    [
        ("http://10.0.0.1:3128", "http", "10.0.0.1:3128", "", ""),
        ("http://proxy.internal:3128/", "http", "proxy.internal:3128", "", ""),
        ("socks5://me:s%40cr%C3%A9t%25@[::1]:1080", "socks5", "[::1]:1080", "me", "s@crét%"),
        ("socks5://me:a:b@h:1080", "socks5", "h:1080", "me", "a:b"),
        ("http://mé@h:80", "http", "h:80", "mé", ""),
    ],
)
def test_urls(text: str, scheme: str, address: str, user: str, password: str) -> None:
    """Scheme, address, and perhaps a user with a password, in which %XX stands for a byte."""
    assert Proxy.parse(text) == Proxy(scheme, TargetAddress.parse(address), user, password)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1:3128",
        "ftp://h:80",
        "HTTP://h:80",
        "http://h",
        "http://[::1]",
        "http://h:80-81",
        "http://h:80/path",
        "http://:80",
        "http://a@b@h:80/?",
        "http://%ff@h:80",
        "http://a%0d%0ab@h:80",
        f"http://{'u' * 256}@h:80",
    ],
)
def test_what_is_no_url_of_a_proxy(text: str) -> None:
    """It is refused with a hint."""
    with pytest.raises(Misread) as raised:
        Proxy.parse(text)
    assert raised.value.hint


def test_a_password_is_not_shown() -> None:
    """Neither in what is printed of the value nor in what is said of a wrong one."""
    assert "secret" not in repr(Proxy.parse("http://me:secret@h:80"))
    for wrong in ("ftp://me:secret@h:80", "http://me:secret@h", "http://me:secret%ff@h:1"):
        with pytest.raises(Misread) as raised:
            Proxy.parse(wrong)
        assert "secret" not in f"{raised.value.what} {raised.value.hint}"
