"""Tunnels: how their two ends are configured, what is read of them, goals and the table."""

import json
import random
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from bench.process import FailedError
from bench.relays import BULK, DIRECT, HTTP, KINDS, PORTWAY, Route, Way
from bench.tunnel import frp, portway, rathole, ssh
from bench.tunnel.certificates import NAME, PASSWORD, write_identity
from bench.tunnel.distance import due
from bench.tunnel.first_byte import summary
from bench.tunnel.loads import parse_first_bytes
from bench.tunnel.pair import ENCRYPTED, PLAIN, Site, parse_listeners
from bench.tunnel.report import (
    GOALS,
    GROUPS,
    METRICS,
    PEERS,
    Goal,
    Results,
    best,
    document,
    members,
    table,
    values,
    verdict,
)
from bench.tunnel.run import BULK as BULK_LOAD
from bench.tunnel.run import FAR, FORWARD, MEMORY, REFERENCES, SESSIONS, TUNNELS, fits, takes_part

ROUTES = (
    Route(Way(HTTP, ("127.0.0.9", 20_000)), ("127.0.0.9", 20_001)),
    Route(Way(BULK, ("127.0.0.1", 20_002)), ("127.0.0.9", 20_003)),
)
CPU = METRICS["bulk1_up_cpu"]
RATE = METRICS["bulk1_up_gbps"]
MEMORY_GOAL = Goal("memory_full", "memory", ("frp",))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Give a place where the agent dials something else than the gateway."""
    return Site(tmp_path, ROUTES, ("127.0.0.9", 7_000), ("127.0.0.9", 7_001))


def test_frp_listens_where_the_load_connects(site: Site) -> None:
    """The server binds the tunnel's address; the client dials the line's and proxies every route."""
    server = tomllib.loads(frp.frps_config(site, pooled=False))
    client = tomllib.loads(frp.frpc_config(site, pooled=False, tls=True))
    assert (server["bindAddr"], server["bindPort"], server["proxyBindAddr"]) == (
        "127.0.0.9",
        7_000,
        "127.0.0.9",
    )
    assert (client["serverAddr"], client["serverPort"]) == ("127.0.0.9", 7_001)
    found = [(each["localIP"], each["localPort"], each["remotePort"]) for each in client["proxies"]]
    assert found == [("127.0.0.9", 20_000, 20_001), ("127.0.0.1", 20_002, 20_003)]


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("tls", [True, False])
def test_frp_is_set_alike_on_both_sides(site: Site, pooled: bool, tls: bool) -> None:
    """Multiplexing is on or off on both; a pool is there only without it, and the server allows its size."""
    server = tomllib.loads(frp.frps_config(site, pooled=pooled))["transport"]
    client = tomllib.loads(frp.frpc_config(site, pooled=pooled, tls=tls))["transport"]
    assert server["tcpMux"] is client["tcpMux"] is (not pooled)
    assert client.get("poolCount", 0) == server.get("maxPoolCount", 0) == (frp.POOL if pooled else 0)
    assert client["tls"]["enable"] is tls


def test_rathole_has_a_service_for_each_route(site: Site) -> None:
    """The server binds where the load connects, the client dials the endpoints, and both know one token."""
    server = tomllib.loads(rathole.config(site, "server", ""))["server"]
    client = tomllib.loads(rathole.config(site, "client", ""))["client"]
    assert (server["bind_addr"], client["remote_addr"]) == ("127.0.0.9:7000", "127.0.0.9:7001")
    assert server["default_token"] == client["default_token"]
    assert server["services"] == {
        HTTP: {"bind_addr": "127.0.0.9:20001"},
        BULK: {"bind_addr": "127.0.0.9:20003"},
    }
    assert client["services"] == {
        HTTP: {"local_addr": "127.0.0.9:20000"},
        BULK: {"local_addr": "127.0.0.1:20002"},
    }


def test_rathole_keys_are_read_or_refused() -> None:
    """The two keys are found by their headings; what has none of them is no pair of keys."""
    assert rathole.parse_keys("Private Key:\nabc=\n\nPublic Key:\ndef=\n") == ("abc=", "def=")
    with pytest.raises(FailedError, match="genkey"):
        rathole.parse_keys("error: no such curve")


def test_the_identity_is_that_of_the_name(tmp_path: Path) -> None:
    """What the server shows is certified for the name the client asks for, by the root the client trusts."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    identity, root = write_identity(tmp_path, now)
    key, certificate, _ = pkcs12.load_key_and_certificates(identity.read_bytes(), PASSWORD.encode())
    assert key is not None
    assert certificate == x509.load_pem_x509_certificate(root.read_bytes())
    assert certificate is not None
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]


