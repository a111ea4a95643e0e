"""The container image beyond what every form does (tests/forms): confinement, health, contents."""

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from appliance import __version__
from tests.e2e import needs
from tests.e2e.gateway import children, rule, ruleset, wait_for
from tests.forms.container import ARCHIVE, RULES, Container, RunningContainer, engine

README = Path(__file__).parents[2] / "README.md"
USER = 65532
LARGEST_ARCHIVE = 14_000_000
LARGEST_PSS = 32_000_000
HEALTH = '["portway", "status", "--healthy"]'


@pytest.fixture(autouse=True)
def built() -> None:
    """The image is there, and podman."""
    Container().needs()


@pytest.fixture
def running() -> Iterator[RunningContainer]:
    """A container on one rule, with one worker."""
    with Container().start(ruleset(rule("web", 9))) as container:
        yield container


def processes(container: RunningContainer) -> list[int]:
    """The pids of a container: master and workers."""
    return [container.pid, *children(container.pid)]


def test_without_a_ruleset_it_shows_a_page() -> None:
    """Run as it is, port 8080 shows a page that says where the ruleset goes, and the visit has its record."""
    with Container(network="none").start_unmounted() as container:
        curl = ("curl", "--silent", "--show-error", "http://127.0.0.1:8080/")
        inside = ("nsenter", f"--net=/proc/{container.pid}/ns/net", *curl)
        pages = [subprocess.run(inside, capture_output=True, text=True, check=True).stdout for _ in range(2)]
        assert all(RULES in page for page in pages)
        records = container.sessions("welcome", 2)
        assert {record["cause"] for record in records} <= {"endpoint_eof", "client_eof"}
        assert all(record["down"] > len(pages[0]) for record in records)
        assert container.stop() == 0
        container.check()


def test_the_page_is_gone_with_its_rule(running: RunningContainer) -> None:
    """On a ruleset of one's own there is no process but the master and its worker."""
    assert len(processes(running)) == 2


def test_it_has_no_privilege(running: RunningContainer) -> None:
    """Every process runs as nobody that a host knows, without a capability, and may not get one."""
    for pid in processes(running):
        said = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert said["Uid"].split() == said["Gid"].split() == [str(USER)] * 4
        sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        assert {said[name] for name in sets} == {"0" * 16}
        assert said["NoNewPrivs"] == "1"


def test_it_needs_no_writable_path(running: RunningContainer) -> None:
    """Its root is mounted read-only, and no folder that it sees is one that its user may write to."""
    mounts = [line.split() for line in Path(f"/proc/{running.pid}/mountinfo").read_text().splitlines()]
    (options,) = [words[5] for words in mounts if words[4] == "/"]
    assert "ro" in options.split(",")
    root = Path(f"/proc/{running.pid}/root")
    folders = [Path(where) for where, _, _ in os.walk(root) if not Path(where).is_relative_to(root / "proc")]
    assert len(folders) > 10
    writable = [folder for folder in folders if is_writable(folder)]
    # POSIX queues, of which the engine makes a folder, are not files: podman mounts it whatever it is told.
    assert set(writable) <= {root / "dev" / "mqueue"}


def is_writable(folder: Path) -> bool:
    """Whether USER could make a file there, on a mount that is not read-only."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return False
    seen = folder.stat()
    mine = stat.S_IWUSR if seen.st_uid == USER else stat.S_IWGRP if seen.st_gid == USER else stat.S_IWOTH
    return bool(seen.st_mode & mine)


def test_master_and_worker_fit_in_little_memory(running: RunningContainer) -> None:
    """Master and one worker hold no more than 32 MB together, what they share counted once."""
    held = {pid: proportional_bytes(pid) for pid in processes(running)}
    assert len(held) == 2
    assert sum(held.values()) <= LARGEST_PSS, held


def proportional_bytes(pid: int) -> int:
    """What a process holds, its part of what is shared (proc(5), smaps_rollup)."""
    (line,) = [x for x in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if x.startswith("Pss:")]
    return int(line.split()[1]) * 1024


def test_the_health_check_sees_a_stuck_worker(running: RunningContainer) -> None:
    """The image's health check says yes, no while the worker does not answer, and yes again."""
    assert running.health().returncode == 0
    (worker,) = children(running.pid)
    os.kill(worker, signal.SIGSTOP)
    try:
        wait_for("a failing health check", lambda: running.health().returncode == 1)
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_for("a passing health check", lambda: running.health().returncode == 0)


def test_status_inside(running: RunningContainer) -> None:
    """`podman exec` finds `portway`, and its status is the gateway's."""
    told = running.execute("portway", "status", "--json")
    assert json.loads(told.stdout)["pid"] == 1, told.stderr


def test_as_an_oci_image_the_health_check_is_given() -> None:
    """What `podman load` takes is the image without its health check, which `--health-cmd` gives back."""
    plain = engine("oci-archive")
    assert plain.image == engine().image
    assert "Healthcheck" not in plain.inspect(plain.image)["Config"]
    with Container([f"--health-cmd={HEALTH}"], source="oci-archive").start(
        ruleset(rule("web", 9))
    ) as container:
        assert container.health().returncode == 0


