"""The intranet server of the demo: small pages, and an upload that is answered with its SHA-256."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

PAGE = b"Hello from a server of the intranet.\n"


class _Pages(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page."""
        self._answer(PAGE)

    def do_POST(self) -> None:
        """Answer with the SHA-256 of what was sent."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(hashlib.sha256(body).hexdigest().encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Say nothing: the gateway's log is what is shown."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    """The default, 5, makes some of the demo's clients wait for a second SYN, a second later."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away, as when the demo is interrupted."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typeshed is narrower


@contextmanager
def intranet_server(host: str, port: int) -> Iterator[None]:
    """Serve at this address while the block runs. Raises OSError, which names it, when it is taken."""
    try:
        bound = _Server((host, port), _Pages)
    except OSError as error:
        what = f"its server cannot listen on {host}:{port}: {error.strerror}"
        raise OSError(error.errno, what) from None
    with bound as server:
        thread = Thread(target=server.serve_forever, name="intranet", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
