"""The asking side of the admin socket."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from appliance.supervisor.admin_wire import admin_sockaddr, ask


def test_where_an_address_is() -> None:
    """A path is itself; @ is a name that has the mount namespace in it."""
    assert admin_sockaddr("/run/a.sock") == "/run/a.sock"
    name = Path("/proc/self/ns/mnt").readlink().name  # mnt:[4026531841]
    assert admin_sockaddr("@") == f"\0portway/{name.removeprefix('mnt:[').removesuffix(']')}"


def test_a_reply_is_read_to_its_end(tmp_path: Path) -> None:
    """However long, and in however many pieces; the request is one line."""
    path = str(tmp_path / "s")
    got: list[bytes] = []

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            got.append(peer.recv(100))
            peer.sendall(b"x" * 1_000_000)
            peer.sendall(b"y")

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        server = threading.Thread(target=serve)
        server.start()
        assert ask(path, b"{}") == b"x" * 1_000_000 + b"y"
        server.join()
    assert got == [b"{}\n"]


def test_a_reply_may_come_before_the_request(tmp_path: Path) -> None:
    """One that refuses, and hangs up, without having read is heard all the same."""
    path = str(tmp_path / "s")

    class Late(bytes):
        """A request whose sender is slow."""

        def __add__(self, other: Any) -> bytes:
            server.join()
            return bytes(self) + bytes(other)

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            peer.sendall(b"no\n")

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        server = threading.Thread(target=serve)
        server.start()
        assert ask(path, Late(b"{}")) == b"no\n"


def test_silence_is_not_waited_for_long(tmp_path: Path) -> None:
    """Whoever does not answer, and a queue that is full, are a TimeoutError."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(0)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                ask(path, b"{}", patience=0.05)
        with socket.socket(socket.AF_UNIX) as one:
            one.setblocking(False)
            with pytest.raises(BlockingIOError):  # so it was full
                one.connect(path)


def test_nobody_there(tmp_path: Path) -> None:
    """The kernel's error, as it is."""
    with pytest.raises(FileNotFoundError):
        ask(str(tmp_path / "s"), b"{}")
