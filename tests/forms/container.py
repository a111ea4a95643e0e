"""The container form: podman with runc, on a root that nobody writes to, without a capability, in 32 MB."""

import atexit
import functools
import json
import resource
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.e2e import needs
from tests.e2e.gateway import PATIENCE, state, wait_for
from tests.forms.form import Form, Running

ROOT: Final = Path(__file__).parent.parent.parent
ARCHIVE: Final = ROOT / "dist" / "portway-oci.tar"

RULES: Final = "/etc/portway/rules.toml"
"""Where the image wants its ruleset."""

MEMORY: Final = 32 << 20

CONFINED: Final = (
    "--read-only", "--read-only-tmpfs=false", "--ipc=none", "--cap-drop=ALL",
    "--security-opt=no-new-privileges", f"--memory={MEMORY}", "--pids-limit=8",
)  # fmt: skip
"""What the image is promised to be content with."""

_PROCESSES: Final = 32768
"""What podman asks for where nobody says another number, and may not have everywhere."""


class Engine:
    """Podman with a store of its own, which nobody else sees and which is gone at the end."""

    def __init__(self, source: str) -> None:
        """`source`: the archive, in the transport it is to be read by: `oci-archive` or `docker-archive`."""
        self._folder = tempfile.TemporaryDirectory(prefix="portway-podman-")
        atexit.register(self.close)
        self.image = self.podman("pull", "--quiet", f"{source}:{ARCHIVE}").stdout.strip()

    def podman(self, *words: str, check: bool = True, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a podman command to its end."""
        done = subprocess.run(
            self.command(*words), input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def command(self, *words: str) -> list[str]:
        """Give the words of a podman command."""
        store = Path(self._folder.name)
        places = (f"--root={store / 'root'}", f"--runroot={store / 'run'}", f"--tmpdir={store / 'tmp'}")
        how = ("--log-level=fatal", "--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=none")
        return ["podman", *how, *places, *words]

    def run_words(self, *options: str, network: str = "host") -> tuple[str, ...]:
        """Give the words of `podman run`, up to those that go before the image."""
        logs = "--log-driver=k8s-file"
        return ("run", *self.limits(), f"--network={network}", logs, *CONFINED, *options)

    def limits(self) -> tuple[str, ...]:
        """Give the options of `podman run` that make do without CAP_SYS_RESOURCE."""
        files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 20000)
        return (f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={_PROCESSES}:{_PROCESSES}")

    def inspect(self, name: str) -> dict[str, Any]:
        """Give what podman knows of a container or an image."""
        (found,) = json.loads(self.podman("inspect", name).stdout)
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        """Remove it all."""
        self.podman("rm", "--force", "--all", "--time=0", check=False)
        self._folder.cleanup()


@functools.cache
def engine(source: str = "docker-archive") -> Engine:
    """Give the session's podman, with the image in it. As an OCI image it would have no health check."""
    return Engine(source)


class RunningContainer(Running):
    """A container; its log is what `podman logs` says."""

    def __init__(self, podman: Engine, identity: str) -> None:
        self._podman = podman
        self.identity = identity
        self.pid = int(podman.inspect(identity)["State"]["Pid"])
        """On this host, of the master."""

    def log(self) -> str:
        """Ask podman; what it complained about comes first."""
        told = self._podman.podman("logs", self.identity)
        return told.stderr + told.stdout

    def is_running(self) -> bool:
        """Look at its first process."""
        try:
            return bool(self.pid) and state(self.pid) != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def ask_to_stop(self) -> None:
        """`podman stop`, which waits, for us too."""
        stop = self._podman.command("stop", f"--time={PATIENCE:.0f}", self.identity)
        self._stopping = subprocess.Popen(stop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end, and until the log is whole."""
        wait_for("the container's end", lambda: not self.is_running(), timeout)
        status = int(self._podman.podman("wait", self.identity).stdout)
        if (stopping := getattr(self, "_stopping", None)) is not None:
            stopping.wait(timeout)
        return status

    def health(self) -> "subprocess.CompletedProcess[str]":
        """Run the health check that the image names."""
        return self._podman.podman("healthcheck", "run", self.identity, check=False)

    def execute(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`podman exec`."""
        return self._podman.podman("exec", self.identity, *words, check=False)


class Container(Form):
    """The image, under podman."""

    name = "container"

    def __init__(
        self, options: Sequence[str] = (), network: str = "host", source: str = "docker-archive"
    ) -> None:
        """`options` of `podman run` beside the usual ones; `source` as for `engine`."""
        self._options = options
        self._network = network
        self._source = source

    def needs(self) -> None:
        """Be built; podman, runc and root."""
        for name in ("podman", "runc", "conmon"):
            needs.program(name)
        needs.root()
        if not ARCHIVE.exists():
            needs.lack(f"{ARCHIVE.relative_to(ROOT)} is not built (`make image`)")

    @contextmanager
    def start(self, rules: str) -> Iterator[RunningContainer]:
        """Mount the ruleset where the image wants it, and run the image."""
        with tempfile.TemporaryDirectory(prefix="portway-test-") as folder:
            path = Path(folder, "rules.toml")
            path.write_text(rules)
            path.chmod(0o644)
            with self._running(f"--volume={path}:{RULES}:ro") as running:
                running.await_record("ready")
                yield running

    @contextmanager
    def start_unmounted(self) -> Iterator[RunningContainer]:
        """Run the image as it is."""
        with self._running() as running:
            running.await_record("ready")
            yield running

    @contextmanager
    def _running(self, *options: str) -> Iterator[RunningContainer]:
        podman = engine(self._source)
        words = podman.run_words("--detach", *self._options, *options, network=self._network)
        identity = podman.podman(*words, podman.image).stdout.strip()
        try:
            yield RunningContainer(podman, identity)
        finally:
            podman.podman("rm", "--force", "--time=0", identity)

    def run(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run the image with a verb, to its end."""
        podman = engine(self._source)
        options = podman.run_words("--rm", "--interactive", *self._options, network=self._network)
        return podman.podman(*options, podman.image, *words, check=False, stdin=stdin)
