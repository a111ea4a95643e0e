"""The proxy on the way out: `http://proxy.internal:3128`, `socks5://user:password@10.0.0.1:1080`."""

import re
from dataclasses import dataclass, field
from typing import Final, Self

from appliance.problem import quoted
from appliance.values.address import TargetAddress
from appliance.values.misread import Misread

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>.*)@)?(?P<rest>[^@]*)", re.DOTALL
)
_SCHEMES: Final = {"http": "http", "socks5": "socks5", "socks5h": "socks5", "socks": "socks5"}
"""The proxy resolves names in any case, which others call socks5h."""

_PORTS: Final = {"http": 3128, "socks5": 1080}
_ESCAPED: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_EXAMPLE: Final = 'such as "http://proxy.internal:3128" or "socks5://10.0.0.1:1080"'

MAX_CREDENTIAL: Final = 255
"""Bytes of a user or a password: RFC 1929 counts them in one byte."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and who we are to it; an empty `user` is nobody. `str` leaves user and password out."""

    scheme: str
    """http or socks5."""
    address: TargetAddress
    """One port of it."""
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL. Raises Misread, in whose words there is no password."""
        shown = _masked(text)
        url = _URL.fullmatch(text)
        if url is None:
            raise Misread(f"{quoted(shown)} is no URL of a proxy", f"write one, {_EXAMPLE}")
        scheme = _scheme(shown, url["scheme"].lower())
        address = _address(shown, scheme, url["rest"])
        if url["user"] is None:
            return cls(scheme, address)
        user, _, password = url["user"].partition(":")
        return cls(
            scheme, address, _credential(shown, "user", user), _credential(shown, "password", password)
        )


def _masked(text: str) -> str:
    """Give the text without what stands before its last @."""
    head, at, rest = text.rpartition("@")
    scheme, colon, _ = head.partition("://")
    return f"{scheme}{colon}***@{rest}" if at and colon else f"***@{rest}" if at else text


def _scheme(shown: str, scheme: str) -> str:
    if scheme in _SCHEMES:
        return _SCHEMES[scheme]
    if scheme == "https":
        hint = "write http:// if it takes CONNECT without TLS, as most do; what passes is encrypted anyway"
        raise Misread(f"{quoted(shown)} is a proxy that is spoken to in TLS", hint)
    if scheme.startswith("socks"):
        raise Misread(
            f"{quoted(shown)} is a proxy of an old kind", "only SOCKS version 5 is spoken: socks5://"
        )
    raise Misread(
        f"{quoted(shown)} is no proxy that is known here", f"write http:// or socks5://, {_EXAMPLE}"
    )


def _address(shown: str, scheme: str, rest: str) -> TargetAddress:
    authority = rest.removesuffix("/")
    if re.search(r"[/?#]", authority):
        raise Misread(f"{quoted(shown)} has a path", "write scheme, host and port only")
    if authority and not re.search(r":[0-9-]*\Z", authority.rpartition("]")[2]):
        raise Misread(f"{quoted(shown)} has no port", f"add it, such as :{_PORTS[scheme]}")
    address = TargetAddress.parse(authority)
    if address.path or address.port_count > 1:
        raise Misread(f"{quoted(shown)} is no one host and port", f"write one, {_EXAMPLE}")
    return address


def _credential(shown: str, what: str, text: str) -> str:
    """Read a user or a password, in which other characters than letters and digits may be written as %40."""
    if any(match[1] is None for match in _ESCAPED.finditer(text)):
        raise Misread(
            f"{quoted(shown)} has a % that is none of %00 to %ff in its {what}", "write % itself as %25"
        )
    try:
        raw = b"".join(
            bytes.fromhex(part[1:3]) + part[3:].encode() if part.startswith("%") else part.encode()
            for part in re.split(r"(?=%)", text)
        )
        read = raw.decode()
    except UnicodeError:
        raise Misread(
            f"{quoted(shown)} has a {what} that is not UTF-8", "write it in UTF-8, escaped with %"
        ) from None
    if len(raw) > MAX_CREDENTIAL or not read.isprintable():
        raise Misread(
            f"{quoted(shown)} has a {what} that cannot be sent",
            f"it has {MAX_CREDENTIAL} bytes at the most, and no control characters",
        )
    if what == "user" and (not read or ":" in read):
        raise Misread(
            f"{quoted(shown)} has no user that can be sent",
            "write user:password@, or nothing before the host",
        )
    return read
