"""As `test_conversations`, through a tunnel: each of its ends writes a record, and neither leaves anything.

SEED=n replays a run, CONVERSATIONS=n makes it longer or shorter.
"""

import os
import resource
import socket
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from appliance.observe.names import deviations
from appliance.tunnel.pool import FIRST_READY
from tests.conversations.client import address_of
from tests.conversations.plan import Conversation, plan
from tests.conversations.talks import Servers, by_number, hold
from tests.conversations.test_conversations import (
    AT_ONCE,
    WARM_UP,
    by_client,
    causes,
    give_up_pipes,
    judge_all,
    seed,  # noqa: F401  a fixture
)
from tests.e2e.gateway import Record, open_fds, resident_bytes, rule, wait_for
from tests.e2e.tunnel import Tunnel, tunnel

COUNT = int(os.environ.get("CONVERSATIONS", "3000"))
LEAK_BYTES = {"none": 1 << 20, "tls": 8 << 20}
"""As there. With TLS, one worker of two grew by up to 6.1 MB until 10,000 conversations, and none at all from
there to 16,000: OpenSSL's buffers come in many sizes. Without, none grew by more than 0.2 MB."""
PATIENCE = 60.0


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("encryption", "workers"), [("none", 1), ("tls", 2)])
def test_both_ends_account_for_every_byte(
    encryption: str,
    workers: int,
    seed: int,  # noqa: F811
    tmp_path: Path,
) -> None:
    """What one end sent is what the other got; a record at the gateway, one at the agent; nothing is left."""
    numbers = range(WARM_UP + COUNT)
    with Servers.start(seed, tmp_path) as servers:
        way = rule("talk", servers.port, via="office")
        with tunnel(way, workers=workers, agent_workers=workers, encryption=encryption, drain="20s") as world:
            pids = world.gateway.workers, world.agent.workers
            idle = Idle.of(world)
            port = world.gateway.port("talk")
            clients = hold(port, seed, numbers[:WARM_UP], AT_ONCE, tmp_path)
            before = memory_once_idle(world, idle, len(clients))
            clients |= hold(port, seed, numbers[WARM_UP:], AT_ONCE, tmp_path)
            after = memory_once_idle(world, idle, len(clients))
            assert pids == (world.gateway.workers, world.agent.workers), "a worker died"
            records = by_client(world.gateway.events("session"))
            carried = by_client(world.agent.events("session"))
        reports = by_number(servers.end())
    judge_pairs(seed, numbers, records, carried)
    judge_all(seed, numbers, clients, reports, records)
    grown = {pid: after[pid] - before[pid] for pid in after}
    print(grown)
    assert max(grown.values()) < LEAK_BYTES[encryption], f"bytes more than before: {grown}"


# -- what is left behind ------------------------------------------------------------------------------


class Idle(NamedTuple):
    """Descriptors of the gateway's workers, of the agent's, and those of them that are ready channels'."""

    gateway: dict[int, int]
    agent: dict[int, int]

    @classmethod
    def of(cls, world: Tunnel) -> "Idle":
        """Give what is open beside the data channels before any was used."""
        wait_for("data channels", lambda: {link.ready for link in world.links()} == {FIRST_READY})
        return cls.look(world)

    @classmethod
    def look(cls, world: Tunnel) -> "Idle":
        """Count them; what is between two states counts wrong, and is to be counted again."""
        ready = Counter[int]()
        for link in world.links():
            ready[link.worker] += link.ready
        # Worker i of the agent serves worker i of the gateway where there are as many of both.
        return cls(
            {pid: open_fds(pid) - ready[worker] for worker, pid in enumerate(world.gateway.workers)},
            {pid: open_fds(pid) - ready[worker] for worker, pid in enumerate(world.agent.workers)},
        )


def memory_once_idle(world: Tunnel, idle: Idle, talks: int) -> dict[int, int]:
    """Wait until both have recorded so many, and have the descriptors of before; give resident bytes."""
    world.gateway.await_event("session", talks)
    world.agent.await_event("session", talks)
    give_up_pipes(world.gateway)
    give_up_agents_pipes(world)
    found: list[Idle] = []

    def is_back() -> bool:
        found.append(Idle.look(world))
        return found[-1] == idle

    try:
        wait_for("descriptors to be closed", is_back, PATIENCE)
    except AssertionError as late:
        raise AssertionError(f"{found[-1]}, and {idle} before") from late
    return {pid: resident_bytes(pid) for pid in (*world.gateway.workers, *world.agent.workers)}


def give_up_agents_pipes(world: Tunnel) -> None:
    """As `give_up_pipes`: an agent closes them when it finds no descriptor to dial with."""
    pids = [pid for pid in world.agent.workers if pipes(pid)]
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    clients: list[socket.socket] = []

    def are_closed() -> bool:
        client = socket.socket()
        clients.append(client)
        with suppress(ConnectionResetError):  # it is refused, perhaps before connect(2) has returned
            client.connect(world.gateway.address("talk"))
        return not any(map(pipes, pids))

    served = len(world.gateway.events("session"))
    try:
        for pid, (_, hard) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        wait_for("pipes to be closed", are_closed)
    finally:
        for pid, both in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, both)
        for client in clients:
            client.close()
    world.gateway.await_event("session", served + len(clients))


def pipes(pid: int) -> int:
    """Count a process's ends of pipes."""
    found = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += str(fd.readlink()).startswith("pipe:")
    return found


# -- what was said ------------------------------------------------------------------------------------


def judge_pairs(seed: int, numbers: range, gateways: dict[str, Record], agents: dict[str, Record]) -> None:  # noqa: F811
    """Compare the records of both ends; report the first few differences."""
    found: list[str] = []
    for number in numbers:
        talk, client = plan(seed, number), address_of(number)
        gateway, agent = gateways.get(client), agents.pop(client, None)
        if gateway is None or agent is None:
            found.append(f"{number}: gateway {gateway}, agent {agent}")
            continue
        reasons = [*judge_pair(talk, gateway, agent), *deviations(agent)]
        if reasons:
            found.append(f"{number}: {reasons}\n  {talk}\n  {gateway}\n  {agent}")
    assert not found, f"{len(found)} conversations, such as:\n" + "\n".join(found[:5])
    assert not agents, "nobody planned these"


def judge_pair(talk: Conversation, gateway: Record, agent: Record) -> Iterable[str]:
    """Say in what the two records of a conversation do not fit together."""
    if not gateway["session"] or gateway["session"] != agent["session"]:
        yield "they have not the same id"
    if (gateway["agent"], agent["agent"]) != ("office", "office"):
        yield "the agent is not named"
    if gateway["endpoint"] != agent["endpoint"]:
        yield "they name two endpoints"
    if "attempts" in gateway or "attempts" in agent:
        yield "it was opened twice"
    if gateway["stage"] != agent["stage"]:
        yield "they tell two stages"
    if talk.client.aborts or talk.server.aborts:
        if gateway["cause"] != agent["cause"]:
            yield "they tell two causes"
        # What is under way is lost.
        if agent["up"] > gateway["up"] or gateway["down"] > agent["down"]:
            yield "more came out of the tunnel than went in"
    elif (gateway["up"], gateway["down"]) != (agent["up"], agent["down"]):
        yield "they counted other bytes"
    elif not {gateway["cause"], agent["cause"]} <= causes(talk):
        # Ends that pass each other on the way are met in another order at each end of it.
        yield "a cause that cannot be"