def test_ssh_forwards_each_route(site: Site) -> None:
    """A -R for each route, with the address the load connects to, which the server lets it choose."""
    words = ssh.client_command(site, site.directory / "known", "me")
    asked = [words[place + 1] for place, word in enumerate(words) if word == "-R"]
    assert asked == ["127.0.0.9:20001:127.0.0.9:20000", "127.0.0.9:20003:127.0.0.1:20002"]
    assert "Port=7001" in words
    assert words[-1] == "me@127.0.0.9"
    config = ssh.server_config(site)
    assert "GatewayPorts clientspecified\n" in config
    assert "ListenAddress 127.0.0.9:7000\n" in config
    assert f"Ciphers={ssh.CIPHER}" in words
    assert f"Ciphers {ssh.CIPHER}\n" in config


@pytest.mark.parametrize("encryption", ["tls", "none"])
def test_portway_goes_through_its_agent(site: Site, encryption: str) -> None:
    """Every rule of the ruleset is reached via the one agent, with the encryption the group is about."""
    found = tomllib.loads(portway.ruleset(site, encryption))
    assert {rule["via"] for rule in found["rule"]} == {found["agent"][0]["name"]} == {portway.AGENT}
    assert found["agent"][0]["encryption"] == encryption
    assert found["tunnel"]["listen"] == "127.0.0.9:7000"
    assert [(rule["listen"], rule["to"]) for rule in found["rule"]] == [
        ("127.0.0.9:20001", "127.0.0.9:20000"),
        ("127.0.0.9:20003", "127.0.0.1:20002"),
    ]


def test_listeners_are_read_from_proc() -> None:
    """Listening sockets are found by address and port; connected ones are not listened at."""
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"
        "   0: 0900007F:1B58 00000000:0000 0A 00000000:00000000 00:00000000 00000000\n"
        "   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000\n"
        "   2: 0100007F:C350 0900007F:1B58 01 00000000:00000000 00:00000000 00000000\n"
    )
    assert parse_listeners(text) == {("127.0.0.9", 7_000), ("0.0.0.0", 22)}


def test_the_long_line_keeps_the_order() -> None:
    """What was sent later never arrives earlier, and nothing takes less than one way or comes too soon."""
    roll = random.Random(5)
    sent = sorted(roll.uniform(0, 0.1) for _ in range(200))
    at, arrived = 0.0, []
    for now in sent:
        at = due(now, 0.01, 0.05, at)
        arrived.append(at)
    assert arrived == sorted(arrived)
    assert all(then >= max(now + 0.01, 0.05) for now, then in zip(sent, arrived, strict=True))


def test_first_bytes_are_summed_up() -> None:
    """The median and the ninety-ninth of a hundred, whatever order they came in."""
    taken = [*range(1, 101)]
    random.Random(1).shuffle(taken)
    found = summary(taken)
    assert (found.sessions, found.p50_ns, found.p99_ns) == (100, 51, 100)


@pytest.mark.parametrize("output", ["Traceback", json.dumps({"sessions": 9, "p50_ns": 1, "p99_ns": 1})])
def test_first_bytes_that_are_missing_are_refused(output: str) -> None:
    """A program that failed, or fewer sessions than asked for: the numbers are never used."""
    with pytest.raises(FailedError, match="first byte"):
        parse_first_bytes(output, 10)


def test_every_group_has_one_of_portway_and_some_to_compare() -> None:
    """Encrypted and plain each hold one Portway, frp both ways and rathole; none is in both."""
    for group in GROUPS:
        assert len(members(group, ("portway",))) == 1
        assert len(members(group, ("frp",))) == 2
        assert members(group, ("rathole",))
    assert not set(members(ENCRYPTED, PEERS)) & set(members(PLAIN, PEERS))
    assert {tunnel.group for tunnel in TUNNELS.values()} == set(GROUPS)


def test_references_are_measured_for_the_first_byte_only() -> None:
    """No relay, and a plain forward, are there for latency; the distance of the bare connection is known."""
    loads = (MEMORY, FAR, SESSIONS, BULK_LOAD)
    assert [load for load in loads if takes_part(KINDS[DIRECT], load)] == [SESSIONS]
    assert [load for load in loads if takes_part(REFERENCES[FORWARD], load)] == [FAR, SESSIONS]
    assert all(takes_part(TUNNELS["ssh"].kind, load) for load in loads)
    assert REFERENCES[FORWARD].commands is KINDS[PORTWAY].commands


