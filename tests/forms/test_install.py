"""The frozen program installed on a host that systemd runs, and at work under the unit's restrictions."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import needs
from tests.e2e.gateway import Record, wait_for
from tests.forms.booted import Host, booted
from tests.program import program

README = Path(__file__).parents[2] / "README.md"
RULES = "/etc/portway/rules.toml"
WORK = """
[gateway]
drain_timeout = "5s"

[[rule]]
name = "low"
listen = ":443"
to = "127.0.0.1:9000"

[[rule]]
name = "named"
listen = "127.0.0.1:8080"
to = "endpoint.test:9000"

[[rule]]
name = "unix"
listen = "unix:/run/portway/app.sock"
to = "unix:/run/echo.sock"

[[rule]]
name = "datagrams"
protocol = "udp"
listen = "127.0.0.1:20000-20099"
to = "127.0.0.1:30000-30099"
"""

CLIENT = """
import socket, time
with socket.create_connection(("127.0.0.1", 443)) as client:
    client.send(b"x")
    client.recv(1)
    time.sleep(4)
"""
"""Has a session of 4 seconds."""


@pytest.fixture
def host() -> Iterator[Host]:
    """A host with the folder form in /root/form."""
    (launcher,) = program("folder")
    with booted() as made:
        put(made, Path(launcher).parent, "/root/form")
        yield made


def put(host: Host, folder: Path, place: str) -> None:
    """Copy a folder to the host."""
    archive = shutil.make_archive(f"/tmp/portway-test-{host.init}", "tar", folder)
    try:
        host.run("sh", "-c", 'mkdir -p "$1" && tar -x -C "$1"', "sh", place, text=Path(archive).read_bytes())
    finally:
        Path(archive).unlink()


def other_form(host: Host, place: str, launcher: str = "") -> None:
    """Make another build of the program of /root/form, maybe with another launcher."""
    host.run("cp", "-a", "/root/form", place)
    host.run("touch", f"{place}/another")
    if launcher:
        host.write(f"{place}/portway", launcher.encode(), "755")


def counts(said: str) -> list[int]:
    """Give ok, changed and failed of a recap."""
    (found,) = re.findall(r"^ok=(\d+) changed=(\d+) failed=(\d+)$", said, re.MULTILINE)
    return [int(count) for count in found]


def running(host: Host) -> str:
    """The folder that the service runs from."""
    return host.run("readlink", f"/proc/{host.show('MainPID')}/exe").split("/")[3]


def current(host: Host) -> str:
    """The folder that is installed."""
    return host.run("readlink", "/opt/portway/current").strip()


def records(host: Host) -> list[Record]:
    """What the service has logged."""
    return [json.loads(line) for line in host.journal().splitlines() if line.startswith("{")]


def sessions(host: Host) -> list[Record]:
    """Its records of sessions and flows."""
    return [record for record in records(host) if record["event"] == "session"]


def files(host: Host) -> set[str]:
    """Every path where an installation may leave one."""
    found = host.run("sh", "-c", "find /etc /opt /usr/local; ls -d /var/lib/*")
    # useradd and userdel leave copies of what they changed
    return {path for path in found.splitlines() if not re.fullmatch(r"/etc/\w+-|/var/lib/private", path)}


def test_the_way_of_a_newcomer(host: Host) -> None:
    """Each command of the README's way works, in that order, and leaves nothing behind."""
    (single,) = program("single")
    before = files(host)
    host.write("/root/portway", Path(single).read_bytes(), "755")
    section = README.read_text().partition("## Install on a host")[2].partition("\n## ")[0]
    commands = [line.partition("  #")[0].strip() for line in section.splitlines() if line.startswith("    ")]
    assert len(commands) > 5
    for command in commands:
        host.run("sh", "-c", f"cd /root && {command}")
    assert files(host) == before


