"""Addresses to listen on and to dial: `10.0.0.5:80`, `[::1]:80`, `:80`, `unix:/path`, and ranges of ports."""

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from appliance.problem import quoted
from appliance.values.host import host_name, ipv4, ipv6, numeric
from appliance.values.misread import Misread
from appliance.values.unix_path import unix_path

MAX_PORT: Final = 65535

_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)")
_BRACKETED: Final = re.compile(r"\[(?P<host>[^\[\]]*)\](?::(?P<ports>.*))?", re.DOTALL)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_WELL_KNOWN: Final = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where sessions come in or go: a host and one port or a range of them, or a unix socket's path.

    Both ends of a range are included; a single port has `first_port == last_port`. With a `path` the host is
    empty and the ports are 0.
    """

    host: str = ""
    first_port: int = 0
    last_port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        last = "" if self.last_port == self.first_port else f"-{self.last_port}"
        return f"{host}:{self.first_port}{last}"

    @property
    def is_unix(self) -> bool:
        """Whether this is a unix socket."""
        return bool(self.path)

    @property
    def port_count(self) -> int:
        """How many ports the range has; 1 for a single port and for a unix socket."""
        return self.last_port - self.first_port + 1


@dataclass(frozen=True, slots=True)
class ListenAddress(Address):
    """An address to listen on.

    An empty `host` is every address of both families; otherwise it is a numeric IPv4 or IPv6 address. Port 0
    lets the kernel pick one, and is never in a range.
    """

    __str__ = Address.__str__

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `10.0.0.1:80`, `[::1]:80`, `:80`, `0.0.0.0:16384-16483` or `unix:/path`."""
        if text.startswith("unix:"):
            return cls(path=_unix_path(text))
        host, ports = split_host(text, example=":8080")
        first, last = parse_ports(text, ports, lowest=0)
        if first == 0 and last > 0:
            raise Misread(
                f"{quoted(text)} has port 0 in a range", "port 0 lets the kernel pick one port; give it alone"
            )
        if not host:
            return cls("", first, last)
        literal = numeric(text, host)
        if literal is None:
            raise Misread(f"{quoted(text)} does not listen on a numeric address", _listen_hint(host, ports))
        return cls(literal, first, last)


