"""The command `portway`, and `python -m appliance`."""

import importlib
from typing import Final

import click

from appliance import __version__

VERBS: Final = {
    "run": "run",
    "forward": "forward",
    "demo": "demo",
    "check": "check",
    "schema": "schema",
}
"""Each verb, and the module of `appliance.cli` that has it."""


class Verbs(click.Group):
    """The verbs, each imported when it is called: `portway run` need not wait for what `check` imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Name the verbs in the order in which a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"appliance.cli.{VERBS[cmd_name]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="portway")
def main() -> None:
    """Expose the servers of an intranet: forward ports by one ruleset."""


if __name__ == "__main__":
    main(prog_name="portway")