def test_install_and_again(host: Host) -> None:
    """It is installed, enabled, started and healthy; a second run changes nothing; uninstall takes it all."""
    assert counts(host.run("/root/form/portway", "install", "--now"))[2] == 0
    assert host.run("systemctl", "is-enabled", "portway") == "enabled\n"
    assert host.run("systemctl", "is-active", "portway") == "active\n"
    host.run("portway", "status", "--healthy")
    started = host.show("MainPID")
    for command in ("/root/form/portway", "portway"):
        assert counts(host.run(command, "install", "--now"))[1:] == [0, 0]
    assert host.show("MainPID") == started
    assert counts(host.run("portway", "uninstall"))[2] == 0
    assert host.attempt("systemctl", "is-active", "portway").stdout == "inactive\n"
    assert "portway" not in host.run("cat", "/etc/passwd", "/etc/group")
    assert counts(host.run("/root/form/portway", "uninstall"))[1:] == [0, 0]


def test_an_upgrade(host: Host) -> None:
    """The newer one takes over the service; the one before is kept, and is the way back."""
    host.run("/root/form/portway", "install", "--now")
    before = current(host)
    other_form(host, "/root/newer")
    host.run("/root/newer/portway", "install", "--now")
    assert before != current(host) == running(host)
    host.run("/opt/portway/previous/portway", "install", "--now")
    assert before == current(host) == running(host)
    host.run("portway", "status", "--healthy")


def test_an_upgrade_without_a_restart(host: Host) -> None:
    """What runs goes on, and keeps its files, until it is restarted; a later --now does that."""
    host.run("/root/form/portway", "install", "--now")
    before = running(host)
    for place in ("/root/second", "/root/third"):
        other_form(host, place)
        host.run("cp", "/etc/hostname", f"{place}/{place[6:]}")
        assert "systemctl restart portway" in host.run(f"{place}/portway", "install")
    assert running(host) == before
    assert before in host.run("ls", "/opt/portway")
    assert counts(host.run("portway", "install", "--now"))[2] == 0
    assert running(host) == current(host) != before


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ("exec sleep 1d", "the service does not start, it is activating"),
        ("exit 1", "the service does not start, it is activating"),
        ("export PORTWAY_ADMIN=/run/portway/elsewhere", "no gateway listens at /run/portway/admin.sock"),
    ],
    ids=["never ready", "ends", "not healthy"],
)
def test_an_upgrade_that_fails(host: Host, run: str, sentence: str) -> None:
    """The earlier program comes back by itself, healthy, and the status is 1; another try is no different."""
    host.run("/root/form/portway", "install", "--now")
    before = current(host)
    shebang, rest = host.run("cat", "/root/form/portway").split("\n", 1)
    other_form(host, "/root/newer", f'{shebang}\nif [ "$1" = run ]; then {run}; fi\n{rest}')
    for _ in range(2):
        done = host.attempt("/root/newer/portway", "install", "--now", "--within", "3s")
        assert done.returncode == 1, done.stdout
        assert f"not healthy within 3 s: {sentence}" in done.stdout.replace("not healthy: ", "")
        assert "what there was is back, and healthy" in done.stdout
        assert current(host) == running(host) == before
        host.run("portway", "status", "--healthy")
    assert counts(host.run("/root/form/portway", "install", "--now"))[2] == 0
    assert host.run("ls", "/opt/portway").split() == [before, "current"]


def test_an_upgrade_that_waits_for_a_session(host: Host) -> None:
    """How long the earlier program drains is not counted: its session ends in order."""
    host.run("/root/form/portway", "install")
    host.write(RULES, WORK.replace('"5s"', '"60s"').encode())
    host.run("portway", "install", "--now")
    host.run("systemd-run", "--quiet", "socat", "TCP-LISTEN:9000,fork,reuseaddr", "EXEC:cat")
    host.run("systemd-run", "--quiet", "python3", "-c", CLIENT)
    wait_for("a session", lambda: "1 of" in host.run("portway", "status"))
    other_form(host, "/root/newer")
    assert counts(host.run("/root/newer/portway", "install", "--now", "--within", "2s"))[2] == 0
    assert current(host) == running(host)
    assert [record["cause"] for record in sessions(host)] == ["client_eof"]


def test_without_systemd(host: Host) -> None:
    """On a host that systemd does not run all is there but the service, and a line says so."""
    apart = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh")
    said = host.run(*apart, "/root/form/portway", "install", "--now")
    assert "note     systemd does not run this host: the service is not started" in said
    assert counts(host.run(*apart, "portway", "install"))[1:] == [0, 0]
    assert counts(host.run(*apart, "portway", "uninstall"))[2] == 0


