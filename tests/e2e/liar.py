"""A gateway that is not to be trusted: it has the CA, and says what a test tells it to."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from appliance.tunnel.credentials import gateway_context
from appliance.wire.messages import VERSION, Open, Welcome
from tests.e2e.gateway import PATIENCE, rule
from tests.e2e.strangers import Guest, authority_of
from tests.e2e.tunnel import enroll, tunnel_ruleset

Says = Callable[[Guest, int], None]
"""What is said to a connection after its first message; the number counts those of its kind."""


class Liar:
    """The gateway, as a test sees it."""

    def __init__(self, folder: Path, listener: socket.socket, on_hello: Says, on_attach: Says) -> None:
        self.on_hello = on_hello
        self.on_attach = on_attach
        self.hellos = self.attaches = 0
        self._listener = listener
        self._lock = threading.Lock()
        self._context = gateway_context(authority_of(folder / "state"))
        self._open: set[socket.socket] = set()
        rules = folder / "rules.toml"
        rules.write_text(tunnel_ruleset(rule("web", 9, via="office"), state=folder / "state"))
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        self.join = enroll(rules, "office", where, folder / "office.join")

    def accept(self) -> None:
        """Take whoever comes, each in a thread."""
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(PATIENCE)
            with self._context.wrap_socket(connection, server_side=True) as secured:
                self._open.add(secured)
                guest = Guest(secured)
                first = guest.hear()
                if first.get("type") == "hello":
                    self.on_hello(guest, self._count("hellos"))
                elif first:
                    self.on_attach(guest, self._count("attaches"))

    def _count(self, what: str) -> int:
        with self._lock:
            setattr(self, what, getattr(self, what) + 1)
            return int(getattr(self, what))

    def cut(self) -> None:
        """Cut off everybody who is here."""
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let nobody in any more, and cut everybody off."""
        with suppress(OSError):  # it is closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()


@contextmanager
def lying(folder: Path, on_hello: Says, on_attach: Says) -> Iterator[Liar]:
    """Listen."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        liar = Liar(folder, listener, on_hello, on_attach)
        accepting = threading.Thread(target=liar.accept, daemon=True)
        accepting.start()
        try:
            yield liar
        finally:
            liar.close()
            accepting.join(PATIENCE)


def welcome(**changes: Any) -> Welcome:
    """Make a Welcome."""
    told = {
        "version": VERSION,
        "link": "0" * 16,
        "secret": "0" * 64,
        "worker": 0,
        "workers": 1,
        "heartbeat": 5.0,
        "encryption": "tls",
        "ready": 2,
        "allow_to": None,
        "software": "liar",
    }
    return Welcome(**{**told, **changes})


def opening(to: str, **changes: Any) -> Open:
    """Make an Open."""
    told = {
        "session": "0" * 26,
        "rule": "web",
        "protocol": "tcp",
        "to": to,
        "client": "192.0.2.1:1000",
        "local": "192.0.2.2:80",
        "connect_timeout": 2.0,
        "idle_timeout": 60.0,
    }
    return Open(**{**told, **changes})


def listen_to(guest: Guest) -> None:
    """Hear somebody out."""
    while guest.hear():
        continue
