"""`portway machine`, where it is not PID 1."""

from click.testing import CliRunner

from appliance.__main__ import main


def test_it_is_only_for_pid_1() -> None:
    """On any other machine the verb does nothing, says what it is, and names the one that was meant."""
    result = CliRunner().invoke(main, ["machine"])
    assert result.exit_code == 1
    assert result.output == (
        "portway: this is PID 1 of the VM image, and this process is not\n"
        "  hint: portway run RULESET is the gateway\n"
    )
