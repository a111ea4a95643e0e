"""A proxy on the way out: `http://10.0.0.1:3128`, `socks5://user:password@proxy.internal:1080`."""

import re
from dataclasses import dataclass, field
from typing import Final, Self

from appliance.problem import quoted
from appliance.values.address import TargetAddress
from appliance.values.misread import Misread

_URL: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:(?P<user>[^/?#]*)@)?(?P<host>[^/?#@]*)/?")
_ESCAPED: Final = re.compile(b"%([0-9A-Fa-f]{2})")
_PORTS: Final = {"http": 3128, "socks5": 1080}
_LONGEST: Final = 255
"""Bytes of a user or password (RFC 1929)."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """How to leave: HTTP CONNECT or SOCKS5 (the proxy resolves names), perhaps as a user."""

    scheme: str
    address: TargetAddress
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL. In user and password, characters that a URL gives a meaning are written %XX."""
        match = _URL.fullmatch(text)
        if match is None or match["scheme"] not in _PORTS:
            # Not quoted: it may hold a password.
            raise Misread("it is no URL of a proxy", 'write it as in "http://10.0.0.1:3128" or "socks5://…"')
        host, port = match["host"], _PORTS[match["scheme"]]
        if not re.search(r"[^:]:[0-9]+$|\]:[0-9]+$", host):
            raise Misread(f"{quoted(host)} has no port", f"write {quoted(f'{host}:{port}')}")
        address = TargetAddress.parse(host)
        if address.port_count != 1:
            raise Misread(f"{quoted(host)} is a range of ports", "a proxy has one")
        user, _, password = (match["user"] or "").partition(":")
        return cls(match["scheme"], address, _plain(user), _plain(password))


def _plain(text: str) -> str:
    try:
        raw = _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())
        plain = raw.decode()
    except UnicodeError:
        raise Misread("its user or password is not UTF-8, written in %XX", "write é as %C3%A9") from None
    if len(raw) > _LONGEST or any(char < " " for char in plain):
        raise Misread(
            "its user or password is too long, or has a line end in it", f"{_LONGEST} bytes are taken"
        )
    return plain
