"""`portway check`, and how verbs read their ruleset."""

import json
import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from appliance.__main__ import main
from appliance.cli.ruleset_file import LARGEST, read_ruleset
from appliance.ruleset import Ruleset

GOOD = '[[rule]]\nname = "web"\nlisten = [":80", "127.0.0.1:8000-8009", "unix:/run/web.sock"]\nto = "a:1"\n'
BAD = '[[rule]]\nname = "web"\nlisten = 80\nto = "10.0.0.5"\n'


def run(*arguments: str, text: str | bytes | None = None) -> Result:
    """Run `portway check` with standard input."""
    return CliRunner().invoke(main, ["check", *arguments], input=text, catch_exceptions=False)


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a directory of one's own, and give the path of a ruleset in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "edge.toml"


def test_a_good_file_is_summed_up(edge: Path) -> None:
    """One line on stdout says what there is; :80 listens on both families; the exit status is 0."""
    edge.write_text(GOOD, encoding="utf-8")
    result = run("edge.toml")
    assert result.exit_code == 0
    assert result.stdout == "edge.toml: 1 rule, 13 listeners: no problems\n"
    assert result.stderr == ""


def test_problems_go_to_stderr(edge: Path) -> None:
    """Every problem is printed with line, caret and hint, then their number; the exit status is 2."""
    edge.write_text(BAD, encoding="utf-8")
    result = run("edge.toml")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "edge.toml:3:10: rule[0].listen: wants an address in quotes, found the integer 80\n"
        "    listen = 80\n"
        "             ^\n"
        '  hint: write ":80"\n'
        'edge.toml:4:6: rule[0].to: "10.0.0.5" has no port\n'
        '    to = "10.0.0.5"\n'
        "         ^\n"
        '  hint: write "10.0.0.5:80", with the port that is meant\n'
        "edge.toml: 2 problems\n"
    )


def test_json_goes_to_stdout(edge: Path) -> None:
    """With --json stdout has an array, empty when nothing is wrong, and stderr nothing."""
    edge.write_text(BAD, encoding="utf-8")
    result = run("edge.toml", "--json")
    assert (result.exit_code, result.stderr) == (2, "")
    assert [(problem["line"], problem["key"]) for problem in json.loads(result.stdout)] == [
        (3, "rule[0].listen"),
        (4, "rule[0].to"),
    ]
    edge.write_text(GOOD, encoding="utf-8")
    result = run("--json", "edge.toml")
    assert (result.exit_code, json.loads(result.stdout), result.stderr) == (0, [], "")


def test_standard_input_is_a_ruleset_too() -> None:
    """`-` reads the ruleset from standard input, and messages call it so."""
    assert run("-", text=GOOD).stdout == "<stdin>: 1 rule, 13 listeners: no problems\n"
    assert run("-", text=b"\xff").stderr.startswith("<stdin>:1:1: not UTF-8")


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("nothing.toml", "nothing.toml: cannot be read: No such file or directory\n  hint: "),
        ("", '"": cannot be read: No such file or directory\n  hint: '),
        (".", ".: cannot be read: Is a directory\n  hint: "),
        ("edge.toml/x", "edge.toml/x: cannot be read: Not a directory\n  hint: "),
        ("x" * 300, f"{'x' * 300}: cannot be read: File name too long\n"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07: cannot be read: No such file or directory\n  hint: "),
        ("/dev/zero", "/dev/zero: is larger than 16 MiB\n  hint: "),
    ],
)
def test_a_file_that_cannot_be_read_is_a_problem(edge: Path, path: str, what: str) -> None:
    """No traceback: the reason, a hint, exit status 2, and no line that is not there; as JSON too."""
    edge.write_text(GOOD, encoding="utf-8")
    result = run(path)
    assert result.exit_code == 2
    assert result.stderr.startswith(what)
    (problem,) = json.loads(run(path, "--json").stdout)
    assert (problem["line"], problem["column"]) == (None, None)


def test_standard_input_may_be_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind `<&-` Python has no standard input at all: a problem like a file that is not there."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit) as end:
        read_ruleset("-")
    assert end.value.code == 2
    assert "<stdin>: cannot be read: standard input is closed\n" in capsys.readouterr().err


def test_a_file_one_may_not_read_is_a_problem(edge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's refusal is told with its hint; it is put on here, for root may read anything."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, os.strerror(13))

    edge.write_text(GOOD, encoding="utf-8")
    monkeypatch.setattr(Path, "open", refuse)
    result = run("edge.toml")
    assert result.exit_code == 2
    assert result.stderr.startswith("edge.toml: cannot be read: Permission denied\n  hint: ")


def test_the_largest_file_is_still_read(edge: Path) -> None:
    """The limit is where it says: a file of exactly that size is a ruleset."""
    edge.write_text(GOOD + "#" * (LARGEST - len(GOOD)), encoding="utf-8")
    assert run("edge.toml").exit_code == 0
    with edge.open("a", encoding="utf-8") as stream:
        stream.write("#")
    assert run("edge.toml").exit_code == 2


def test_other_verbs_read_it_the_same_way(edge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """read_ruleset gives the ruleset, or prints the problems and ends the program with status 2."""
    edge.write_text(GOOD, encoding="utf-8")
    ruleset, text = read_ruleset("edge.toml")
    assert isinstance(ruleset, Ruleset)
    assert text == Path("edge.toml").read_bytes()
    edge.write_text(BAD, encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        read_ruleset("edge.toml")
    assert end.value.code == 2
    assert capsys.readouterr().err == run("edge.toml").stderr