def test_a_bad_ruleset_ends_it(tmp_path: Path) -> None:
    """A mounted ruleset with a mistake ends it with 2, and its log says where, and what to write."""
    bad = tmp_path / "rules.toml"
    bad.write_text('[[rule]]\nname = "web"\nlisen = ":80"\nto = "10.0.0.5:80"\n')
    ended = Container([f"--volume={bad}:{RULES}:ro"]).run()
    assert ended.returncode == 2
    assert f"{RULES}:3" in ended.stderr
    assert "hint: did you mean listen?" in ended.stderr


def test_the_way_of_a_newcomer(tmp_path: Path) -> None:
    """Each command of the README's way works, in that order."""
    section = README.read_text().partition("## In a container")[2].partition("\n## ")[0]
    commands = re.findall(r"^ {4}(podman (?:[^\\\n]|\\\n)*)$", section, re.MULTILINE)
    assert len(commands) > 8
    (tmp_path / "dist").symlink_to(ARCHIVE.parent)
    (tmp_path / "rules.toml").write_text(rule("web", 9, listen=":8080"))
    podman = own_podman(tmp_path / "bin" / "podman")
    where = {**os.environ, "PATH": f"{podman.parent}:{os.environ['PATH']}"}
    for command in commands:
        # A host's networks are not ours to publish ports on.
        here = command.partition("  #")[0].replace("--publish 8080:8080", "--network none")
        done = subprocess.run(
            ["sh", "-c", here], cwd=tmp_path, env=where, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        if "--detach" in command:
            await_ready(command.partition("--name ")[2].split()[0])


def await_ready(name: str) -> None:
    """Wait for a container's `ready`."""
    wait_for("ready", lambda: '"ready"' in engine().podman("logs", name).stdout)


def own_podman(path: Path) -> Path:
    """Write a podman that uses the store of these tests, and asks for no limit that may not be had."""
    first, *rest = engine().command()
    path.parent.mkdir()
    path.write_text(
        "#!/bin/sh\n"
        f'case $1 in run) shift; set -- run {shlex.join(engine().limits())} "$@" ;; esac\n'
        f'exec {shutil.which(first)} {shlex.join(rest)} "$@"\n'
    )
    path.chmod(0o755)
    return path


def test_there_is_nothing_to_run_but_portway(running: RunningContainer) -> None:
    """No shell and no other program is in the image: the loader and Portway are all that may be executed."""
    assert running.execute("sh", "-c", "true").returncode != 0
    assert {name for name, mode in files() if mode & 0o111} == {
        "portway/app/portway",
        next(name for name, _ in files() if "/ld-linux" in name),
    }


def files() -> list[tuple[str, int]]:
    """The files of the image, and their modes."""
    with tarfile.open(ARCHIVE) as archive:
        (described,) = json.load(member(archive, "manifest.json"))
        with tarfile.open(fileobj=member(archive, described["Layers"][0])) as layer:
            return [(entry.name, entry.mode) for entry in layer if not entry.isdir() and not entry.issym()]


def member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open a file of a tar."""
    found = archive.extractfile(name)
    assert found is not None
    return found


def test_every_file_is_explained() -> None:
    """The list beside the image has every file of it, with its owner and a reason."""
    listed = (ARCHIVE.parent / "portway-oci.contents.txt").read_text()
    assert [name for name, _ in files() if f" {name} " not in listed] == []
    assert re.search(r"libcrypto\.so\.3 .*libssl3 .* needed by ", listed)
    assert re.search(r"^python3\.11 +ssl +imported by ", listed, re.MULTILINE)


def test_the_archive_is_small() -> None:
    """The image takes no more than 14 MB to send."""
    assert ARCHIVE.stat().st_size <= LARGEST_ARCHIVE


def test_what_the_image_says_of_itself() -> None:
    """Labels and annotations are the OCI's, and the same; the user is a number; the version this tree's."""
    with tarfile.open(ARCHIVE) as archive:
        (described,) = json.load(member(archive, "manifest.json"))
        settings = json.load(member(archive, described["Config"]))
        (entry,) = json.load(member(archive, "index.json"))["manifests"]
        manifest = json.load(member(archive, "blobs/sha256/" + entry["digest"].removeprefix("sha256:")))
    labels = settings["config"]["Labels"]
    assert labels == manifest["annotations"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert settings["config"]["User"] == f"{USER}:{USER}"
    assert "Hostname" not in settings["config"]


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    """The archive, built once more in another folder, is the same to the byte."""
    needs.program("buildah")
    root = ARCHIVE.parent.parent
    other = tmp_path / "elsewhere"
    for part in ("appliance/__init__.py", "build", "image", "dist/folder", ".cache/freeze/work/portway"):
        (other / part).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", root / part, other / part], check=True)
    for note in (other / ".cache/freeze/work/portway").glob("*.toc"):  # as if it had been frozen there
        note.write_text(note.read_text().replace(f"{root}/", f"{other}/"))
    for environment in (root / ".cache/freeze").glob("venv-*"):
        (other / ".cache/freeze" / environment.name).symlink_to(environment)
    with tarfile.open(ARCHIVE) as archive:
        (described,) = json.load(member(archive, "manifest.json"))
        labels = json.load(member(archive, described["Config"]))["config"]["Labels"]
    subprocess.run(
        ["/usr/bin/python3.11", "-m", "image.container.build"],
        cwd=other,
        env={**os.environ, "PORTWAY_REVISION": labels.get("org.opencontainers.image.revision", "")},
        check=True,
        capture_output=True,
    )
    assert (other / "dist" / ARCHIVE.name).read_bytes() == ARCHIVE.read_bytes()
