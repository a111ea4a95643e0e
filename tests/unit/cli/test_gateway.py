"""What is said before a gateway runs."""

import errno
import os
import socket
from pathlib import Path

import pytest

from appliance.cli import gateway
from appliance.cli.gateway import MOST_TOLD, serve, tell
from appliance.ruleset import Ruleset, read
from appliance.supervisor.binding import Refusal
from appliance.supervisor.status import RulesetStatus

ORIGIN = RulesetStatus("edge.toml", "", 1)


class Stopped:
    """A master that is stopped at once."""

    end: BaseException | None = None

    def __init__(self, *_: object) -> None:
        pass

    def run(self) -> int:
        if self.end is not None:
            raise self.end
        return 0


@pytest.fixture(autouse=True)
def stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave this process's own files, limits and signals alone."""
    monkeypatch.setattr(gateway, "open_standard_fds", lambda: None)
    monkeypatch.setattr(gateway, "raise_fd_limit", lambda: None)
    monkeypatch.setattr(gateway, "Master", Stopped)


def rules(listen: str) -> Ruleset:
    made = read(f'[[rule]]\nname = "web"\nlisten = "{listen}"\nto = "10.0.0.5:80"\n'.encode(), "edge.toml")
    assert isinstance(made, Ruleset)
    return made


@pytest.mark.parametrize("count", [1, MOST_TOLD, MOST_TOLD + 1, 64_000])
def test_very_many_refusals_are_counted(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The first few are told, each with its hint, and the others by their number."""
    refused = [Refusal("web", f":{port}", OSError(errno.EMFILE, "")) for port in range(count)]
    tell(refused)
    lines = capsys.readouterr().err.splitlines()
    assert sum("cannot listen on" in line for line in lines) == min(count, MOST_TOLD)
    assert sum("hint: " in line for line in lines) == min(count, MOST_TOLD)
    assert lines[2 * MOST_TOLD :] == ([f"portway: and {count - MOST_TOLD} more"] if count > MOST_TOLD else [])


def test_an_inherited_socket_that_no_rule_wants_is_told_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As rulesets write it, for each kind, and then the socket is closed."""
    four, six = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
    six.bind(str(tmp_path / "s"))
    monkeypatch.setattr(gateway, "inherited_sockets", lambda: [four, six])
    port = four.getsockname()[1]
    assert serve(rules("127.0.0.1:0"), ORIGIN) == 0
    assert capsys.readouterr().err == (
        f"portway: no rule listens on the inherited 127.0.0.1:{port}\n"
        f"portway: no rule listens on the inherited unix:{tmp_path}/s\n"
    )
    assert four.fileno() == six.fileno() == -1


def test_an_interrupt_leaves_no_socket_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the start, a unix socket that was made for it is gone."""
    path = tmp_path / "web.sock"
    monkeypatch.setattr(Stopped, "end", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        serve(rules(f"unix:{path}"), ORIGIN)
    assert not path.exists()


def test_a_refusal_is_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1, and the hint for it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert serve(rules(f"127.0.0.1:{taken.getsockname()[1]}"), ORIGIN) == 1
    said = capsys.readouterr().err
    assert os.strerror(errno.EADDRINUSE) in said
    assert "hint: " in said
