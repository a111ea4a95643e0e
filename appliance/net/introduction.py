"""What tells an endpoint who the client is, before the client's first byte (`proxy_protocol`)."""

from collections.abc import Callable

from appliance.net.session import Session
from appliance.ruleset import ProxyProtocol
from appliance.wire.proxy_protocol import header


def introduction(version: ProxyProtocol | None) -> Callable[[Session], bytes] | None:
    """Give what makes the header of a route's sessions (`Route.header`); None: they have none."""
    if version is None:
        return None

    def made(session: Session) -> bytes:
        return header(version, session.client_text(), session.local_text(), session.known_id())

    return made
