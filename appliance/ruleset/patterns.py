"""The notations of `appliance.values` as regular expressions, for editors and other programs.

They mean the same in Python and in JSON Schema (ECMA 262). A pattern takes all that the parser takes. The
parser refuses more only where a pattern cannot count or compare; DIFFERENCES lists those.
"""

from typing import Final

from appliance.values import MAX_UNIX_PATH
from appliance.values.directory import MAX_DIRECTORY

DIFFERENCES: Final = (
    "a range that runs backwards",
    "a duration of more than 365 days, or than its key takes",
    "a duration of less than its key takes",
    "a size of more than 1024GiB, or than its key takes",
    "a size of less than its key takes",
    "a host name of more than 253 characters",
    "a unix socket's or directory's path of too many bytes that has fewer characters than bytes",
    "an IPv4-mapped IPv6 address as target that stands for 0.0.0.0",
    "a network with bits set beyond its prefix length",
)
"""What a pattern takes and the parser refuses."""

_PORT: Final = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_PORTS: Final = f"{_PORT}(?:-{_PORT})?"
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_GROUP: Final = "[0-9A-Fa-f]{1,4}"
_LINK_LOCAL: Final = "[Ff][Ee][89ABab][0-9A-Fa-f]:"
_ZONE: Final = "%[A-Za-z0-9_.-]{1,15}"
_LABEL: Final = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NUMERIC_LABEL: Final = "(?:[0-9]+|0[Xx][0-9A-Fa-f]*)"
_PATH: Final = rf"/[^\x00]{{0,{MAX_UNIX_PATH - 2}}}[^\x00/]"
_UNIX: Final = f"unix:{_PATH}"
_LENGTH_4: Final = "(?:3[0-2]|[12]?[0-9])"
_LENGTH_6: Final = "(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])"


def _ipv6() -> str:
    """Give RFC 4291's text form: eight groups, or fewer around one `::`, the last two perhaps as IPv4."""
    shapes = [f"(?:{_GROUP}:){{7}}{_GROUP}", f"(?:{_GROUP}:){{6}}{_IPV4}"]
    for before in range(8):
        head = f"{_GROUP}(?::{_GROUP}){{{before - 1}}}" if before else ""
        shapes.append(f"{head}::(?:{_up_to(7 - before, _GROUP, 1)}|{_up_to(7 - before, _IPV4, 2)})?")
    return f"(?:{'|'.join(shapes)})"


def _up_to(groups: int, last: str, size: int) -> str:
    """Give what may follow `::` within `groups` groups when it ends with `last`, which is `size` of them."""
    return f"(?:{_GROUP}:){{0,{groups - size}}}{last}" if groups >= size else "(?!)"


_HAS_ZONE: Final = rf"(?={_LINK_LOCAL})(?=[^\]]*%)|(?!{_LINK_LOCAL})(?![^\]]*%)"
"""A link-local address names its interface, and no other address does."""

_BRACKETED: Final = rf"\[(?:{_HAS_ZONE}){_ipv6()}(?:{_ZONE})?\]"
_NAME: Final = rf"(?!unix:)(?!(?:{_LABEL}\.)*{_NUMERIC_LABEL}\.?:){_LABEL}(?:\.{_LABEL})*\.?"


def _whole(pattern: str) -> str:
    """Anchor a pattern: Python's `$` also matches before a last line end."""
    return rf"^(?:{pattern})$(?!\n)"


LISTEN: Final = _whole(f"(?:{_IPV4}|{_BRACKETED})?:(?:0|{_PORTS})|{_UNIX}")
TARGET: Final = _whole(rf"(?:(?!0\.0\.0\.0:){_IPV4}|(?!\[[0:.]+\]){_BRACKETED}|{_NAME}):{_PORTS}|{_UNIX}")
TUNNEL_LISTEN: Final = _whole(f"(?:{_IPV4}|{_BRACKETED})?:(?:0|{_PORT})")
ALLOWED: Final = _whole(
    rf"(?:{_IPV4}/{_LENGTH_4}|(?!0\.0\.0\.0:){_IPV4}|\[{_ipv6()}\]/{_LENGTH_6}|(?!\[[0:.]+\]:)\[{_ipv6()}\]|{_NAME})"
    rf":(?:\*|{_PORTS})|{_UNIX}"
)
DIRECTORY: Final = _whole(rf"(?=/+[^\x00/])/[^\x00]{{1,{MAX_DIRECTORY - 1}}}")
ADMIN: Final = _whole(f"@|{_PATH}")
DURATION: Final = _whole(
    "(?=.*[1-9])" + "".join(f"(?:(?:0|[1-9][0-9]{{0,10}}){unit})?" for unit in ("d", "h", "m", "s", "ms"))
)
SIZE: Final = _whole("[1-9][0-9]{0,12}(?:[kMG]?B|[KMG]iB)")
