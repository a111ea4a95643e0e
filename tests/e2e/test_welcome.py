"""The page that `portway run --welcome` shows to whoever mounted no ruleset (the container image says it)."""

import contextlib
import os
import signal
import socket
from http.client import HTTPConnection

from tests.e2e.gateway import Gateway, rule, ruleset, state, wait_for


class Killed(Exception):  # noqa: N818  no error
    """The gateway was killed, as was meant."""


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def ended(pid: int) -> bool:
    """Whether a process is gone, or nobody has waited for it yet."""
    try:
        return state(pid) == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_page_and_its_end() -> None:
    """Through the gateway comes the page; its process ends when the gateway was killed."""
    port = free_port()
    env = {"PORTWAY_WELCOME": f"127.0.0.1:{port}"}
    with contextlib.suppress(Killed), Gateway.start(ruleset(rule("welcome", port)), env=env) as gateway:
        for method in ("GET", "HEAD"):
            client = HTTPConnection(*gateway.address("welcome"), timeout=20)
            client.request(method, "/")
            assert client.getresponse().status == 200
            client.close()
        everyone = gateway.workers
        assert len(everyone) == 2
        os.kill(gateway.process.pid, signal.SIGKILL)
        gateway.process.wait()
        wait_for("the end of the page's process", lambda: all(ended(pid) for pid in everyone))
        raise Killed  # its status is none that the end of the block would take


def test_no_page_without_a_rule_to_it() -> None:
    """On a ruleset that does not forward to the page there is nobody to show it."""
    with Gateway.start(ruleset(rule("web", 9)), env={"PORTWAY_WELCOME": "127.0.0.1:18081"}) as gateway:
        assert len(gateway.workers) == 1


def test_a_page_that_cannot_be_shown() -> None:
    """Where its address is taken the gateway says so, and runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        rules = ruleset(rule("welcome", port))
        with Gateway.start(rules, env={"PORTWAY_WELCOME": f"127.0.0.1:{port}"}) as gateway:
            assert f"cannot be shown at 127.0.0.1:{port}: Address already in use" in gateway.stderr
