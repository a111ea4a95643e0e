"""The admin socket of real gateways, asked by `portway status` and by whoever else connects."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from appliance.supervisor.admin_wire import LARGEST_REQUEST
from tests.e2e import needs
from tests.e2e.gateway import PATIENCE, Gateway, children, open_fds, rule, ruleset, wait_for
from tests.e2e.peers import Echo, assert_idle, connect, echoes
from tests.program import program

STATUS = b'{"verb":"status"}\n'
NOBODY = 65532
"""The user of the container."""

DROP = """
import encodings.idna, os, sys
from appliance.__main__ import main
from appliance.cli import forward, status
group, user, python, option, package, *arguments = sys.argv[1:]
os.setgroups([])
os.setresgid(*[int(group)] * 3)
os.setresuid(*[int(user)] * 3)
main(arguments, prog_name="portway")
"""
"""Before the words of `python -m appliance`: starts it as another user, who need not be able to read it."""


def as_user(user: int, group: int) -> tuple[str, ...]:
    """Give what starts `python -m appliance` as a user and group."""
    return (sys.executable, "-c", DROP, str(group), str(user))


class Home:
    """The mount namespace of these tests, so that two runs on one machine have not the same `@`."""

    pid = os.getpid()
    wrap: tuple[str, ...] = ()


@pytest.fixture(scope="module", autouse=True)
def home() -> Iterator[None]:
    """Make it, where this user may: what holds it open is a process that waits for its input to end."""
    if not _can_unshare():
        yield
        return
    holder = subprocess.Popen(["unshare", "-m", "cat"], stdin=subprocess.PIPE)
    try:
        Home.pid, Home.wrap = holder.pid, inside(holder.pid)
        ours = _mount_namespace(os.getpid())
        wait_for("a mount namespace", lambda: _mount_namespace(holder.pid) != ours)
        yield
    finally:
        Home.pid, Home.wrap = os.getpid(), ()
        holder.communicate()


def inside(pid: int) -> tuple[str, ...]:
    """Give what starts a program in the mount namespace of a process."""
    return ("nsenter", "-t", str(pid), "-m")


def _can_unshare() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


def _mount_namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/mnt").readlink())


def status(
    *arguments: str,
    wrap: tuple[str, ...] | None = None,
    env: dict[str, str] | None = None,
    form: str | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run `portway status`."""
    return subprocess.run(
        [*(Home.wrap if wrap is None else wrap), *program(form), "status", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env={**os.environ, **(env or {})},
    )


def told(address: str) -> Any:
    """Give what `portway status --json` prints."""
    child = status("--admin", address, "--json")
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def is_healthy(address: str) -> bool:
    """Ask as a health check does."""
    return status("--admin", address, "--healthy").returncode == 0


def asked(address: str, request: bytes = STATUS) -> Any:
    """Ask over a socket of our own."""
    with opened(address) as peer:
        peer.sendall(request)
        return reply(peer)


def opened(address: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(PATIENCE)
    inode = _mount_namespace(Home.pid).removeprefix("mnt:[").removesuffix("]")
    peer.connect(f"\0portway/{inode}" if address == "@" else address)
    return peer


def reply(peer: socket.socket) -> Any:
    whole = bytearray()
    with suppress(ConnectionResetError):  # where the gateway has not read all that was sent
        while data := peer.recv(65536):
            whole += data
    assert whole.count(b"\n") == 1
    return json.loads(whole)


@contextmanager
def gateway(
    address: str, *rules: str, workers: int = 2, wrap: tuple[str, ...] | None = None, **more: Any
) -> Iterator[Gateway]:
    """Start a gateway whose ruleset names the admin socket."""
    text = ruleset(*(rules or (rule("way", 9),)), workers=workers)
    text = text.replace("[gateway]\n", f'[gateway]\nadmin = "{address}"\n')
    with Gateway.start(text, wrap=Home.wrap if wrap is None else wrap, **more) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"{tmp_path}/admin.sock"


@pytest.fixture(params=["path", "@"])
def address(request: pytest.FixtureRequest, path: str) -> str:
    return path if request.param == "path" else "@"


def test_status_tells_how_it_is(address: str) -> None:
    """Version, ruleset, listeners and workers are told as log and kernel have them, live counts too."""
    with (
        Echo() as echo,
        gateway(address, rule("way", echo.port), rule("udp", 9, protocol="udp")) as running,
        ExitStack() as ends,
    ):
        for _ in range(20):
            assert echoes(ends.enter_context(connect(running.address("way"))))
        got = told(address)
        (ready,) = running.events("ready")
        assert (got["pid"], got["version"], got["state"]) == (running.process.pid, ready["version"], "ready")
        rules = running.folder / "rules.toml"
        digest = subprocess.run(["sha256sum", rules], capture_output=True, text=True, check=True).stdout[:64]
        assert got["ruleset"] == {"path": str(rules), "sha256": digest, "rules": 2}
        listening = [(one["rule"], one["protocol"], one["listener"]) for one in running.events("listening")]
        assert [(one["rule"], one["protocol"], one["address"]) for one in got["listeners"]] == listening
        assert all(listener["bound"] for listener in got["listeners"])
        assert [worker["pid"] for worker in got["workers"]] == running.workers
        assert all(worker["ready"] for worker in got["workers"])
        assert sum(worker["sessions"] for worker in got["workers"]) == 20
        assert {worker["sessions_max"] for worker in got["workers"]} == {ready["sessions_max"]}
        screen = status("--admin", address)
        assert (screen.returncode, screen.stderr) == (0, "")
        for word in (digest, str(rules), running.events("listening")[0]["listener"], "ready", "way", "udp"):
            assert word in screen.stdout
        healthy = status("--admin", address, "--healthy")
        assert (healthy.returncode, healthy.stdout, healthy.stderr) == (0, "", "")


def test_the_option_and_the_variable(path: str) -> None:
    """`run --admin` and PORTWAY_ADMIN make a socket, `status` takes the same; what the ruleset names wins."""
    own, env = f"{path}.own", {"PORTWAY_ADMIN": path}
    forward = ("forward", "127.0.0.1:0", "a:1", "--admin", path)
    with Gateway.start("", verb=forward):
        assert status("--healthy", env=env).returncode == 0
    with Gateway.start(ruleset(rule("way", 9)), env=env):
        assert status("--healthy", env=env).returncode == 0
    with gateway(own, env=env):
        assert is_healthy(own)
        assert not is_healthy(path)


def test_without_one_there_is_none(path: str) -> None:
    """Off unless given: not even the abstract address."""
    with Gateway.start(ruleset(rule("way", 9))):
        for address in (path, "@"):
            child = status("--admin", address)
            assert child.returncode == 1
            assert child.stderr.splitlines()[0] == f"portway: no gateway listens at {address}"
            assert "hint: " in child.stderr


def test_a_worker_that_is_stopped(address: str) -> None:
    """A worker that does not answer is silent, the gateway not healthy, and it is again once it goes on."""
    with gateway(address) as running:
        stopped, going = running.workers
        os.kill(stopped, signal.SIGSTOP)
        for _ in range(2):
            assert [worker["state"] for worker in told(address)["workers"]] == ["silent", "ready"]
        child = status("--admin", address, "--healthy")
        assert child.returncode == 1
        assert child.stderr == "portway: not healthy: 1 of 2 workers is not ready\n"
        assert asked(address)["workers"][1]["pid"] == going
        os.kill(stopped, signal.SIGCONT)
        wait_for("healthy again", lambda: is_healthy(address))


def test_a_worker_that_was_silent_and_died(path: str) -> None:
    """What it owed its successor does not owe: that one is asked, and answers."""
    with gateway(path, workers=1) as running:
        (stopped,) = running.workers
        os.kill(stopped, signal.SIGSTOP)
        assert asked(path)["workers"][0]["state"] == "silent"
        os.kill(stopped, signal.SIGKILL)
        wait_for("healthy again", lambda: is_healthy(path))
        assert asked(path)["workers"][0]["pid"] == running.workers[0] != stopped


def test_a_worker_that_keeps_dying(address: str) -> None:
    """Its place is gone, its sessions too, while it waits to be filled; then it has the newcomer's pid."""
    with Echo() as echo, gateway(address, rule("way", echo.port), workers=1) as running:
        for number in range(5):
            wait_for("a worker", lambda: asked(address)["workers"][0]["ready"])
            with connect(running.address("way")) as client:
                assert echoes(client)
                (worker,) = asked(address)["workers"]
                assert worker["sessions"] == 1
                os.kill(worker["pid"], signal.SIGKILL)
                running.await_event("worker_ended", number + 1)
        (worker,) = asked(address)["workers"]  # the next one comes after 0.8 s
        assert (worker["state"], worker["pid"], worker["ready"], worker["sessions"]) == ("gone", 0, False, 0)
        assert not is_healthy(address)
        wait_for("healthy again", lambda: is_healthy(address))
        assert asked(address)["workers"][0]["pid"] == running.workers[0]


def test_a_gateway_that_drains(address: str) -> None:
    """While it drains it answers, and says so: not healthy, no listener bound, its sessions still there."""
    with Echo() as echo, gateway(address, rule("way", echo.port)) as running:
        with connect(running.address("way")) as client:
            assert echoes(client)
            running.process.send_signal(signal.SIGTERM)
            running.await_event("draining")
            got = told(address)
            assert got["state"] == "draining"
            assert [listener["bound"] for listener in got["listeners"]] == [False]
            assert sum(worker["sessions"] for worker in got["workers"]) == 1
            child = status("--admin", address, "--healthy")
            assert (child.returncode, child.stderr) == (1, "portway: not healthy: the gateway is draining\n")
            assert echoes(client)
        assert running.process.wait(PATIENCE) == 0
        assert not is_healthy(address)


def test_a_gateway_that_is_stopped(path: str) -> None:
    """A master that does not answer is told as that, after some seconds and not for ever."""
    with gateway(path) as running:
        running.process.send_signal(signal.SIGSTOP)
        child = status("--admin", path, "--healthy")
        running.process.send_signal(signal.SIGCONT)
        assert child.returncode == 1
        assert "did not answer within 5 s" in child.stderr
        assert is_healthy(path)


@pytest.mark.parametrize(
    "request_",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"{}\n",
        b"null\n",
        b'{"verb":"apply"}\n',
        b"\xff\xfe\n",
        b"[" * 4000 + b"\n",
        b"x" * (LARGEST_REQUEST + 1),
        b"\0" * 1_000_000,
    ],
    ids=lambda request_: repr(request_[:12]),
)
def test_garbage(path: str, request_: bytes) -> None:
    """It gets one line with an error, leaves nothing open, and costs nobody anything."""
    with gateway(path) as running:
        before = open_fds(running.process.pid)
        with opened(path) as peer:
            with suppress(BrokenPipeError, ConnectionResetError):  # it is not read to its end
                peer.sendall(request_)
            assert list(reply(peer)) == ["error"]
        assert is_healthy(path)
        wait_for("nothing left open", lambda: open_fds(running.process.pid) == before)


def test_half_a_request_is_in_nobodys_way(path: str) -> None:
    """While it is held open others are answered, the master is idle, and after 5 s it is told to go."""
    with gateway(path) as running, opened(path) as half:
        half.sendall(STATUS[:9])
        assert is_healthy(path)
        assert_idle(running.process.pid)
        assert "no request within 5 s" in reply(half)["error"]


def test_a_hundred_at_once(address: str) -> None:
    """Whether they ask late or never, everyone who asks is answered, also `status` that comes last."""
    with gateway(address) as running, ExitStack() as ends:
        before = open_fds(running.process.pid)
        asking = [ends.enter_context(opened(address)) for _ in range(100)]
        for peer in asking:
            peer.sendall(STATUS)
        assert {reply(peer)["state"] for peer in asking} == {"ready"}
        for _ in range(100):
            ends.enter_context(opened(address))
        assert is_healthy(address)
        assert open_fds(running.process.pid) <= before + 16
        assert_idle(running.process.pid)


def test_a_reader_that_does_not_read(path: str) -> None:
    """A reply that fills the socket waits for its reader alone."""
    ports = ",".join(f'"127.0.0.{number}:0"' for number in range(2, 250))
    listen = f'[[rule]]\nname = "{"n" * 63}"\nlisten = [{ports}]\nto = "a:1"\n'
    many = "".join(listen.replace("n" * 63, f"{number:063}") for number in range(12))
    with gateway(path, many, workers=1) as running, opened(path) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf.sendall(STATUS)
        wait_for("a reply", lambda: deaf.recv(1, socket.MSG_PEEK))
        assert is_healthy(path)
        assert len(reply(deaf)["listeners"]) == 12 * 248
        assert_idle(running.process.pid)


def test_a_worker_has_no_copy(path: str) -> None:
    """Neither of the socket nor of a connection: a worker that started meanwhile keeps no peer waiting."""
    with gateway(path, workers=1) as running, opened(path) as peer:
        os.kill(running.workers[0], signal.SIGKILL)
        running.await_event("worker_started", 2)
        wait_for("a worker", lambda: asked(path)["workers"][0]["ready"])
        assert _inodes(running.process.pid, path)
        assert not _inodes(running.workers[0], path)
        peer.sendall(STATUS)
        assert reply(peer)["state"] == "ready"


def _inodes(pid: int, path: str) -> set[str]:
    """Give the inodes of the sockets at `path` that a process has open."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    there = {f"socket:[{words[6]}]" for words in lines if words[-1] == path}
    return there & {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}  # noqa: PTH115


def test_who_may_ask(tmp_path: Path) -> None:
    """A path is for user and group whatever the umask, @ for the user; others are told that they may not."""
    needs.root()
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    path = f"{tmp_path}/admin.sock"
    with gateway(path, umask=0):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o660
        child = status("--admin", path, "--healthy", wrap=as_user(NOBODY, NOBODY), form="source")
        assert child.returncode == 1
        assert child.stderr.startswith(f"portway: not healthy: this user may not ask the gateway at {path}\n")
        assert status("--admin", path, wrap=as_user(NOBODY, os.getegid()), form="source").returncode == 0
    with gateway("@"):
        child = status("--admin", "@", wrap=(*Home.wrap, *as_user(NOBODY, os.getegid())), form="source")
        assert child.returncode == 1
        assert f"only user {os.geteuid()}, whose gateway it is, and root may ask" in child.stderr


def test_as_the_container_runs_it() -> None:
    """As a user who may write nowhere, on a read-only file system, `@` answers; root is answered, too."""
    needs.root()
    if not _can_unshare():
        needs.lack("this test must be able to make a mount namespace")
    alone = ("unshare", "-m", "sh", "-c", 'mount -o remount,bind,ro / && exec "$0" "$@"')
    serve = ("forward", "127.0.0.1:0", "127.0.0.1:9", "--admin", "@")
    nobody = as_user(NOBODY, NOBODY)
    with Gateway.start("", wrap=(*alone, *nobody), verb=serve, form="source") as running:
        pid = running.process.pid
        assert f"Uid:\t{NOBODY}\t{NOBODY}\t" in Path(f"/proc/{pid}/status").read_text()
        for user in (nobody, ()):
            child = status("--admin", "@", "--healthy", wrap=(*inside(pid), *user), form="source")
            assert (child.returncode, child.stderr) == (0, "")
        assert not is_healthy("@"), "in this mount namespace there is none"


def test_one_for_each_mount_namespace() -> None:
    """With `@` in two mount namespaces of one network they do not meet; in one the second is refused."""
    needs.root()
    if not _can_unshare():
        needs.lack("this test must be able to make a mount namespace")
    with gateway("@") as one, gateway("@", wrap=("unshare", "-m")) as other:
        assert told("@")["pid"] == one.process.pid
        there = status("--admin", "@", "--json", wrap=inside(other.process.pid))
        assert json.loads(there.stdout)["pid"] == other.process.pid
        second = refused(one.folder / "rules.toml")
        assert "cannot listen on the admin socket @: Address already in use" in second
        assert "another gateway in this mount namespace has it" in second


def refused(rules: Path) -> str:
    """Run a gateway that cannot start; give what it says."""
    child = subprocess.run(
        [*Home.wrap, *program(), "run", str(rules)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (child.returncode, child.stdout) == (1, "")
    assert "Traceback" not in child.stderr
    assert "hint: " in child.stderr
    return child.stderr


def test_two_gateways(path: str) -> None:
    """Each answers at its own path; a path that another one has is refused, and he keeps it."""
    with gateway(path) as one, gateway(f"{path}2") as other:
        assert (told(path)["pid"], told(f"{path}2")["pid"]) == (one.process.pid, other.process.pid)
        assert f"cannot listen on the admin socket {path}: Address already in use" in refused(
            one.folder / "rules.toml"
        )
        assert is_healthy(path)


def test_a_socket_that_cannot_be_made(tmp_path: Path) -> None:
    """It is a refusal at the start like a listener's: status 1, a hint, and nothing left behind."""
    rules = tmp_path / "rules.toml"
    front = tmp_path / "front.sock"
    text = ruleset(rule("way", 9, listen=f"unix:{front}"))
    for admin in (f"{tmp_path}/absent/admin.sock", str(rules), str(front)):
        rules.write_text(text.replace("[gateway]\n", f'[gateway]\nadmin = "{admin}"\n'))
        assert f"cannot listen on the admin socket {admin}: " in refused(rules)
        assert not front.exists()
    assert rules.read_text()


def test_the_file_goes_and_a_stale_one_is_no_obstacle(path: str) -> None:
    """At its end the gateway removes its socket; one that a killed gateway left is replaced."""
    with gateway(path) as killed:
        workers = children(killed.process.pid)
        killed.process.kill()
        killed.process.wait()
        assert Path(path).is_socket()
        child = status("--admin", path)
        assert child.returncode == 1
        assert f"no gateway listens at {path}" in child.stderr
        wait_for("its workers are gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        with gateway(path):
            assert is_healthy(path)
        assert not Path(path).exists()
        killed.process.returncode = 0  # it was killed by this test
