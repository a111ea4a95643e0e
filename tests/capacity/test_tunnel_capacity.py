"""Agents by the hundred on one gateway, each with rules of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.asking import ask_gateway
from appliance.observe.log import wall_clock
from appliance.supervisor.status import AgentLink, Agents
from appliance.tunnel.authority import open_authority
from appliance.tunnel.join import Join
from appliance.tunnel.join_file import save
from appliance.tunnel.state import State
from tests.capacity.test_capacity import FDS, ROOT, _enough_descriptors, line, program  # noqa: F401  a fixture
from tests.e2e.gateway import Gateway, cpu_seconds, rule, wait_for
from tests.e2e.tunnel import LISTENERS, tunnel_ruleset

AGENTS = 200
RULES = 10
"""Of each agent."""
ALONE = 3
"""Agents that have a process of their own; one process is the others."""
WORKERS = 2
PATIENCE = 60.0
IDLE = 5.0
SESSIONS = 500
"""A second, through each of two agents."""


def name_of(agent: int) -> str:
    """Name an agent."""
    return f"site-{agent}"


class Site:
    """The gateway, and where its rules listen."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway = gateway
        self.folder = folder
        listening = {each["rule"]: each["listener"] for each in gateway.events("listening")}
        self.ports = {rule: int(listener.rpartition(":")[2]) for rule, listener in listening.items()}
        self.tunnel_port = self.ports.pop(LISTENERS)

    def links(self) -> tuple[AgentLink, ...]:
        """Ask for the control channels."""
        _, told = ask_gateway(str(self.folder / "admin"), b'{"verb":"agents"}', Agents)
        return told.links

    def enrol(self) -> list[Path]:
        """Make each agent's join file, as the verb does, which takes 0.3 s for each."""
        authority, now = open_authority(State(str(self.folder / "state"))), wall_clock()
        files = []
        for agent in range(AGENTS):
            issued = authority.enrol(name_of(agent), now)
            join = Join(
                name=name_of(agent),
                gateways=(f"127.0.0.1:{self.tunnel_port}",),
                ca=authority.certificate,
                certificate=issued.certificate,
                key=issued.key,
                expires=issued.record.expires,
            )
            files.append(self.folder / f"{name_of(agent)}.join")
            save(str(files[-1]), join)
        return files


@contextmanager
def site(endpoint: int, folder: Path) -> Iterator[Site]:
    """Start the gateway."""
    rules = [
        rule(f"{name_of(agent)}-{number}", endpoint, via=name_of(agent))
        for agent in range(AGENTS)
        for number in range(RULES)
    ]
    text = tunnel_ruleset(
        *rules,
        state=folder / "state",
        workers=WORKERS,
        agents=tuple(map(name_of, range(AGENTS))),
        admin=folder / "admin",
    )
    with Gateway.start(text, wrap=("prlimit", f"--nofile={FDS}:{FDS}")) as gateway:
        yield Site(gateway, folder)


@contextmanager
def agents(files: list[Path]) -> Iterator[list[Gateway]]:
    """Start them; most are one process."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Gateway.start(
                    "",
                    verb=("agent", *(word for file in some for word in ("--join", str(file)))),
                    wrap=("prlimit", f"--nofile={FDS}:{FDS}"),
                )
            )
            for some in (files[ALONE:], *([file] for file in files[:ALONE]))
        ]


def arrive(rate: float, seconds: float, *ports: int) -> dict[str, dict[str, Any]]:
    """Have clients come at so many a second to each port; give how they fared."""
    words = [sys.executable, "-m", "tests.capacity.arrivals", str(rate), str(seconds), *map(str, ports)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def cpu_share(pids: list[int], seconds: float) -> float:
    """Give which part of a core these use while nothing happens."""
    before = sum(map(cpu_seconds, pids))
    time.sleep(seconds)
    return (sum(map(cpu_seconds, pids)) - before) / seconds


def proportional_bytes(pids: list[int]) -> int:
    """Give the memory of processes, each shared page counted once among those who share it."""
    found = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found += sum(int(each.split()[1]) for each in rollup if each.startswith("Pss:"))
    return found * 1024


@pytest.mark.timeout(300)
def test_two_hundred_agents_with_ten_rules_each(tmp_path: Path) -> None:
    """All of them connect, every rule passes data, and being there costs next to nothing."""
    with program("echo") as server, site(int(line(server)), tmp_path) as gateway:
        files = gateway.enrol()
        start = time.monotonic()
        with agents(files) as running:
            wait_for("all links", lambda: len(gateway.links()) == AGENTS * WORKERS, PATIENCE)
            connected = time.monotonic() - start
            fared = arrive(0.1, 10.0, *gateway.ports.values())
            assert len(fared) == AGENTS * RULES
            assert {(each["served"], each["failed"]) for each in fared.values()} == {(1, 0)}
            records = gateway.gateway.sessions(AGENTS * RULES)
            carried = [record for each in running for record in each.events("session")]
            ours = gateway.gateway.workers, [pid for each in running for pid in each.workers]
            shares = [cpu_share(pids, IDLE) for pids in ours]
            memory = [proportional_bytes(pids) for pids in ours]
            two = arrive(SESSIONS, 5.0, *(gateway.ports[f"{name_of(agent)}-0"] for agent in (0, ALONE)))
    print(f"connected in {connected:.1f} s; idle {shares} of a core; {memory} bytes; {two}")
    assert {record["session"] for record in carried} == {record["session"] for record in records}
    assert all(record["rule"].startswith(f"{record['agent']}-") for record in records)
    assert [each["failed"] for each in two.values()] == [0, 0]
    assert shares[0] < 0.2