@dataclass(frozen=True, slots=True)
class TargetAddress(Address):
    """An address to dial: a host name or a numeric address with its ports, or a unix socket."""

    __str__ = Address.__str__

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `10.0.0.5:80`, `[::1]:80`, `db.internal:5432`, `10.0.0.5:16384-16483` or `unix:/path`."""
        if text.startswith("unix:"):
            return cls(path=_unix_path(text))
        host, ports = split_host(text, example="10.0.0.5:80")
        first, last = parse_ports(text, ports, lowest=1)
        if host in {"", "*"}:
            raise Misread(f"{quoted(text)} has no host", f'write where to, such as "127.0.0.1:{ports}"')
        literal = numeric(text, host)
        if literal is None:
            return cls(host_name(text, host), first, last)
        if literal in {"0.0.0.0", "::"}:
            loopback = "127.0.0.1" if literal == "0.0.0.0" else "[::1]"
            raise Misread(
                f"{quoted(text)} cannot be dialled: it stands for every address of a host",
                f'this host itself is "{loopback}:{ports}"',
            )
        return cls(literal, first, last)

    @property
    def is_name(self) -> bool:
        """Whether `host` has to be resolved before dialling."""
        if self.path or ":" in self.host:
            return False
        return ipv4(self.host) is None

    def at(self, offset: int) -> Self:
        """Give the single-port address for the listen port that is `offset` ports above the range's first.

        A single port and a unix socket are the same for every offset.
        """
        if self.first_port == self.last_port:
            return self
        if not 0 <= offset < self.port_count:
            raise IndexError(offset)
        return replace(self, first_port=self.first_port + offset, last_port=self.first_port + offset)


def _unix_path(text: str) -> str:
    return unix_path(text, text.removeprefix("unix:"), example="unix:/run/app.sock")


def refuse_spaces(text: str) -> None:
    """Raise Misread where there are spaces in a text, or line ends, with the text without them as hint."""
    if (dense := "".join(text.split())) != text:
        raise Misread(f"{quoted(text)} has spaces in it", f"write {quoted(dense)}")


def split_host(text: str, example: str) -> tuple[str, str]:
    """Take host, without brackets, and ports apart. `example` is what to write, in the notation of `text`."""
    if not text.strip():
        raise Misread(f"{quoted(text)} is no address", f'write one, such as "{example}"')
    refuse_spaces(text)
    if url := _URL.match(text):
        raise Misread(f"{quoted(text)} is a URL, not an address", _url_hint(url, example))
    if text.startswith("/"):
        raise Misread(
            f"{quoted(text)} is a path, not an address", f"a unix socket is written {quoted(f'unix:{text}')}"
        )
    if text.startswith("["):
        return _split_brackets(text)
    if _NUMBER.fullmatch(text):
        raise Misread(
            f"{quoted(text)} is a port without its colon", f'write "{example.rpartition(":")[0]}:{text}"'
        )
    host, colon, ports = text.rpartition(":")
    if not colon:
        raise Misread(
            f"{quoted(text)} has no port", f"write {quoted(f'{text}:80')}, with the port that is meant"
        )
    if ":" in host:
        raise Misread(f"{quoted(text)} has too many colons", _colons_hint(text, host, ports))
    return host, ports


def _split_brackets(text: str) -> tuple[str, str]:
    match = _BRACKETED.fullmatch(text)
    if match is None:
        raise Misread(f"{quoted(text)} has a bracket that does not close", 'write it as in "[::1]:80"')
    if match["ports"] is None:
        raise Misread(
            f"{quoted(text)} has no port", f"write {quoted(f'{text}:80')}, with the port that is meant"
        )
    host = match["host"]
    if ":" not in host:
        bare = f"{host}:{match['ports']}"
        raise Misread(
            f"{quoted(text)} has brackets around what is not an IPv6 address", f"write {quoted(bare)}"
        )
    return host, match["ports"]


def _url_hint(url: re.Match[str], example: str) -> str:
    authority = url["authority"].rpartition("@")[2]
    if not authority:
        return f'write host and port only, such as "{example}"'
    if not re.search(r":[0-9]+$", authority):
        authority = f"{authority}:{_WELL_KNOWN.get(url['scheme'].lower(), '80')}"
    return f"write host and port only: {quoted(authority)}"


def _colons_hint(text: str, host: str, ports: str) -> str:
    if ipv6(host):
        return f"an IPv6 address goes in brackets: {quoted(f'[{host}]:{ports}')}"
    if ipv6(text):
        return f"an IPv6 address goes in brackets, with its port after them: {quoted(f'[{text}]:80')}"
    return 'write host, one colon, port, such as "10.0.0.5:80" or "[::1]:80"'


def parse_ports(text: str, ports: str, lowest: int) -> tuple[int, int]:
    """Read `80` or `16384-16483`, a part of `text`: the first port, `lowest` at least, and the last one."""
    first_text, dash, last_text = ports.partition("-")
    first = _port(text, first_text, lowest)
    last = _port(text, last_text, 1) if dash else first
    if last < first:
        raise Misread(f"{quoted(text)} has a range that runs backwards", f"write {last}-{first}")
    return first, last


def _port(text: str, port: str, lowest: int) -> int:
    if not port:
        raise Misread(f"{quoted(text)} has no port after its colon", "write the number, such as 80")
    if not (port.isascii() and port.isdigit()):
        raise Misread(
            f"{quoted(text)}: {quoted(port)} is no port number", f"write a number from {lowest} to {MAX_PORT}"
        )
    if not _NUMBER.fullmatch(port) and len(port.lstrip("0")) <= len(str(MAX_PORT)):
        raise Misread(f"{quoted(text)}: port {quoted(port)} begins with 0", f"write {int(port)}")
    if len(port) > len(str(MAX_PORT)) or not lowest <= int(port) <= MAX_PORT:
        raise Misread(
            f"{quoted(text)}: {quoted(port)} is no port number", f"ports go from {lowest} to {MAX_PORT}"
        )
    return int(port)


def _listen_hint(host: str, ports: str) -> str:
    if host == "*":
        return f'every address is written ":{ports}"'
    if host.lower() == "localhost":
        return f'this host alone is "127.0.0.1:{ports}", and "[::1]:{ports}" for IPv6'
    return f'write one of this host\'s addresses, or ":{ports}" for all of them'
