"""The page that a new user's first gateway forwards to: `portway run --welcome`, as the container image says.

A process of its own, forked before anything is opened, so that it shares the gateway's memory and none of its
sockets. It ends when master and workers have, who hold the other end of its pipe.
"""

import os
import select
import signal
import socket
from contextlib import suppress
from typing import Final, NoReturn

from appliance.cli.problems import complain
from appliance.ruleset import Ruleset
from appliance.values import TargetAddress

PAGE: Final = b"""\
Portway is at work: it has just forwarded you to this page.

It shows the page because it runs on the ruleset that it came with. Give it yours:

    podman run --volume ./rules.toml:/etc/portway/rules.toml:ro ...

The record of your visit is in its log.
"""

_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    % len(PAGE)
)
_LONGEST_HEAD: Final = 64 * 1024
_PATIENCE: Final = 1.0
"""Seconds that one client may keep the others waiting."""


def welcome(ruleset: Ruleset, address: TargetAddress) -> None:
    """Show the page at this address if a rule of the ruleset forwards there.

    Call it before any address is bound: the process would hold on to it.
    """
    if not any(to == address for rule in ruleset.rules for to in rule.to):
        return
    try:
        listening = socket.create_server((address.host, address.first_port))
    except OSError as error:
        complain(f"the page of welcome cannot be shown at {address}: {error.strerror}")
        return
    ends, _held = os.pipe()
    if not os.fork():
        os.close(_held)
        _show(listening, ends)
    listening.close()
    os.close(ends)


def _show(listening: socket.socket, ends: int) -> NoReturn:
    """Answer one client after the other until the gateway has ended."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        looked_at: list[int] = [listening.fileno(), ends]
        while ends not in select.select(looked_at, [], [])[0]:
            with suppress(OSError):
                _answer(listening.accept()[0])
    finally:
        os._exit(0)


def _answer(client: socket.socket) -> None:
    with client:
        client.settimeout(_PATIENCE)
        asked = b""
        while b"\r\n\r\n" not in asked and len(asked) < _LONGEST_HEAD:
            more = client.recv(4096)
            if not more:
                return
            asked += more
        client.sendall(_HEAD + PAGE)
