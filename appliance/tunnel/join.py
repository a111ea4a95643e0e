"""What an agent needs to join its gateways: its key and certificate, whom to trust, and where to go.

It is a small TOML file, as everything is that an operator may edit here: the gateways, what may be reached,
the proxy. Or one line to paste, of the same content in MessagePack and Base64 (RFC 4648, 5), with a CRC-32
before it: what a terminal or a mail has cut short is then told from what is wrong.
"""

import binascii
import datetime as dt
import re
import textwrap
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from appliance.problem import Place, Problem, quoted
from appliance.ruleset.finding import Finding, Path
from appliance.ruleset.parse import parse
from appliance.ruleset.read import problems
from appliance.values import AllowedTarget, Misread, Proxy, TargetAddress

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX: Final = "portway-join-1."
"""How the line begins: what it is, and the version of its form."""

LARGEST: Final = 64 * 1024
"""Bytes of a file or line: 16 gateways and 256 targets have 25,000."""

_CRC_BYTES: Final = 4
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_LABELS: Final = {"ca": "CERTIFICATE", "certificate": "CERTIFICATE", "key": "PRIVATE KEY"}
_PEM: Final = re.compile(
    r"\s*-----BEGIN (?P<label>[A-Z ]+)-----\s(?P<base64>[A-Za-z0-9+/=\s]+)-----END [A-Z ]+-----\s*"
)
_AT: Final = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>[^`]*)`")

MOST_GATEWAYS: Final = 16

Gateways = Annotated[tuple[str, ...], Meta(min_length=1, max_length=MOST_GATEWAYS)]
Targets = Annotated[tuple[str, ...], Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=16384)]


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent joins with. `ca`, `certificate` and `key` are PEM.

    `gateways` are host:port, every one to be served. `allow_to` is what may be reached through the agent, as
    values.AllowedTarget; None: all that the gateways say. `proxy` is a URL (values.Proxy).
    """

    name: Annotated[str, Meta(pattern=_NAME)]
    gateways: Gateways
    ca: Text
    certificate: Text
    key: Text
    expires: float
    """Of the certificate, in seconds since 1970."""
    allow_to: Targets | None = None
    proxy: Text | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=_NAME)]
    gateways: Gateways
    ca: Text
    certificate: Text
    key: Text
    expires: Annotated[dt.datetime, Meta(tz=True)]
    allow_to: Targets | None = None
    proxy: Text | None = None


class _Line(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=_NAME)]
    gateways: Gateways
    ca: bytes
    certificate: bytes
    key: bytes
    expires: float
    allow_to: Targets | None
    proxy: Text | None


def read_join(text: bytes, file: str) -> Join | Problem:
    """Read a file or a line, whichever it is; `file` is the name that places give it. Never raises."""
    if len(text) > LARGEST:
        return Problem(Place(file), "", f"is larger than {LARGEST // 1024} KiB", "is this a join file?")
    if text.lstrip().startswith(PREFIX.encode()):
        return _from_line(text, file)
    return _from_file(text, file)


def file_of(join: Join) -> str:
    """Write the file."""
    narrowed = f"allow_to = {_array(join.allow_to)}" if join.allow_to is not None else '# allow_to = ["…"]'
    proxy = f"proxy = {_string(join.proxy)}" if join.proxy else '# proxy = "http://10.0.0.1:3128"'
    return f"""\
# With this, an agent of Portway serves "{join.name}": portway agent --join FILE
# It holds the agent's key: nobody else may read it.
name = {_string(join.name)}
gateways = {_array(join.gateways)}
# What may be reached from here, such as "192.168.1.0/24:22"; without it, all that the gateways allow.
{narrowed}
# The way out, where there is no other: http://… (CONNECT) or socks5://…
{proxy}