def test_a_repetition_is_begun_only_if_it_ends_in_time() -> None:
    """Another repetition is as long as the longest so far; the first is always begun."""
    assert fits(0.0, 0.0, 60.0)
    assert fits(40.0, 20.0, 60.0)
    assert not fits(41.0, 20.0, 60.0)


def test_the_better_setting_of_a_peer_counts() -> None:
    """Of frp's settings and rathole's the best median is the limit; ssh is shown, and is none of them."""
    measured = {"frp-tls": [5.0], "frp-tls-pool": [3.0, 4.0, 9.0], "rathole-tls": [6.0], "ssh": [1.0]}
    assert best(CPU, measured, members(ENCRYPTED, PEERS)) == ("frp-tls-pool", 4.0)
    assert best(RATE, measured, members(ENCRYPTED, PEERS)) == ("rathole-tls", 6.0)
    found = values(CPU, measured | {"frp-plain": [0.5], DIRECT: [0.1]}, ENCRYPTED)
    assert found["ssh"].ratio == 0.25
    assert found[DIRECT].ratio is None
    assert "frp-plain" not in found


def test_goals_are_held_within_their_group() -> None:
    """Plain is never compared with encrypted, memory never with rathole's."""
    samples = {
        "memory_full": {"portway-tls": [90.0], "frp-tls": [100.0], "rathole-tls": [50.0], "frp-plain": [80.0]}
    }
    found = verdict(MEMORY_GOAL, ENCRYPTED, samples)
    assert (found.limit, found.reached, found.met) == (100.0, 90.0, True)
    assert verdict(MEMORY_GOAL, PLAIN, samples).met is None


@pytest.mark.parametrize(("reached", "met"), [(5.0, True), (4.9, False)])
def test_a_rate_must_be_as_large(reached: float, met: bool) -> None:
    """A throughput below the better peer's is a goal not reached."""
    samples = {"bulk1_up_gbps": {"portway-plain": [reached], "frp-plain": [4.0], "rathole-plain": [5.0]}}
    goal = next(goal for goal in GOALS if goal.metric == "bulk1_up_gbps")
    assert verdict(goal, PLAIN, samples).met is met


@pytest.mark.parametrize(("reached", "met"), [(240.0, True), (241.0, False)])
def test_a_first_byte_has_a_plain_forward_and_a_round_trip(reached: float, met: bool) -> None:
    """The limit is what a plain forward took, and the round trip of a connection without any relay."""
    samples = {
        "first_p50": {"portway-tls": [reached], FORWARD: [200.0], DIRECT: [100.0]},
        "single_p50": {DIRECT: [40.0], FORWARD: [90.0]},
    }
    goal = next(goal for goal in GOALS if goal.metric == "first_p50")
    assert verdict(goal, ENCRYPTED, samples).met is met


def test_far_away_the_round_trip_is_the_lines() -> None:
    """With a long line the round trip is known, and there is no bare connection to ask."""
    goal = next(goal for goal in GOALS if goal.metric == "far_p50")
    found = verdict(goal, PLAIN, {"far_p50": {"portway-plain": [61.0], FORWARD: [41.0]}})
    assert (found.limit, found.met) == (61.0, True)


def test_the_table_says_what_was_reached_and_what_is_missing() -> None:
    """A row for each tunnel in its group's table, the goals, who is absent and what was discarded."""
    samples = {"bulk1_up_cpu": {"portway-tls": [2.0], "frp-tls": [3.0], "frp-plain": [1.0]}}
    results = Results(
        ("portway-tls", "frp-tls", "frp-plain"), samples, {"ssh": "no sshd"}, ["rathole, bulk: it ended"]
    )
    text = table(results)
    rows = [line.split() for line in text.splitlines()]
    assert ["Portway,", "TLS", "-", "2.00", "±0%", "0.67x", "-", "-"] in rows
    assert any(
        line.startswith("CPU per byte, 1 stream up, encrypted") and "met" in line
        for line in text.splitlines()
    )
    assert "ABSENT     ssh: no sshd" in text
    assert "DISCARDED  rathole, bulk: it ended" in text
    goals = document(results)["goals"]
    assert isinstance(goals, list)
    assert [goal["met"] for goal in goals if goal["metric"] == "bulk1_up_cpu"] == [True, None]
