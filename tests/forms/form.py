"""One form of the program, as the suite of `test_forms.py` meets it: started on a ruleset, read, and ended.

    form.needs()
    with form.start(rules_text) as running:
        client.connect(running.address("web"))
        record = running.sessions("web")[0]
        running.ask_to_stop()
        assert running.wait() == 0

A form says in a module of its own how that is done. The peers of a test are always on the test's host, which
the started program reaches at `endpoint_host`; a rule listens at an address that `listen()` gave.
"""

import json
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from tests.e2e.gateway import PATIENCE, Record, wait_for

if TYPE_CHECKING:
    from subprocess import CompletedProcess


class Running(ABC):
    """A gateway that was started, up to the end of it and beyond: its log can be read after that, too."""

    @abstractmethod
    def log(self) -> str:
        """Give everything that came out so far; lines that begin with "{" are records."""

    @abstractmethod
    def is_running(self) -> bool:
        """Say whether it has not ended."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Ask for an orderly end: SIGTERM, `podman stop`, the power button. Does not wait for it."""

    @abstractmethod
    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; give the exit status."""

    def health(self) -> "CompletedProcess[str] | None":
        """Ask it for its health as its form does that (`portway status --healthy`); None where nobody can."""
        return None

    def stop(self) -> int:
        """End it in order; give the exit status."""
        if self.is_running():
            self.ask_to_stop()
        return self.wait()

    # -- what it says ---------------------------------------------------------------------------------

    def records(self, event: str | None = None) -> list[Record]:
        """Give every whole record so far; with a name only those events."""
        lines = self.log().split("\n")[:-1]
        found: list[Record] = [json.loads(line) for line in lines if line.startswith("{")]
        return found if event is None else [record for record in found if record["event"] == event]

    def await_record(self, event: str, count: int = 1, *, rule: str | None = None) -> list[Record]:
        """Wait for so many events of that name, of one rule or any; give all there are."""

        def seen() -> list[Record]:
            return [one for one in self.records(event) if rule is None or one["rule"] == rule]

        def there() -> bool:
            found = len(seen()) >= count
            if not found and not self.is_running() and len(seen()) < count:
                raise AssertionError(f"it ended without {count} x {event}: {self.log()[-2000:]}")
            return found

        wait_for(f"{count} x {event} of {rule or 'any rule'}", there)
        return seen()

    def sessions(self, rule: str, count: int = 1) -> list[Record]:
        """Wait until so many sessions of a rule have their record, and no more."""
        found = self.await_record("session", count, rule=rule)
        assert len(found) == count, found
        return found

    def address(self, rule: str) -> tuple[str, int]:
        """Where the test's clients reach a rule: its port, on this host's loopback."""
        listening = self.await_record("listening", rule=rule)
        return "127.0.0.1", int(listening[0]["listener"].rpartition(":")[2])

    def check(self) -> None:
        """Fail on whatever a gateway must never leave behind."""
        assert not self.records("internal_error"), self.records("internal_error")
        assert "Traceback" not in self.log(), self.log()


class Form(ABC):
    """One way to have Portway."""

    name: str
    endpoint_host = "127.0.0.1"
    """The host at which what was started reaches servers of the test's host."""

    @abstractmethod
    def needs(self) -> None:
        """Skip the test, or in CI fail it (`needs.lack`), where this form is not built or cannot run."""

    def listen(self) -> str:
        """Give an address for a rule to listen at: of the test's host, or forwarded from the same port there.

        A form that must know its ports before it starts gives a free one; for others the kernel picks.
        """
        return "127.0.0.1:0"

    @abstractmethod
    def start(self, rules: str) -> AbstractContextManager[Running]:
        """Start on a ruleset's text and wait for `ready`; leaving the block ends it, however it is."""

    @abstractmethod
    def run(self, *words: str, stdin: str = "") -> "CompletedProcess[str] | None":
        """Run the command line with these words to its end; None where this form has none."""
