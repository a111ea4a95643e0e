"""`portway schema`: the JSON Schema of the ruleset."""

import click
import msgspec

from appliance.ruleset.schema import json_schema


@click.command(short_help="Print the JSON Schema of a ruleset, for editors.")
def schema() -> None:
    """Print the JSON Schema (draft 2020-12) of a ruleset, for editors."""
    click.echo(msgspec.json.format(msgspec.json.encode(json_schema())))
