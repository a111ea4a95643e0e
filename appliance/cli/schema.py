"""`portway schema`: the JSON Schema of the ruleset."""

import click
import msgspec

from appliance.ruleset.schema import json_schema


@click.command()
def schema() -> None:
    """Print the JSON Schema (draft 2020-12) of a ruleset, for editors."""
    click.echo(msgspec.json.format(msgspec.json.encode(json_schema())))
