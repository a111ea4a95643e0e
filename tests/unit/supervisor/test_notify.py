"""Telling the service manager: it is told where it listens, and nothing else is disturbed."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.supervisor.notify import notify, watchdog_pause


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(address)
        datagrams.settimeout(20)
        yield datagrams


def test_a_state_is_one_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state arrives as it is, with nothing around it."""
    with manager(f"{tmp_path}/notify") as datagrams:
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        notify("READY=1")
        assert datagrams.recv(100) == b"READY=1"


def test_an_abstract_socket_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leading @ is the NUL of the abstract namespace (sd_notify(3))."""
    name = f"portway-test-{os.getpid()}"
    with manager(f"\0{name}") as datagrams:
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("STOPPING=1")
        assert datagrams.recv(100) == b"STOPPING=1"


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, an empty one, or one that names no unix socket: not even a socket is made."""

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr("appliance.supervisor.notify.socket.socket", refuse)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    for address in ("", "relative", "vsock:2:1234"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")


@pytest.mark.parametrize("kind", ["absent", "closed", "a-file"])
def test_a_manager_that_is_gone_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Forwarding does not depend on who is told about it."""
    path = tmp_path / "notify"
    if kind == "closed":
        with manager(str(path)):
            pass
    elif kind == "a-file":
        path.touch()
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    notify("READY=1")


def test_a_manager_that_does_not_read_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its queue full the state is lost, and the loop goes on."""
    with manager(f"{tmp_path}/notify") as datagrams:
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        for _ in range(2000):  # far beyond net.unix.max_dgram_qlen
            notify("READY=1")
        assert datagrams.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("allowed", "meant_for", "pause"),
    [
        ("30000000", None, 15.0),
        ("30000000", "", 15.0),
        ("30000000", "ours", 15.0),
        ("3000", "ours", 0.0015),
        ("30000000", "1", None),
        ("30000000", "nonsense", None),
        (None, "ours", None),
        ("", "ours", None),
        ("0", None, None),
        ("-5", None, None),
        ("30s", None, None),
        ("\u0663", None, None),
    ],
)
def test_half_of_what_the_manager_allows(
    monkeypatch: pytest.MonkeyPatch, allowed: str | None, meant_for: str | None, pause: float | None
) -> None:
    """Where it asks this process for signs of life; what is no number of microseconds asks for none."""
    for name, value in (("WATCHDOG_USEC", allowed), ("WATCHDOG_PID", meant_for)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(os.getpid()) if value == "ours" else value)
    assert watchdog_pause() == pause
