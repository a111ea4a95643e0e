"""The command as a newcomer meets it: verbs, help, version, and what a slip of the finger gets."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from appliance import __version__
from appliance.__main__ import VERBS, main


def test_help_lists_the_verbs() -> None:
    """Every verb with a sentence, in the order in which they are needed."""
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    commands = result.output.partition("Commands:")[2].strip().splitlines()
    assert [line.split()[0] for line in commands] == [verb for verb in VERBS if verb != "machine"]  # hidden
    assert all(len(line.split()) > 3 for line in commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("verb", list(VERBS))
def test_each_verb_has_help(verb: str, option: str) -> None:
    """What it is called by is what it is called, and it says what it does."""
    result = CliRunner().invoke(main, [verb, option])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {verb} ")
    assert "\\" not in result.output


def test_examples_are_a_line_each() -> None:
    """What is there to be copied stands as it is typed."""
    result = CliRunner().invoke(main, ["forward", "--help"])
    assert "  portway forward :8080 10.0.0.5:80\n  portway forward 127.0.0.1:5432 db1" in result.output


def test_version() -> None:
    """One line, with the name of the command."""
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"portway, version {__version__}\n")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["forward"], ["forward", ":80"], ["run"], ["--nonsense"]]
)
def test_a_wrong_command_line_is_wrong_input(arguments: list[str]) -> None:
    """Exit status 2, with the usage and no traceback."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output
    assert "Error:" in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_verb_imports_only_what_it_needs() -> None:
    """`--version` imports no verb: what one of them needs must not slow or break the others."""
    code = (
        "import sys; from appliance.__main__ import main; main(['--version'], standalone_mode=False);"
        "print([name for name in sys.modules if name.startswith('appliance.cli.')])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.splitlines()[-1] == "[]"


def test_the_package_is_the_command() -> None:
    """`python -m appliance` is `portway`, under that name."""
    child = subprocess.run(
        [sys.executable, "-m", "appliance", "--help"], capture_output=True, text=True, check=True
    )
    assert child.stdout.startswith("Usage: portway ")


def test_an_unknown_verb_is_none() -> None:
    """The group says so as click wants it said."""
    assert isinstance(main, click.Group)
    assert main.get_command(click.Context(main), "nonsense") is None


EXAMPLES = Path(__file__).parents[3] / "examples"


def portway(shell: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `"$@"`, which is the command with these arguments, in a line of the shell."""
    command = ["sh", "-c", shell, "sh", sys.executable, "-m", "appliance", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", str(EXAMPLES / "web.toml")],
        ["check", "--json", str(EXAMPLES / "web.toml")],
        ["schema"],
        ["--help"],
        ["--version"],
        ["forward", "--help"],
    ],
)
def test_output_that_cannot_be_written(arguments: list[str]) -> None:
    """A full disk is a sentence on stderr and status 1; so is nobody to read, which needs no sentence."""
    child = portway('"$@" >/dev/full', *arguments)
    assert (child.returncode, child.stderr) == (1, "portway: No space left on device\n")
    assert portway('{ "$@"; echo $? >&2; } | :', *arguments).stderr in {"1\n", "0\n"}


def test_problems_that_cannot_be_written() -> None:
    """Where even stderr is full nothing is said, and the status still is."""
    assert portway('"$@" 2>/dev/full', "check", "nothing.toml").returncode == 1


def test_standard_input_that_is_closed() -> None:
    """It is a problem of the input, not of Portway."""
    child = portway('"$@" <&-', "check", "-")
    assert child.returncode == 2
    assert child.stderr.startswith("<stdin>: cannot be read: ")


@pytest.mark.parametrize(
    "arguments", [["run", str(EXAMPLES / "web.toml")], ["forward", "127.0.0.1:0", "a:1"]]
)
def test_hardly_any_files(arguments: list[str]) -> None:
    """With too few files to start a gateway a hint says what to raise; the status is 1."""
    child = portway('ulimit -n 7; exec "$@"', *arguments)
    assert child.returncode == 1
    assert "Traceback" not in child.stderr
    assert "ulimit -n" in child.stderr


def test_an_interrupt_before_a_verb_hears_it_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during start-up is an end like that of any program: status 130, and nothing more to read."""

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("appliance.cli.forward.serve", interrupt)
    result = CliRunner().invoke(main, ["forward", ":8080", "10.0.0.5:80"])
    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize("verb", ["run", "demo"])
def test_a_ruleset_that_is_not_there(tmp_path: Path, verb: str) -> None:
    """A problem with a hint and status 2."""
    result = CliRunner().invoke(main, [verb, str(tmp_path / "absent.toml")])
    assert result.exit_code == 2
    assert "cannot be read: No such file or directory" in result.output
    assert "hint:" in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("verb", ["run", "demo"])
def test_a_ruleset_with_problems(tmp_path: Path, verb: str) -> None:
    """All of them, with their places; nothing is started."""
    path = tmp_path / "bad.toml"
    path.write_text('[[rule]]\nname = "web"\nlisten = "80"\nto = "10.0.0.5"\n')
    result = CliRunner().invoke(main, [verb, str(path)])
    assert result.exit_code == 2
    assert f"{path}:3:10: rule[0].listen" in result.output
    assert f"{path}:4:6: rule[0].to" in result.output
    assert "2 problems" in result.output
