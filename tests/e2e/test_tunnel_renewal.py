"""A certificate is renewed before it expires, without a cut."""

import shutil
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.e2e.gateway import Gateway, rule, wait_for
from tests.e2e.peers import Endpoint, connect
from tests.e2e.test_tunnel import talk
from tests.e2e.tunnel import LISTENERS, agent, enroll, tunnel_ruleset

VALID = 9
"""Seconds that the first certificate is good for: it is renewed after two thirds of them."""


def expires(join: Path) -> datetime:
    """Tell when the certificate in a join file expires."""
    found = tomllib.loads(join.read_text())["expires"]
    assert isinstance(found, datetime)
    return found


def test_an_agent_has_a_new_certificate_in_time(tmp_path: Path) -> None:
    """Every worker has it before the old one expires; live sessions and control channels go on."""
    with Endpoint() as endpoint:
        text = tunnel_ruleset(rule("web", endpoint.to, via="office"), state=tmp_path / "state", workers=2)
        with Gateway.start(text) as gateway:
            where = f"127.0.0.1:{gateway.port(LISTENERS)}"
            rules = gateway.folder / "rules.toml"
            join = enroll(rules, "office", where, tmp_path / "office.join", "--valid", f"{VALID}s")
            first = expires(join)
            with agent(join, workers=2, links=2) as running:
                with connect(gateway.address("web")) as client, endpoint.accept() as server:
                    client.sendall(b"1")
                    assert server.recv(1) == b"1"
                    gateway.await_event("certificate_renewed", timeout=2 * VALID)
                    running.await_event("certificate_renewed", 2, timeout=VALID)
                    wait_for("the old certificate to expire", lambda: datetime.now(UTC) > first, 2 * VALID)
                    for _ in range(20):  # more than there were channels ready
                        talk(gateway.port("web"), endpoint)
                    client.sendall(b"2")
                    assert server.recv(1) == b"2"
                assert not running.events("tunnel_down")
            assert not [lost for lost in gateway.events("agent_lost") if lost["level"] == "warning"]
            assert first < datetime.now(UTC) < expires(join) < datetime.now(UTC) + timedelta(seconds=VALID)
            with agent(join):
                talk(gateway.port("web"), endpoint)


def test_an_expired_certificate_is_refused_by_its_name(tmp_path: Path) -> None:
    """An agent that stayed away for too long is told, and so is the gateway's log."""
    with Endpoint() as endpoint:
        text = tunnel_ruleset(rule("web", endpoint.to, via="office"), state=tmp_path / "state")
        with Gateway.start(text) as gateway:
            where = f"127.0.0.1:{gateway.port(LISTENERS)}"
            rules = gateway.folder / "rules.toml"
            join = enroll(rules, "office", where, tmp_path / "office.join", "--valid", "1s")
            kept = tmp_path / "kept.join"
            shutil.copy(join, kept)
            wait_for("it to expire", lambda: datetime.now(UTC) > expires(kept) + timedelta(seconds=1))
            with Gateway.start("", verb=("agent", "--workers", "1", "--join", str(kept))) as running:
                refused = gateway.await_event("tunnel_refused")
                assert refused[0]["refusal"] == "expired"
                down = running.await_event("tunnel_down")
                assert "expired" in down[0]["error"]
