"""The client's side of HTTP CONNECT (RFC 9110, 9.3.6): what to say to a proxy, and what it answers.

By hand although h11 exists: it is one request and the first lines of one answer, nothing else here speaks
HTTP, and h11 would be in every frozen form for it.
"""

import binascii
import re
from typing import Final

from appliance.problem import printable

MAX_RESPONSE: Final = 8192
"""Bytes of an answer's lines, all interim ones included."""

_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: ([^\r\n]*))?(?:\r?\n|\Z)")
_LONGEST_REASON: Final = 60


class HttpConnect:
    """One CONNECT. Feed it what the proxy says until `is_done`, or until there is a `failure`."""

    def __init__(self, target: str, user: str = "", password: str = "") -> None:
        """`target` is host:port, a name or a numeric address, IPv6 in brackets."""
        self._target = target
        self._user = user
        self._password = password
        self._held = b""
        self._seen = 0
        self.is_done = False
        self.failure = ""
        """A clause that says why it came to nothing."""
        self.surplus = b""
        """What came behind the answer: it is no longer the proxy's."""

    def _is_over(self) -> bool:
        return self.is_done or bool(self.failure)

    def begin(self) -> bytes:
        """Give what is sent first."""
        lines = [f"CONNECT {self._target} HTTP/1.1", f"Host: {self._target}"]
        if self._user:
            said = f"{self._user}:{self._password}".encode()
            token = binascii.b2a_base64(said, newline=False).decode("ascii")
            lines.append(f"Proxy-Authorization: Basic {token}")
        return "\r\n".join((*lines, "", "")).encode("ascii", "replace")

    def feed(self, data: bytes) -> bytes:
        """Take what the proxy says; give what is sent next, which is nothing here."""
        if self._is_over():
            return b""
        self._held += data
        while self._held and self._head_is_judged():
            pass
        if self.is_done:
            self.surplus = self._held
        if self._is_over():
            self._held = b""
        return b""

    def _head_is_judged(self) -> bool:
        """Judge the first head that is held; False: it is not whole, or nothing follows it that matters."""
        held = self._held
        end = _END.search(held)
        if not _could_be_status(held) or (end and not _STATUS.match(held)):
            self.failure = "the proxy does not answer in HTTP"
        elif self._seen + (end.end() if end else len(held)) > MAX_RESPONSE:
            self.failure = f"the proxy answers with more than {MAX_RESPONSE} bytes"
        elif end is not None:
            self._judge(held[: end.start()])
            self._seen += end.end()
            self._held = held[end.end() :]
            return not self._is_over()
        return False

    def _judge(self, head: bytes) -> None:
        match = _STATUS.match(head)
        assert match is not None
        status = int(match[1])
        if status == 101 or status >= 300:  # noqa: PLR2004  no other protocol was asked for
            self.failure = self._refusal(status, match[2] or b"")
        elif status >= 200:  # noqa: PLR2004  below are interim answers (RFC 9110, 15.2)
            self.is_done = True

    def _refusal(self, status: int, reason: bytes) -> str:
        if status in {401, 407}:  # 407 is the right one; tinyproxy says 401 to a wrong password
            if self._user:
                return "the proxy refuses this user and password"
            return "the proxy wants a user and a password"
        said = printable(reason.decode("utf-8", "replace").strip()[:_LONGEST_REASON])
        return f"the proxy refuses to connect to {printable(self._target)}: {status} {said}".rstrip()


def _could_be_status(held: bytes) -> bool:
    """Say whether this begins as an answer does: who speaks another protocol is known at once."""
    begin = b"HTTP/1."
    return held[: len(begin)] == begin[: len(held)]
