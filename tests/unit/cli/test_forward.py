"""`portway forward`: one rule with no file, and problems without one either."""

import json
import signal
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from appliance.__main__ import main
from appliance.ruleset import Protocol, Ruleset

PATIENCE = 20.0


def problems(*arguments: str) -> str:
    """Run it on what cannot be served; it has to say why, and nothing else."""
    result = CliRunner().invoke(main, ["forward", *arguments])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr


def test_every_wrong_address_is_told() -> None:
    """Both ends at once, each with what to write instead, and no place in a file that is not there."""
    said = problems("8080", "10.0.0.5")
    assert said.count("portway: ") == 2
    assert '"8080" is a port without its colon' in said
    assert '"10.0.0.5" has no port' in said
    assert said.count("hint: ") == 2
    assert "command line" not in said


@pytest.mark.parametrize(
    ("listen", "to"),
    [
        ('"', "10.0.0.5:80"),
        ("\\", "10.0.0.5:80"),
        (":80", 'x"]\nname = "y'),
        (":80\n", "10.0.0.5:80"),
        ("\x1b[2J", "10.0.0.5:80"),
        ("", "10.0.0.5:80"),
        (":80", ""),
        ("unix:/\udcff", "10.0.0.5:80"),
        (":8\u0665", "10.0.0.5:80"),
        (":80", "b\U0001f600cher.example:80"),
    ],
)
def test_no_text_breaks_out_of_its_place(listen: str, to: str) -> None:
    """Quotes, control characters, line ends and bytes that are no UTF-8 are problems of an address."""
    said = problems(listen, to)
    assert "\x1b" not in said
    assert said.startswith("portway: ")


@pytest.mark.parametrize(
    ("listen", "to", "what"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", "leads back to this rule's own listener"),
        (":1000-1009", "10.0.0.5:2000-2001", "has 2 ports, where :1000-1009 has 10 ports"),
    ],
)
def test_what_is_wrong_between_both_ends(listen: str, to: str, what: str) -> None:
    """What `check` finds in a ruleset is found here, with no line of a file that is not there."""
    said = problems(listen, to)
    assert what in said
    assert "command line" not in said


@pytest.mark.parametrize(
    ("listen", "to", "what"),
    [
        ("unix:/run/a.sock", "10.0.0.5:53", "is a unix socket, and this rule carries UDP"),
        (":53", "unix:/run/a.sock", "is a unix socket, and this rule carries UDP"),
        ("127.0.0.1:53", "127.0.0.1:53", "every flow would open another one"),
    ],
)
def test_what_is_wrong_with_udp(listen: str, to: str, what: str) -> None:
    """With --udp it is a UDP rule that is checked."""
    assert what in problems("--udp", listen, to)


@pytest.mark.parametrize(
    ("arguments", "protocol"), [((), Protocol.TCP), (("--udp",), Protocol.UDP)], ids=["tcp", "udp"]
)
def test_udp_is_asked_for(
    arguments: tuple[str, ...], protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--udp makes it a rule for UDP, before or after the addresses; without it the rule is for TCP."""
    served: list[Ruleset] = []
    monkeypatch.setattr("appliance.cli.forward.serve", lambda ruleset, *_: served.append(ruleset))
    for words in ((*arguments, ":53", "10.0.0.2:53"), (":53", "10.0.0.2:53", *arguments)):
        assert CliRunner().invoke(main, ["forward", *words]).exit_code == 0
    assert [[rule.protocol for rule in ruleset.rules] for ruleset in served] == [[protocol]] * 2


def test_a_taken_address_is_a_failure() -> None:
    """Status 1, a sentence with a hint: the input was right, this host is in the way."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        child = subprocess.run(
            [sys.executable, "-m", "appliance", "forward", listen, "10.0.0.5:80"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (child.returncode, child.stdout) == (1, "")
    assert child.stderr == (
        f'portway: rule "forward": cannot listen on {listen}: Address already in use\n'
        "  hint: another program listens there; `ss -ltnp` names it\n"
    )


def test_it_forwards_to_each_in_turn() -> None:
    """With several targets sessions take turns, and go on to the next where one is closed."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.socket() as closed,
    ):
        closed.bind(("127.0.0.1", 0))
        targets = [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, closed, two)]
        gateway = subprocess.Popen(
            [sys.executable, "-m", "appliance", "forward", "127.0.0.1:0", *targets], stdout=subprocess.PIPE
        )
        with gateway:
            try:
                assert gateway.stdout is not None
                listening = json.loads(gateway.stdout.readline())
                assert listening["event"] == "listening"
                host, _, port = listening["listener"].rpartition(":")
                for server in (one, two):
                    server.settimeout(PATIENCE)
                # Each worker has its own turn: some of the clients come to either server.
                clients = [socket.create_connection((host, int(port))) for _ in range(12)]
                for server in (one, two):
                    connection, _ = server.accept()
                    connection.close()
                    server.close()  # and reset those that wait: the gateway has nobody left to drain
                for client in clients:
                    client.close()
                gateway.send_signal(signal.SIGTERM)
                gateway.stdout.read()
                assert gateway.wait(PATIENCE) == 0
            finally:
                gateway.kill()
