"""Reverse tunnels as an operator has them: agents of one name, several gateways, what may be reached."""

import json
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.gateway import Gateway, Record, rule, wait_for
from tests.e2e.peers import Endpoint, connect, read_to_end, refusing
from tests.e2e.tunnel import LISTENERS, agent, enroll, tunnel, tunnel_ruleset
from tests.ports import free_for_both_families
from tests.program import program


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Give a server in the intranet."""
    with Endpoint() as listening:
        yield listening


def talk(port: int, endpoint: Endpoint, word: bytes = b"hello") -> str:
    """Hold a short session; give the address that the endpoint saw."""
    with connect(("127.0.0.1", port)) as client:
        client.sendall(word)
        with endpoint.accept() as server:
            assert server.recv(100) == word
            server.sendall(word[::-1])
            seen = server.getpeername()
        assert read_to_end(client) == word[::-1]
    return f"{seen[0]}:{seen[1]}"


def by_session(records: list[Record]) -> dict[str, Record]:
    return {record["session"]: record for record in records}


def test_one_session_has_one_id_in_both_logs(endpoint: Endpoint) -> None:
    """Gateway's and agent's records agree on who, where to, how much and why it ended."""
    with tunnel(rule("web", endpoint.to, via="office")) as world:
        talk(world.gateway.port("web"), endpoint)
        ours, theirs = world.gateway.session(), world.agent.session()
        assert theirs["listener"] == f"127.0.0.1:{world.port}"
    same = {"session", "rule", "client", "endpoint", "agent", "stage", "cause", "up", "down"}
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    assert ours["agent"] == "office"


def test_agents_of_one_name_share_its_sessions_and_survive_each_other(endpoint: Endpoint) -> None:
    """Sessions are spread over agents with one join file; when one ends, the rest has all of the new ones."""
    with tunnel(rule("web", endpoint.to, via="office"), agents=3) as world:

        def carried() -> list[int]:
            return [len(one.events("session")) for one in world.agents]

        for _ in range(12):
            talk(world.gateway.port("web"), endpoint)
        wait_for("a record of each", lambda: sum(carried()) == 12)
        assert carried() == [4, 4, 4]
        world.agents[0].stop()
        for _ in range(6):
            talk(world.gateway.port("web"), endpoint)
        assert {record["cause"] for record in world.gateway.sessions(18)} == {"endpoint_eof"}
        wait_for("the rest to have carried them", lambda: sum(carried()) == 18)
        assert carried()[0] == 4


def test_one_agent_serves_several_gateways(endpoint: Endpoint, tmp_path: Path) -> None:
    """Gateways with one state directory's CA are served from one join file, each with its rules."""
    with ExitStack() as stack:
        text = tunnel_ruleset(rule("web", endpoint.to, via="office"), state=tmp_path / "state")
        gateways = [stack.enter_context(Gateway.start(text)) for _ in range(2)]
        ports = [gateway.port(LISTENERS) for gateway in gateways]
        more = ["--gateway", f"127.0.0.1:{ports[1]}"]
        rules = gateways[0].folder / "rules.toml"
        join = enroll(rules, "office", f"127.0.0.1:{ports[0]}", tmp_path / "office.join", *more)
        running = stack.enter_context(agent(join, links=2))
        for gateway in gateways:
            talk(gateway.port("web"), endpoint)
        wait_for("both sessions", lambda: len(running.events("session")) == 2)
        assert Counter(record["listener"] for record in running.events("session")) == Counter(
            f"127.0.0.1:{port}" for port in ports
        )


