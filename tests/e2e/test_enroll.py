"""`portway enroll`, `revoke` and `agents`, as an operator runs them."""

import json
import os
import ssl
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from appliance.tunnel.credentials import agent_context
from appliance.tunnel.join import Join, read_join
from appliance.tunnel.join_file import load_join
from tests.e2e import needs
from tests.program import program

RULESET = """
[[rule]]
name = "ssh"
listen = ":2222"
to = "192.168.1.10:22"
via = "office"

[tunnel]
listen = {listen}
state = "{state}"

[[agent]]
name = "office"
allow_to = "192.168.1.0/24:22"

[[agent]]
name = "lab"
"""

USER, GROUP = 65532, 65533

DROP = """
import os, shutil, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from appliance.__main__ import main
from appliance.cli import agents, enroll, revoke
user, group = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([])
os.setresgid(group, group, group)
os.setresuid(user, user, user)
main(sys.argv[3:], prog_name="portway")
"""
"""Is Portway as another user, who need not be able to read it."""


def write(folder: Path, listen: str = '"203.0.113.5:7443"') -> Path:
    path = folder / "edge.toml"
    path.write_text(RULESET.format(listen=listen, state=folder / "state"))
    return path


@pytest.fixture
def ruleset(tmp_path: Path) -> Path:
    return write(tmp_path)


def start(ruleset: Path, verb: str, *words: str, user: int | None = None) -> "subprocess.Popen[str]":
    """Start a verb where the ruleset is."""
    command = program() if user is None else [sys.executable, "-c", DROP, str(user), str(GROUP)]
    return subprocess.Popen(
        [*command, verb, str(ruleset), *words],
        cwd=ruleset.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(ruleset: Path, verb: str, *words: str, status: int = 0, user: int | None = None) -> tuple[str, str]:
    started = start(ruleset, verb, *words, user=user)
    out, err = started.communicate(timeout=60)
    assert started.returncode == status, err
    return out, err


def shown(ruleset: Path, verb: str, *words: str) -> Any:
    return json.loads(run(ruleset, verb, *words, "--json")[0])


def joined(path: Path) -> Join:
    found = load_join(str(path))
    assert isinstance(found, Join)
    return found


def listed(ruleset: Path) -> Mapping[str, Any]:
    """Give the certificates of each agent."""
    told = shown(ruleset, "agents", "--admin", str(ruleset.parent / "none"))
    return {agent["name"]: agent["certificates"] for agent in told["agents"]}


def test_a_first_agent(ruleset: Path) -> None:
    """One command makes the CA and one file, for its owner alone, and says what to run on the other side."""
    out, _ = run(ruleset, "enroll", "office")
    made = ruleset.parent / "office.join"
    assert out.splitlines()[-1] == "  portway agent --join office.join"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    join = joined(made)
    assert (join.name, join.gateways, join.allow_to, join.proxy) == (
        "office",
        ("203.0.113.5:7443",),
        None,
        None,
    )
    assert isinstance(agent_context(join), ssl.SSLContext)
    state = ruleset.parent / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "ca.key").stat().st_mode) == 0o600
    (certificate,) = listed(ruleset)["office"]
    assert out.splitlines()[0] == (
        f"office.join: agent office, certificate {certificate['serial'][:12]}, until {certificate['expires']}"
    )


def test_what_goes_into_the_file(ruleset: Path) -> None:
    """Gateways, time, what may be reached and the proxy are as the options say."""
    words = ["--gateway", "gw1.example:443", "--gateway", "[2001:db8::1]:7443", "--valid", "1h"]
    words += ["--allow-to", "192.168.1.10:22", "--proxy", "socks5://10.0.0.1:1080", "-o", "its file"]
    told = shown(ruleset, "enroll", "office", *words)
    join = joined(ruleset.parent / "its file")
    assert join.gateways == ("gw1.example:443", "[2001:db8::1]:7443")
    assert (join.allow_to, join.proxy) == (("192.168.1.10:22",), "socks5://10.0.0.1:1080")
    (certificate,) = listed(ruleset)["office"]
    assert told == {
        "agent": "office",
        "serial": certificate["serial"],
        "expires": certificate["expires"],
        "gateways": list(join.gateways),
        "file": "its file",
    }


