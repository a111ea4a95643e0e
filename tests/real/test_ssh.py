"""OpenSSH, and git over it."""

import os
import pwd
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.gateway import Gateway, rule, ruleset
from tests.real.files import sha256, write_random
from tests.real.programs import Address, answers, find, free_address, records, run, running

GIB = 1 << 30
SEPARATION = Path("/run/sshd")
"""Where sshd, as root, shuts in its unprivileged half; otherwise made by the service that nobody started."""
USER = pwd.getpwuid(os.geteuid()).pw_name


@dataclass(frozen=True)
class Sshd:
    """A running server, and what its client wants."""

    address: Address
    folder: Path

    def options(self, port: int) -> list[str]:
        """Give the options of ssh and scp that know this server at `port`, and nothing else of this host."""
        kind, key, *_ = (self.folder / "host.pub").read_text().split()
        known = self.folder / f"known-{port}"
        known.write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
        options = {
            "IdentityFile": self.folder / "user",
            "IdentityAgent": "none",
            "UserKnownHostsFile": known,
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "Port": port,
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return ["-F", "none", *words]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Run sshd with keys and settings of its own."""
    server = find("sshd")
    folder = tmp_path_factory.mktemp("sshd")
    for key in ("host", "user"):
        run([find("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)])
    host, port = free_address()
    (folder / "config").write_text(
        f"ListenAddress {host}:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PidFile none\nSubsystem sftp internal-sftp\nPermitRootLogin prohibit-password\n"
    )
    with separation():
        command = [server, "-D", "-e", "-f", str(folder / "config")]
        with running(command, lambda: answers((host, port)), folder):
            yield Sshd((host, port), folder)


@contextmanager
def separation() -> Iterator[None]:
    """Make the folder that sshd insists on, and take it away again if it was not there."""
    is_mine = not os.geteuid() and not SEPARATION.exists()
    if is_mine:
        SEPARATION.mkdir(mode=0o755)
    yield
    if is_mine:
        SEPARATION.rmdir()


@pytest.fixture
def gateway(sshd: Sshd) -> Iterator[Gateway]:
    """Give a gateway before it."""
    with Gateway.start(ruleset(rule("ssh", "{}:{}".format(*sshd.address)))) as started:
        yield started


def test_login(sshd: Sshd, gateway: Gateway) -> None:
    """A login by key runs a command; its input, output and exit status pass."""
    data = random.Random(3).randbytes(1 << 20)
    command = [find("ssh"), *sshd.options(gateway.port("ssh")), f"{USER}@127.0.0.1", "cat; exit 7"]
    assert run(command, stdin=data, status=7) == data
    (record,) = records(gateway, "ssh")
    assert record["up"] > len(data)
    assert record["down"] > len(data)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["up", "down"])
def test_scp_of_one_gib(sshd: Sshd, gateway: Gateway, tmp_path: Path, way: str) -> None:
    """A file of 1 GiB arrives as it was, either way."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    try:
        checksum = write_random(source, GIB)
        names = [str(source), f"{USER}@127.0.0.1:{copy}"]
        if way == "down":
            names = [f"{USER}@127.0.0.1:{source}", str(copy)]
        run([find("scp"), "-q", *sshd.options(gateway.port("ssh")), *names])
        assert sha256(copy) == checksum
    finally:
        for each in (source, copy):  # pytest keeps the folders of its last runs
            each.unlink(missing_ok=True)
    (record,) = records(gateway, "ssh")
    assert GIB < record[way] < GIB * 1.05
    assert record["down" if way == "up" else "up"] < GIB * 0.05


def test_git_clone(sshd: Sshd, gateway: Gateway, tmp_path: Path) -> None:
    """A clone over ssh has every commit and passes git's own check."""
    git = find("git")
    env = {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_SSH_COMMAND": " ".join([find("ssh"), *sshd.options(gateway.port("ssh"))]),
        **{
            f"GIT_{who}_{what}": "a@b.example"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    run([git, "init", "-q", str(origin)], env=env)
    for number in range(5):
        write_random(origin / f"file{number}", 2 << 20, number)
        run([git, "-C", str(origin), "add", "."], env=env)
        run([git, "-C", str(origin), "commit", "-q", "-m", f"commit {number}"], env=env)
    run([git, "clone", "-q", f"ssh://{USER}@127.0.0.1{origin}", str(clone)], env=env)
    run([git, "-C", str(clone), "fsck", "--strict"], env=env)
    heads = [run([git, "-C", str(each), "rev-parse", "HEAD"], env=env) for each in (origin, clone)]
    assert heads[0] == heads[1]
    assert all(sha256(origin / f"file{each}") == sha256(clone / f"file{each}") for each in range(5))
    (record,) = records(gateway, "ssh")
    assert record["down"] > 10 << 20
