"""The command `portway`, and `python -m appliance`."""

import errno
import importlib
import os
import signal
import sys
from contextlib import suppress
from typing import Any, Final

import click

from appliance import __version__
from appliance.program import settle

VERBS: Final = {
    "run": "run",
    "forward": "forward",
    "demo": "demo",
    "check": "check",
    "status": "status",
    "reload": "reload",
    "enroll": "enroll",
    "agent": "agent",
    "agents": "agents",
    "revoke": "revoke",
    "schema": "schema",
    "source": "source",
    "install": "install",
    "uninstall": "uninstall",
    "machine": "machine",
}
"""Each verb, and the module of `appliance.cli` that has it."""

INTERRUPTED: Final = 128 + signal.SIGINT
"""Exit status: Ctrl-C, as shells give it."""

_HINTS: Final = {
    errno.EMFILE: "this process may not have as many files as it needs; raise `ulimit -n`",
    errno.ENFILE: "this host has no file descriptor left; raise fs.file-max",
}


class Verbs(click.Group):
    """The verbs, each imported when it is called: `portway run` need not wait for what `check` imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  as click calls it
        """Name the verbs in the order in which a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  same
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"appliance.cli.{VERBS[cmd_name]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; Ctrl-C, until the verb has its own use for it, ends it without further words."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; what this host refuses (a full disk, files) is a sentence and status 1."""
        try:
            return super().main(*args, **extra)
        except OSError as error:
            _fail(error)


def _fail(error: OSError) -> None:
    from appliance.cli.problems import complain  # noqa: PLC0415  wanted only here

    where = f"{error.filename}: " if error.filename else ""
    _let_go(sys.stdout)
    with suppress(OSError):
        complain(f"{where}{error.strerror or error}", _HINTS.get(error.errno or 0))
    _let_go(sys.stderr)
    raise SystemExit(1) from None


def _let_go(stream: Any) -> None:
    """Send what a stream still holds to nowhere, or Python would fail once more to write it at the end."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="portway")
def main() -> None:
    """Expose the servers of an intranet: forward ports by one ruleset."""


if __name__ == "__main__":
    settle()
    main(prog_name="portway")
