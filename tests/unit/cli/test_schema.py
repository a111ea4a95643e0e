"""`portway schema`."""

import json

from click.testing import CliRunner

from appliance.__main__ import main
from appliance.ruleset.schema import json_schema


def test_the_schema_is_printed() -> None:
    """The schema goes to stdout as indented JSON, and the exit status is 0."""
    result = CliRunner().invoke(main, ["schema"], catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(json.dumps(json_schema()))
    assert result.stdout.startswith('{\n  "$schema"')