def test_a_first_installation_that_fails(host: Host) -> None:
    """There is nothing to go back to: it says where to look, and a later run sets it right."""
    host.run("/root/form/portway", "install")
    host.write(RULES, WORK.replace(":443", "192.0.2.1:443").encode())
    done = host.attempt("/root/form/portway", "install", "--now", "--within", "3s")
    assert done.returncode == 1
    assert "there is nothing earlier to go back to" in done.stdout
    assert "192.0.2.1:443" in host.journal()
    host.write(RULES, WORK.encode())
    assert counts(host.run("/root/form/portway", "install", "--now"))[2] == 0


def test_at_work_under_the_restrictions(host: Host) -> None:
    """Low ports, host names, unix sockets, ranges of datagrams and the journal work under the unit."""
    needs.program("socat")
    host.run("/root/form/portway", "install")
    host.write(RULES, WORK.encode())
    host.run("portway", "install")  # gives the ruleset its owner and mode again
    host.write("/etc/hosts", b"127.0.0.1 localhost endpoint.test\n")
    for listen in (
        "TCP-LISTEN:9000,fork,reuseaddr",
        "UNIX-LISTEN:/run/echo.sock,fork,mode=666",
        "UDP-LISTEN:30042,fork",
    ):
        host.run("systemd-run", "--quiet", "socat", listen, "EXEC:cat")
    host.run("systemctl", "start", "portway")
    for way in (
        "TCP:127.0.0.1:443",
        "TCP:[::1]:443",
        "TCP:127.0.0.1:8080",
        "UNIX:/run/portway/app.sock",
        "UDP:127.0.0.1:20042",
    ):
        assert host.run("socat", "-t", "2", "-", way, text=b"hello\n") == "hello\n", way
    host.run("portway", "status", "--healthy")
    host.run("systemctl", "stop", "portway")
    assert host.show("Result") == "success"
    assert {record["rule"] for record in sessions(host)} == {
        "low",
        "named",
        "unix",
        "datagrams",
    }
    assert troubles(records(host)) == []


def troubles(said: list[Record]) -> list[Record]:
    """What a gateway that may do all it has to do does not say."""
    names = ("internal_error", "warning", "listener_paused", "resolve_failed")
    return [record for record in said if record["event"] in names]


def test_a_drain_longer_than_the_units_patience(host: Host) -> None:
    """The time to stop is as long as the ruleset's drain_timeout says, whatever the unit does."""
    host.run("/root/form/portway", "install")
    host.write(RULES, WORK.replace('"5s"', '"60s"').encode())
    host.write("/etc/systemd/system/portway.service.d/short.conf", b"[Service]\nTimeoutStopSec=1\n")
    host.run("portway", "install", "--now")
    host.run("systemd-run", "--quiet", "socat", "TCP-LISTEN:9000,fork,reuseaddr", "EXEC:cat")
    host.run("systemd-run", "--quiet", "python3", "-c", CLIENT)
    wait_for("a session", lambda: "1 of" in host.run("portway", "status"))
    host.run("systemctl", "stop", "portway")
    assert (host.show("Result"), [record["cause"] for record in sessions(host)]) == (
        "success",
        ["client_eof"],
    )


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_a_crash_is_mended(host: Host, signal: str) -> None:
    """A master that is killed, or that the watchdog finds stuck, is started again."""
    host.write("/etc/systemd/system/portway.service.d/short.conf", b"[Service]\nWatchdogSec=2\n")
    host.run("/root/form/portway", "install", "--now")
    before = host.show("MainPID")
    host.run("kill", f"-{signal}", before)
    wait_for(
        "another master",
        lambda: (
            host.show("MainPID") not in {before, "0"}
            and not host.attempt("portway", "status", "--healthy").returncode
        ),
    )
    assert host.show("NRestarts") == "1"


def test_the_unit_is_right(host: Host) -> None:
    """With the installed unit systemd finds nothing wrong, and rates its exposure at 2.0 or below."""
    host.run("/root/form/portway", "install")
    done = host.attempt("systemd-analyze", "verify", "portway.service")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    host.run("systemd-analyze", "security", "--no-pager", "--threshold=20", "portway.service")
