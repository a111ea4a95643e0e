"""The forms that are processes of this host: from source, as one file, as a folder."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.gateway import PATIENCE, Gateway
from tests.forms.form import Form, Running
from tests.program import program


class LocalGateway(Running):
    """A process, and its log in a file."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def log(self) -> str:
        """Read the file, and what it complained about."""
        return self._gateway.stderr + self._gateway.log.read_text()

    def is_running(self) -> bool:
        """Look at the process."""
        return self._gateway.process.poll() is None

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        self._gateway.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Reap the process."""
        return self._gateway.process.wait(timeout)


class Local(Form):
    """A program of this host."""

    def __init__(self, name: str) -> None:
        self.name = name

    def needs(self) -> None:
        """Be built."""
        program(self.name)

    @contextmanager
    def start(self, rules: str) -> Iterator[LocalGateway]:
        """Run it on a file."""
        with Gateway.start(rules, form=self.name) as gateway:
            yield LocalGateway(gateway)

    def run(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run it."""
        command = [*program(self.name), *words]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