def test_a_line_to_paste(ruleset: Path) -> None:
    """`-o -` prints the line alone; what to do with it goes to stderr."""
    out, err = run(ruleset, "enroll", "office", "-o", "-")
    assert out.count("\n") == 1
    join = read_join(out.encode(), "line")
    assert isinstance(join, Join)
    assert isinstance(agent_context(join), ssl.SSLContext)
    assert "  portway agent --join office.join" in err
    assert sorted(path.name for path in ruleset.parent.iterdir()) == ["edge.toml", "state"]


def test_a_second_agent_of_the_name(ruleset: Path) -> None:
    """It is enrolled beside the first, in a file of its own: nothing is overwritten unless told to."""
    run(ruleset, "enroll", "office")
    first = joined(ruleset.parent / "office.join")
    _, err = run(ruleset, "enroll", "office", status=1)
    assert err == (
        "portway: office.join is there already\n  hint: --force replaces it, -o names another file\n"
    )
    assert joined(ruleset.parent / "office.join") == first
    assert len(listed(ruleset)["office"]) == 1
    out, _ = run(ruleset, "enroll", "office", "-o", "second.join")
    assert "office has 2 certificates now" in out
    second = joined(ruleset.parent / "second.join")
    assert (second.ca, second.key == first.key) == (first.ca, False)
    run(ruleset, "enroll", "office", "--force")
    assert joined(ruleset.parent / "office.join").key != first.key


def test_enrolled_at_the_same_time(ruleset: Path) -> None:
    """Of several that find no CA one makes it; all agents have the same, and a certificate each."""
    started = [start(ruleset, "enroll", "office", "-o", f"{number}.join") for number in range(4)]
    for one in started:
        _, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
    joins = [joined(ruleset.parent / f"{number}.join") for number in range(4)]
    assert len({join.ca for join in joins}) == 1
    assert len({join.certificate for join in joins}) == len(listed(ruleset)["office"]) == 4


def test_a_name_that_is_not_there(ruleset: Path) -> None:
    """It is told with the nearest name, and nothing is made."""
    _, err = run(ruleset, "enroll", "ofice", status=2)
    assert err == f'portway: {ruleset} has no [[agent]] "ofice"\n  hint: did you mean "office"?\n'
    _, err = run(ruleset, "enroll", "../../x", status=2)
    assert 'hint: there is "lab", "office"' in err
    assert list(ruleset.parent.iterdir()) == [ruleset]


@pytest.mark.parametrize("listen", ['":7000"', '["0.0.0.0:7000", "[::]:7000"]'])
def test_no_address_to_give_to_the_agent(tmp_path: Path, listen: str) -> None:
    """Where the ruleset listens everywhere, the operator says where the agent finds it."""
    _, err = run(write(tmp_path, listen), "enroll", "office", status=2)
    assert "hint: say it: --gateway HOST:7000\n" in err


@pytest.mark.parametrize(
    "words",
    [
        ("--gateway", "gw.example"),
        ("--gateway", "gw.example:1-2"),
        ("--valid", "1 year"),
        ("--allow-to", "192.168.1.0/24"),
        ("--proxy", "10.0.0.1:3128"),
        ("--gateway", "gw:1") * 17,
    ],
)
def test_options_that_are_wrong(ruleset: Path, words: tuple[str, ...]) -> None:
    """They are wrong input, before anything is made."""
    run(ruleset, "enroll", "office", *words, status=2)
    assert list(ruleset.parent.iterdir()) == [ruleset]


def test_no_tunnel_at_all(tmp_path: Path) -> None:
    """A ruleset without [tunnel] has no agents."""
    path = tmp_path / "plain.toml"
    path.write_text('[[rule]]\nname = "web"\nlisten = ":8080"\nto = "10.0.0.5:80"\n')
    for words in (("enroll", "office"), ("revoke", "office"), ("agents",)):
        assert "has no [tunnel]" in run(path, *words, status=2)[1]


def test_where_the_file_cannot_be_written(ruleset: Path) -> None:
    """A sentence, and status 1; nobody has that certificate's key, so it is taken back."""
    _, err = run(ruleset, "enroll", "office", "-o", "none/office.join", status=1)
    assert err.splitlines()[-2:] == [
        "portway: cannot write none/office.join: No such file or directory",
        "  hint: -o names another file",
    ]
    (certificate,) = listed(ruleset)["office"]
    assert certificate["revoked"]