def test_a_running_gateway_takes_a_new_agent_at_once_and_lets_go_of_a_revoked_one(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    """Neither enroll nor revoke needs a restart or reload; revoking ends what the agent carries."""
    text = tunnel_ruleset(rule("web", endpoint.to, via="office"), state=tmp_path / "state")
    with Gateway.start(text) as gateway:
        rules = gateway.folder / "rules.toml"
        with connect(gateway.address("web")) as early:
            assert read_to_end_or_reset(early) == b""
        where = f"127.0.0.1:{gateway.port(LISTENERS)}"
        join = enroll(rules, "office", where, tmp_path / "office.join")
        with agent(join) as running:
            with connect(gateway.address("web")) as client, endpoint.accept() as server:
                client.sendall(b"?")
                assert server.recv(1) == b"?"
                subprocess.run([*program(), "revoke", str(rules), "office"], check=True, capture_output=True)
                assert read_to_end_or_reset(client) == b""
            gateway.await_event("agent_lost")
            wait_for("the agent to hear of it", lambda: "revoked" in str(running.events("tunnel_down")))
        again = enroll(rules, "office", where, tmp_path / "again.join")
        with agent(again):
            talk(gateway.port("web"), endpoint)
        causes = [record["cause"] for record in gateway.sessions(3)]
    assert sorted(causes) == ["agent_offline", "endpoint_eof", "endpoint_reset"]


def read_to_end_or_reset(connection: socket.socket) -> bytes:
    """Read what comes before the end, of whatever kind."""
    try:
        return read_to_end(connection)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("to", ["127.0.0.1", "localhost"])
def test_an_agent_reaches_nothing_that_its_own_list_does_not_have(endpoint: Endpoint, to: str) -> None:
    """`--allow-to` holds whatever the gateway asks for, by address and by name: agent_denied."""
    rules = rule("web", f"{to}:{endpoint.port}", via="office")
    with tunnel(rules, allow_to=("192.0.2.0/24:*",)) as world:
        with connect(world.gateway.address("web")) as client:
            assert read_to_end_or_reset(client) == b""
        ours, theirs = world.gateway.session(), world.agent.session()
    assert (ours["stage"], ours["cause"]) == (theirs["stage"], theirs["cause"]) == ("dial", "agent_denied")


@pytest.mark.parametrize("allowed", ["127.0.0.0/8:*", "localhost:1-65535"])
def test_an_agent_reaches_what_its_own_list_has(endpoint: Endpoint, allowed: str) -> None:
    """A name is reached if the list has the name, or every address it resolves to."""
    rules = rule("web", f"localhost:{endpoint.port}", via="office")
    with tunnel(rules, allow_to=(allowed,)) as world:
        talk(world.gateway.port("web"), endpoint)
        assert world.agent.session()["endpoint"] == f"127.0.0.1:{endpoint.port}"


def test_the_next_endpoint_is_tried_when_one_refuses(endpoint: Endpoint) -> None:
    """A dial that fails at the agent goes on with the next endpoint of the rule."""
    with refusing() as port:
        rules = rule("web", [f"127.0.0.1:{port}", endpoint.to], via="office")
        with tunnel(rules) as world:
            for _ in range(2):
                talk(world.gateway.port("web"), endpoint)
            records = world.gateway.sessions(2)
    assert sorted(record.get("attempts", 1) for record in records) == [1, 2]
    assert {record["endpoint"] for record in records} == {endpoint.to}


def test_a_refused_endpoint_is_told_by_its_cause(endpoint: Endpoint) -> None:
    """With no endpoint left the session ends as the agent's dial did."""
    to = endpoint.to
    endpoint.close()
    with tunnel(rule("web", to, via="office")) as world:
        with connect(world.gateway.address("web")) as client:
            assert read_to_end_or_reset(client) == b""
        ours, theirs = world.gateway.session(), world.agent.session()
    assert (ours["stage"], ours["cause"]) == (theirs["stage"], theirs["cause"]) == ("dial", "dial_refused")


def test_a_burst_finds_channels(endpoint: Endpoint) -> None:
    """A hundred clients at once are served, though two channels were ready; the pool has grown by then."""
    with tunnel(rule("web", endpoint.to, via="office"), workers=2) as world, ExitStack() as stack:
        clients = [stack.enter_context(connect(world.gateway.address("web"))) for _ in range(100)]
        servers = [stack.enter_context(endpoint.accept()) for _ in clients]
        for client in clients:
            client.sendall(b"x")
        assert [server.recv(1) for server in servers] == [b"x"] * 100


def test_reload_moves_agents_to_the_new_workers(endpoint: Endpoint) -> None:
    """A reload keeps live sessions; new ones are carried as soon as the new workers accept."""
    with tunnel(rule("web", endpoint.to, via="office")) as world:
        with connect(world.gateway.address("web")) as client, endpoint.accept() as server:
            client.sendall(b"1")
            assert server.recv(1) == b"1"
            world.gateway.process.send_signal(signal.SIGHUP)
            world.gateway.await_event("reloaded")
            world.agent.await_event("tunnel_up", 2)
            talk(world.gateway.port("web"), endpoint)
            client.sendall(b"2")
            assert server.recv(1) == b"2"
        assert {record["cause"] for record in world.gateway.sessions(2)} <= {"client_eof", "endpoint_eof"}


def test_agents_lists_who_is_connected(endpoint: Endpoint, tmp_path: Path) -> None:
    """`portway agents` tells of the live links: since when, from where, how many channels and sessions."""
    admin = tmp_path / "admin.sock"
    text = tunnel_ruleset(rule("web", endpoint.to, via="office"), state=tmp_path / "state", workers=2)
    text = text.replace("[gateway]\n", f'[gateway]\nadmin = "{admin}"\n')
    with Gateway.start(text) as gateway:
        rules = gateway.folder / "rules.toml"
        join = enroll(rules, "office", f"127.0.0.1:{gateway.port(LISTENERS)}", tmp_path / "office.join")
        with agent(join, links=2), connect(gateway.address("web")) as client, endpoint.accept():
            client.sendall(b"?")
            listed = subprocess.run(
                [*program(), "agents", str(rules), "--json"], check=True, capture_output=True, text=True
            )
            told = subprocess.run(
                [*program(), "agents", str(rules)], check=True, capture_output=True, text=True
            ).stdout
    live = links_of(json.loads(listed.stdout))
    assert len(live) == 2
    assert {link["agent"] for link in live} == {"office"}
    assert {link["worker"] for link in live} == {0, 1}
    assert sum(link["sessions"] for link in live) == 1
    assert all(link["peer"].startswith("127.0.0.1:") for link in live)
    assert "office" in told


def links_of(listed: object) -> list[Record]:
    """Find the links in what `agents --json` prints."""
    if isinstance(listed, dict):
        if {"agent", "worker", "rtt_ms"} <= set(listed):
            return [listed]
        return [link for value in listed.values() for link in links_of(value)]
    return [link for value in listed for link in links_of(value)] if isinstance(listed, list) else []


def test_a_join_line_is_pasted(endpoint: Endpoint, tmp_path: Path) -> None:
    """What `enroll -o -` prints is all that the other side needs."""
    text = tunnel_ruleset(rule("web", endpoint.to, via="office"), state=tmp_path / "state")
    with Gateway.start(text) as gateway:
        where = f"127.0.0.1:{gateway.port(LISTENERS)}"
        words = ["enroll", str(gateway.folder / "rules.toml"), "office", "--gateway", where, "-o", "-"]
        line = subprocess.run([*program(), *words], check=True, capture_output=True, text=True).stdout
        with Gateway.start("", verb=("agent", "--workers", "1", "--join", line.strip())) as running:
            running.await_event("tunnel_up")
            talk(gateway.port("web"), endpoint)


def test_an_agent_tells_of_itself_but_not_its_key(tmp_path: Path) -> None:
    """`status` says that it is an agent, not the line it was joined by; after SIGHUP, what to do instead."""
    rules = tmp_path / "rules.toml"
    rules.write_text(tunnel_ruleset(rule("web", 80, via="office"), state=tmp_path / "state"))
    words = ["enroll", str(rules), "office", "--gateway", "127.0.0.1:1", "-o", "-"]
    line = subprocess.run([*program(), *words], check=True, capture_output=True, text=True).stdout.strip()
    admin = f"{tmp_path}/admin"
    verb = ("agent", "--workers", "1", "--admin", admin, "--join", line)
    with Gateway.start("", verb=verb) as running:
        running.await_event("ready")
        asked = [*program(), "status", "--admin", admin]
        told = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
        running.process.send_signal(signal.SIGHUP)
        (failed,) = running.await_event("reload_failed")
    assert "agent, joined by a line\n" in told
    assert line not in told
    assert failed["message"] == "an agent has no ruleset: restart it to have the join file read again"


def test_an_expired_join_file_is_told_at_the_start(tmp_path: Path) -> None:
    """The agent goes on, as it may be the clock; here it ends for want of its admin socket's directory."""
    rules = tmp_path / "rules.toml"
    rules.write_text(tunnel_ruleset(rule("web", 80, via="office"), state=tmp_path / "state"))
    join = enroll(rules, "office", "127.0.0.1:1", tmp_path / "office.join", "--valid", "1ms")
    words = ["agent", "--join", str(join), "--admin", f"{tmp_path}/none/admin"]
    done = subprocess.run([*program(), *words], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        f"the certificate of {join} has expired\n  hint: enroll the agent anew, or set the clock"
        in done.stderr
    )


def test_a_stopped_gateway_is_found_again(endpoint: Endpoint, tmp_path: Path) -> None:
    """An agent that was there before its gateway serves it as soon as that runs."""
    port, listen = free_for_both_families(), free_for_both_families(1)
    rules = rule("web", endpoint.to, listen=f"127.0.0.1:{listen}", via="office")
    text = tunnel_ruleset(rules, state=tmp_path / "state", listen=f"127.0.0.1:{port}")
    (tmp_path / "rules.toml").write_text(text)
    join = enroll(tmp_path / "rules.toml", "office", f"127.0.0.1:{port}", tmp_path / "office.join")
    with Gateway.start("", verb=("agent", "--workers", "1", "--join", str(join))) as running:
        running.await_event("tunnel_down")
        for number in (1, 2):
            with Gateway.start(text):
                running.await_event("tunnel_up", number)
                talk(listen, endpoint)
