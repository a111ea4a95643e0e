"""The client's side of SOCKS 5 (RFC 1928), by user and password where there are any (RFC 1929).

By hand: the well-kept packages wrap a blocking socket or an event loop of their own, and these are four
messages of a few bytes.
"""

from ipaddress import ip_address
from typing import Final

from appliance.problem import printable

_VERSION: Final = 5
_NO_AUTHENTICATION: Final = 0
_BY_PASSWORD: Final = 2
_NONE_ACCEPTABLE: Final = 0xFF
_PASSWORD_VERSION: Final = 1
_CONNECT: Final = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_LONGEST_NAME: Final = 255

_REPLIES: Final = {
    1: "general failure",
    2: "its rules do not allow it",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "it does not know CONNECT",
    8: "it does not know that kind of address",
}
"""RFC 1928, 6."""


class Socks5:
    """One connection through a proxy. Feed it what the proxy says until `is_done`, or a `failure`."""

    def __init__(self, host: str, port: int, user: str = "", password: str = "") -> None:
        """`host` is a numeric address without brackets, or a name, which the proxy resolves."""
        self._host = host
        self._port = port
        self._user = user
        self._password = password
        self._held = b""
        self._next = self._method
        self.is_done = False
        self.failure = ""
        """A clause that says why it came to nothing."""
        self.surplus = b""
        """What came behind the answer: it is no longer the proxy's."""

    def _is_over(self) -> bool:
        return self.is_done or bool(self.failure)

    def begin(self) -> bytes:
        """Give what is sent first: the ways to say who we are."""
        methods = (_NO_AUTHENTICATION, _BY_PASSWORD) if self._user else (_NO_AUTHENTICATION,)
        return bytes((_VERSION, len(methods), *methods))

    def feed(self, data: bytes) -> bytes:
        """Take what the proxy says; give what is sent next."""
        send = b""
        if not self._is_over():
            self._held += data
        while not self._is_over():
            said = self._next()
            if said is None:
                break
            send += said
        if self.is_done:
            self.surplus += self._held
        if self._is_over():
            self._held = b""
        return send

    def _take(self, size: int) -> bytes | None:
        """Give the next bytes once they are all there."""
        if len(self._held) < size:
            return None
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def _fail(self, failure: str) -> bytes:
        self.failure = failure
        return b""

    def _method(self) -> bytes | None:
        if self._held[:1] not in {b"", bytes((_VERSION,))}:
            return self._fail("the proxy does not speak SOCKS 5")
        answer = self._take(2)
        if answer is None:
            return None
        if answer[1] == _NO_AUTHENTICATION:
            return self._request()
        if answer[1] == _BY_PASSWORD and self._user:
            self._next = self._status
            user, password = self._user.encode(), self._password.encode()
            return bytes((_PASSWORD_VERSION, len(user))) + user + bytes((len(password),)) + password
        if answer[1] != _NONE_ACCEPTABLE:
            return self._fail(f"the proxy wants a way to say who we are that was not offered ({answer[1]})")
        return self._fail(
            "the proxy takes no user and password" if self._user else "the proxy wants a user and a password"
        )

    def _status(self) -> bytes | None:
        answer = self._take(2)
        if answer is None:
            return None
        # Some proxies answer with version 5 here; only the status counts.
        return self._request() if answer[1] == 0 else self._fail("the proxy refuses this user and password")

    def _request(self) -> bytes:
        self._next = self._reply
        return bytes((_VERSION, _CONNECT, 0)) + _address(self._host) + self._port.to_bytes(2, "big")

    def _reply(self) -> bytes | None:
        """Read version, reply, reserved, and an address that does not matter."""
        held = self._held
        if held[:1] not in {b"", bytes((_VERSION,))}:
            return self._fail("the proxy does not speak SOCKS 5")
        # A refusal is one whatever follows: there are proxies that send no more than its first bytes.
        if len(held) > 1 and held[1]:
            why = _REPLIES.get(held[1], f"reply {held[1]}")
            return self._fail(f"the proxy refuses to connect to {self._target()}: {why}")
        if len(held) < 5:  # noqa: PLR2004  so far as it says how long it is
            return None
        size = {_IPV4: 4, _NAME: 1 + held[4], _IPV6: 16}.get(held[3])
        if size is None:
            return self._fail("the proxy does not speak SOCKS 5")
        if self._take(4 + size + 2) is None:
            return None
        self.is_done = True
        return b""

    def _target(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return printable(f"{host}:{self._port}")


def _address(host: str) -> bytes:
    """Write a host: a name as it is. An interface means nothing to a proxy."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        name = host.encode("ascii", "replace")[:_LONGEST_NAME]
        return bytes((_NAME, len(name))) + name
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed  # noqa: PLR2004  the protocol's version
