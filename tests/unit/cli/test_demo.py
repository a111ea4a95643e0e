"""`portway demo`: it shows what it says, and says what is in its way."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.__main__ import main
from appliance.cli import demo_gateway
from appliance.cli.demo import QUICKSTART
from appliance.cli.ruleset_file import load
from appliance.ruleset import Ruleset

PATIENCE = 60.0


def free_ports(count: int) -> list[int]:
    """Pick ports that nobody has at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def ruleset(folder: Path, listen: str, to: str) -> Path:
    path = folder / "demo.toml"
    path.write_text(
        f'[gateway]\nworkers = 1\n\n[[rule]]\nname = "intranet-web"\nlisten = "{listen}"\nto = "{to}"\n'
    )
    return path


COMMAND = (sys.executable, "-m", "appliance", "demo")


def demo(path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, "--once", str(path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "TMPDIR": str(path.parent / "tmp")},
    )


def demo_on_free_ports(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the demo; again where somebody took a port between our look and the demo's."""
    listen, to = free_ports(2)
    shown = demo(ruleset(folder, f"127.0.0.1:{listen}", f"127.0.0.1:{to}"))
    return demo_on_free_ports(folder) if "ddress already in use" in shown.stderr else shown


def test_it_proves_itself(tmp_path: Path) -> None:
    """Real requests arrive, each with its result; the log is shown; nothing is left; the status is 0."""
    (tmp_path / "tmp").mkdir()
    shown = demo_on_free_ports(tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert list((tmp_path / "tmp").iterdir()) == []
    lines = shown.stdout.splitlines()
    assert "# Everything arrived as it was sent." in lines
    said = [line for line in lines if line.startswith("#")]
    assert said[1:3] == ["# One page", "#   200 OK, 37 bytes"]
    assert said[4].split()[1:] == ["sent", said[5].split()[2]]
    assert len(said[5].split()[2]) == 64
    assert said[-3:-1] == ["# 20 clients at once", "#   20 of 20"]
    assert not any(line.endswith(":") for line in said)
    records = [json.loads(line) for line in lines if line.startswith("{")]
    sessions = [record for record in records if record["event"] == "session"]
    assert len(sessions) == 22
    assert {record["stage"] for record in sessions} == {"relay"}
    assert all(record["cause"] in {"client_eof", "endpoint_eof"} for record in sessions)
    assert sum(record["up"] > 8 << 20 for record in sessions) == 1
    assert records[-1]["event"] == "stopped"


@pytest.mark.parametrize("taken_end", ["listen", "to"])
def test_a_taken_port_is_a_sentence(tmp_path: Path, taken_end: str) -> None:
    """Status 1, which address, and who may have it; nothing is shown, and no process left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (other,) = free_ports(1)
        ends = (port, other) if taken_end == "listen" else (other, port)
        shown = demo(ruleset(tmp_path, f"127.0.0.1:{ends[0]}", f"127.0.0.1:{ends[1]}"))
    assert shown.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use\n" in shown.stderr
    assert shown.stderr.count("hint: another demo may be running") == 1
    assert len(shown.stderr.splitlines()) == 2
    assert not shown.stdout


@pytest.mark.parametrize(
    ("listen", "to", "why"),
    [
        ("127.0.0.1:18080", "10.0.0.5:80", "10.0.0.5:80 may be another host"),
        ("127.0.0.1:18080", "intranet.example:80", "intranet.example:80 is a host name"),
        ("127.0.0.1:18080", "[::1]:80", "[::1]:80 is IPv6"),
        ("[::1]:18080", "127.0.0.1:18081", "[::1]:18080 is IPv6"),
        ("127.0.0.1:0", "127.0.0.1:18081", "the port of 127.0.0.1:0 is picked by the kernel"),
        ("unix:/tmp/never-made.sock", "127.0.0.1:18081", "unix:/tmp/never-made.sock is a unix socket"),
        ("127.0.0.1:18080", "unix:/tmp/never-made.sock", "unix:/tmp/never-made.sock is a unix socket"),
        ("127.0.0.1:18080", '127.0.0.1:18081", "10.0.0.6:80', "10.0.0.6:80 may be another host"),
    ],
)
def test_a_rule_that_cannot_be_shown(tmp_path: Path, listen: str, to: str, why: str) -> None:
    """A demo lives on this host's loopback: another rule is wrong input, and nothing is started."""
    path = ruleset(tmp_path, listen, to)
    path.write_text(path.read_text().replace(f'"{to}"', f'["{to}"]'))
    result = CliRunner().invoke(main, ["demo", "--once", str(path)])
    assert result.exit_code == 2
    assert f"the demo serves one IPv4 port of this host, and {why}\n  hint: " in result.stderr
    assert result.stdout == ""


def test_a_ruleset_that_can_be_read_but_once() -> None:
    """Standard input would be empty for the gateway: wrong input, and no wait."""
    result = CliRunner().invoke(main, ["demo", "-"])
    assert result.exit_code == 2
    assert "name of a file" in result.stderr


def end_at(folder: Path, moment: str, number: signal.Signals) -> tuple[int, str]:
    """Send the demo, and it alone, a signal once a line with `moment` came; give its status and the rest.

    The rest ends when the last process that has our pipe for its output has ended.
    """
    listen, to = free_ports(2)
    path = ruleset(folder, f"127.0.0.1:{listen}", f"127.0.0.1:{to}")
    with subprocess.Popen(
        [*COMMAND, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if "ddress already in use" in line:
                    return end_at(folder, moment, number)
                if moment in line:
                    break
            child.send_signal(number)
            rest, _ = child.communicate(timeout=PATIENCE)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        return child.returncode, rest


MOMENTS = ['"listening"', '"ready"', "# A server", "# An upload", "# Everything", "# Try it"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_ends_the_gateway_too(tmp_path: Path, moment: str) -> None:
    """SIGTERM to the demo alone, as from a service manager or a script, leaves no process behind."""
    status, rest = end_at(tmp_path, moment, signal.SIGTERM)
    assert status in {0, 128 + signal.SIGTERM}
    assert "Traceback" not in rest


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_gateway_does_not_outlive_a_demo_that_was_killed(tmp_path: Path, moment: str) -> None:
    """SIGKILL lets the demo do nothing any more; its gateway ends all the same."""
    status, rest = end_at(tmp_path, moment, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert "Traceback" not in rest


def test_a_signal_waits_until_the_gateway_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes while it is being started is heard afterwards, when there is something to end."""
    started: list[subprocess.Popen[bytes]] = []
    start = demo_gateway._start

    def start_and_signal(*arguments: object) -> "subprocess.Popen[bytes]":
        signal.raise_signal(signal.SIGINT)
        started.append(start(*arguments))  # type: ignore[arg-type]  # handed on as they came
        return started[0]

    monkeypatch.setattr(demo_gateway, "_start", start_and_signal)
    with pytest.raises(KeyboardInterrupt), demo_gateway.demo_gateway(ruleset(tmp_path, "127.0.0.1:0", "a:1")):
        pytest.fail("the signal was lost")
    assert started[0].returncode is not None


def test_its_own_ruleset_is_sound() -> None:
    """What is built in is a ruleset without problems, of one rule on loopback."""
    made = load(str(QUICKSTART))
    assert isinstance(made, Ruleset)
    assert len(made.rules) == 1
    assert made.rules[0].listen[0].host == "127.0.0.1"