def test_a_line_that_cannot_be_written(ruleset: Path) -> None:
    """On a full disk it is as with a file: status 1, and the certificate is taken back."""
    with Path("/dev/full").open("w") as full:
        words = ["enroll", str(ruleset), "office", "-o", "-"]
        done = subprocess.run(
            [*program(), *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "portway: No space left on device"
    (certificate,) = listed(ruleset)["office"]
    assert certificate["revoked"]


def test_a_state_directory_that_cannot_be(ruleset: Path) -> None:
    """What stands in its place is told."""
    (ruleset.parent / "state").write_text("a file")
    _, err = run(ruleset, "enroll", "office", status=1)
    assert f"portway: {ruleset.parent}/state" in err
    assert "hint: [tunnel] state is a directory" in err


def test_a_damaged_ca(ruleset: Path) -> None:
    """It is never made anew over what is there."""
    run(ruleset, "enroll", "office")
    (ruleset.parent / "state" / "ca.key").write_text("")
    _, err = run(ruleset, "enroll", "lab", status=1)
    assert "ca.key holds no key" in err
    assert not (ruleset.parent / "lab.join").exists()


def test_root_and_the_gateways_user(ruleset: Path) -> None:
    """What root makes is the gateway's, which is another user and goes on with it; a third may not."""
    needs.root()
    state = ruleset.parent / "state"
    state.mkdir(mode=0o700)
    os.chown(state, USER, GROUP)
    run(ruleset, "enroll", "office")
    run(ruleset, "revoke", "office")
    owners = {(found.stat().st_uid, found.stat().st_gid) for found in (state, *state.rglob("*"))}
    assert owners == {(USER, GROUP)}
    for folder in (ruleset.parent, *ruleset.parent.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    run(ruleset, "enroll", "office", "-o", "-", user=USER)
    for words in (("enroll", "office", "-o", "-"), ("agents",)):
        _, err = run(ruleset, *words, user=USER + 1, status=1)
        assert f"hint: run this as root, or as the user {USER}: [tunnel] state is {state}\n" in err


def test_taking_back(ruleset: Path) -> None:
    """All of a name, or one; twice is as good as once; others stay."""
    serials = [shown(ruleset, "enroll", "office", "-o", f"{number}.join")["serial"] for number in range(3)]
    run(ruleset, "enroll", "lab")
    out, _ = run(ruleset, "revoke", "office", "--serial", serials[1][:12].upper())
    assert out == f"took back 1 certificate of office: {serials[1][:12]}\n"
    assert shown(ruleset, "revoke", "office")["revoked"] == [serials[0], serials[2]]
    out, _ = run(ruleset, "revoke", "office")
    assert out == "nothing to take back: office has no other\n"
    assert [one["revoked"] for one in listed(ruleset)["office"]] == [True] * 3
    assert [one["revoked"] for one in listed(ruleset)["lab"]] == [False]


def test_taking_back_what_is_not_there(ruleset: Path) -> None:
    """An agent that was never enrolled has nothing; a name nobody has, or a wrong serial, is wrong input."""
    assert run(ruleset, "revoke", "lab")[0] == "nothing to take back: lab was never enrolled\n"
    assert 'did you mean "lab"?' in run(ruleset, "revoke", "labb", status=2)[1]
    run(ruleset, "enroll", "office")
    assert "no certificate 00" in run(ruleset, "revoke", "office", "--serial", "00", status=2)[1]
    assert "is no serial" in run(ruleset, "revoke", "office", "--serial", "x", status=2)[1]


def test_an_agent_that_left_the_ruleset(ruleset: Path) -> None:
    """It is still listed, and can be taken back."""
    run(ruleset, "enroll", "lab")
    ruleset.write_text(ruleset.read_text().replace('name = "lab"', 'name = "other"'))
    lines = run(ruleset, "agents")[0].splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["lab", "office", "other"]
    assert lines[0].endswith("not in the ruleset")
    assert run(ruleset, "revoke", "lab")[0].startswith("took back 1 certificate of lab")


def test_the_list(ruleset: Path) -> None:
    """Each agent of the ruleset, enrolled or not; without a gateway it says so, and is no failure."""
    run(ruleset, "enroll", "office")
    none = str(ruleset.parent / "none")
    out, _ = run(ruleset, "agents", "--admin", none)
    lab, office, empty, who = out.splitlines()
    assert lab.split() == ["lab", "never", "enrolled"]
    assert office.split()[0::2][:3] == ["office", "issued", "until"]
    assert office.endswith("never seen")
    assert (empty, who) == ("", f"who is connected is not known: no gateway listens at {none}")