expires = {time_of(join.expires)}
certificate = \"\"\"
{join.certificate.strip()}
\"\"\"
key = \"\"\"
{join.key.strip()}
\"\"\"
# Of the gateways' CA: nobody else is trusted.
ca = \"\"\"
{join.ca.strip()}
\"\"\"
"""


def line_of(join: Join) -> str:
    """Write the line, without its end."""
    packed = msgspec.msgpack.encode(
        _Line(
            join.name,
            join.gateways,
            _der("ca", join.ca),
            _der("certificate", join.certificate),
            _der("key", join.key),
            join.expires,
            join.allow_to,
            join.proxy,
        )
    )
    checked = binascii.crc32(packed).to_bytes(_CRC_BYTES, "big") + packed
    encoded = binascii.b2a_base64(checked, newline=False).rstrip(b"=").translate(_TO_URL)
    return PREFIX + encoded.decode()


def _from_line(text: bytes, file: str) -> Join | Problem:
    encoded = b"".join(text.split())[len(PREFIX) :].translate(_FROM_URL, b"=")
    place = Place(file)
    damaged = Problem(place, "", "the line is not as it was made", "copy the whole of it, and nothing else")
    try:
        checked = binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4), strict_mode=True)
    except ValueError:
        return damaged
    crc, packed = checked[:_CRC_BYTES], checked[_CRC_BYTES:]
    if not packed or int.from_bytes(crc, "big") != binascii.crc32(packed):
        return damaged
    try:
        line = msgspec.msgpack.decode(packed, type=_Line)
        fields = {name: getattr(line, name) for name in _Line.__struct_fields__}
        fields |= {name: _pem(label, fields[name]) for name, label in _LABELS.items()}
        join = Join(**fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        return Problem(place, "", f"the line is no way to join: {wrong}", "have it made anew: portway enroll")
    if findings := _findings(join):
        return Problem(place, _key(findings[0].path), findings[0].what, findings[0].hint)
    return join


def _key(path: Path) -> str:
    return str(path[0]) if path else ""


def _from_file(text: bytes, file: str) -> Join | Problem:
    parsed = parse(text, file)
    if isinstance(parsed, Problem):
        return parsed
    source, document = parsed
    try:
        found = msgspec.convert(document, _File)
        fields = msgspec.structs.asdict(found) | {"expires": found.expires.timestamp()}
        join = Join(**fields)
    except (msgspec.ValidationError, ValueError, OverflowError) as wrong:
        return problems(source, [_finding(str(wrong))])[0]
    findings = _findings(join)
    return problems(source, findings)[0] if findings else join


def _finding(message: str) -> Finding:
    """Give the place of what msgspec found wrong."""
    match = _AT.fullmatch(message)
    what, below = (match["what"], match["path"] or "") if match else (message, "")
    path: Path = tuple(step for step in re.split(r"[.\[\]]", below) if step and not step.isdigit())[:1]
    if field := _FIELD.fullmatch(what):
        if "missing" in what:
            return Finding((field["name"],), "is missing", "have the file made anew: portway enroll")
        known = ", ".join(_File.__struct_fields__)
        return Finding((field["name"],), "is no known key", f"a join file has {known}", at_key=True)
    return Finding(path, f"{what[:1].lower()}{what[1:]}")


def _findings(join: Join) -> list[Finding]:
    parsers: list[tuple[Path, str, Callable[[str], object]]] = [
        *(((name,), getattr(join, name), partial(_der, name)) for name in _LABELS),
        *((("gateways", index), text, gateway_of) for index, text in enumerate(join.gateways)),
        *((("allow_to", index), text, AllowedTarget.parse) for index, text in enumerate(join.allow_to or ())),
        *((("proxy",), text, Proxy.parse) for text in (join.proxy,) if text is not None),
    ]
    findings = []
    for path, text, read in parsers:
        try:
            read(text)
        except Misread as wrong:
            findings.append(Finding(path, wrong.what, wrong.hint))
    return findings


def renewed(join: Join, certificate: str, key: str, expires: float) -> Join:
    """Put a certificate that a gateway has sent, and its key, into a join. Raises Misread.

    What it sent goes into a file that is read again: it is one block of PEM, and nothing around it.
    """
    whole = _pem(_LABELS["certificate"], _der("certificate", certificate))
    try:
        time_of(expires)
    except (ValueError, OverflowError, OSError) as wrong:
        raise Misread(f"it has no time of expiry: {wrong}", "") from None
    return msgspec.structs.replace(join, certificate=whole, key=key, expires=expires)


def gateway_of(text: str) -> TargetAddress:
    """Read where a gateway's tunnel port is: host:port. Raises Misread."""
    address = TargetAddress.parse(text)
    if address.is_unix or address.port_count != 1:
        raise Misread(f"{quoted(text)} is not one port of a host", 'write it as in "gateway.example:7443"')
    return address


def _der(name: str, text: str) -> bytes:
    """Give what a PEM block holds. Raises Misread."""
    match = _PEM.fullmatch(text)
    if match is None or match["label"] != _LABELS[name]:
        raise Misread(f"it is not one block of PEM: {_LABELS[name]}", "have it made anew: portway enroll")
    try:
        return binascii.a2b_base64("".join(match["base64"].split()), strict_mode=True)
    except ValueError as wrong:
        raise Misread(f"its PEM is damaged: {wrong}", "have it made anew: portway enroll") from None


def _pem(label: str, der: bytes) -> str:
    lines = textwrap.wrap(binascii.b2a_base64(der, newline=False).decode(), 64)
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))


def time_of(seconds: float) -> str:
    """Write a time as TOML and RFC 3339 do, in UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _string(text: str) -> str:
    """Write a string as TOML. JSON does it in one of TOML's ways, except that it lets DEL stand."""
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def _array(texts: tuple[str, ...]) -> str:
    return f"[{', '.join(map(_string, texts))}]"
