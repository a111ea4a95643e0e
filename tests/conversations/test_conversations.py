"""Thousands of random conversations through one gateway: nothing lost, nothing left behind.

SEED=n replays a run, CONVERSATIONS=n makes it longer or shorter.
"""

import hashlib
import os
import random
import resource
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest

from appliance.observe.names import deviations
from tests.conversations.client import address_of
from tests.conversations.peer import Account
from tests.conversations.plan import HEADER, Conversation, Part, block, plan
from tests.conversations.talks import Servers, by_number, hold
from tests.e2e.gateway import Gateway, Record, open_fds, resident_bytes, rule, ruleset, wait_for

COUNT = int(os.environ.get("CONVERSATIONS", "10000"))
WARM_UP = 600
"""Conversations before memory is looked at first: by then every buffer and pool has the size it keeps."""
AT_ONCE = 200
LEAK_BYTES = 1 << 20
"""What a worker may grow by meanwhile. 100 bytes left of each session would be as much."""
NOTHING = hashlib.sha256().hexdigest()


@pytest.fixture
def seed() -> int:
    """Give the seed of this run; pytest shows it when the test fails."""
    chosen = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={chosen}")
    return chosen


@pytest.mark.timeout(400)
@pytest.mark.parametrize("workers", [1, 2])
def test_every_byte_and_every_descriptor_is_accounted_for(workers: int, seed: int, tmp_path: Path) -> None:
    """What one end sent is what the other got; each has one true record; the worker is as it was before."""
    numbers = range(WARM_UP + COUNT)
    with Servers.start(seed, tmp_path) as servers:
        rules = ruleset(rule("talk", servers.port), workers=workers, drain="20s")
        with Gateway.start(rules) as gateway:
            port = gateway.port("talk")
            clients = hold(port, seed, numbers[:WARM_UP], AT_ONCE, tmp_path)
            before = leftovers(gateway, len(clients))
            clients |= hold(port, seed, numbers[WARM_UP:], AT_ONCE, tmp_path)
            after = leftovers(gateway, len(clients))
            assert gateway.workers == list(before), "a worker died"
            records = by_client(gateway.events("session"))
        reports = by_number(servers.end())
    judge_all(seed, numbers, clients, reports, records)
    for pid, (fds, memory) in after.items():
        assert fds == before[pid][0], "descriptors were left open"
        assert memory < before[pid][1] + LEAK_BYTES, f"{memory - before[pid][1]} bytes more than before"


# -- what is left behind ------------------------------------------------------------------------------


def leftovers(gateway: Gateway, talks: int) -> dict[int, tuple[int, int]]:
    """Give descriptors and resident bytes of each worker, once idle and without its spare pipes."""
    gateway.await_event("session", talks)
    give_up_pipes(gateway)
    return {pid: (open_fds(pid), resident_bytes(pid)) for pid in gateway.workers}


def give_up_pipes(gateway: Gateway) -> None:
    """Let each worker find no descriptor for a client: it closes the pipes that it keeps for later.

    Without this, a lost pipe would look like one that is kept.
    """
    pids = gateway.workers
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    paused = len(gateway.events("listener_paused")) + len(pids)
    resumed = len(gateway.events("listener_resumed")) + len(pids)
    clients: list[socket.socket] = []

    def are_paused() -> bool:
        """Knock until each worker has got a client that it cannot accept."""
        clients.append(socket.create_connection(gateway.address("talk")))
        return len(gateway.events("listener_paused")) >= paused

    served = len(gateway.events("session"))
    try:
        for pid, (_, hard) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        wait_for("every listener to be paused", are_paused)
    finally:
        for pid, both in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, both)
        for client in clients:
            client.close()
    gateway.await_event("listener_resumed", resumed)
    gateway.await_event("session", served + len(clients))


# -- what was said ------------------------------------------------------------------------------------


def by_client(records: Iterable[Record]) -> dict[str, Record]:
    """Sort the records of conversations by the client's address, which none shares; one each."""
    talks = [record for record in records if not record["client"].startswith("127.0.0.1:")]
    sorted_ = {record["client"].rpartition(":")[0]: record for record in talks}
    assert len(sorted_) == len(talks), "a session has two records"
    return sorted_


def judge_all(
    seed: int,
    numbers: range,
    clients: dict[int, Account],
    servers: dict[int, Account],
    records: dict[str, Record],
) -> None:
    """Compare what both ends and the log say with what was planned; report the first few differences."""
    data = block(seed)
    found: list[str] = []
    for number in numbers:
        talk = plan(seed, number)
        record = records.pop(address_of(number), None)
        client, server = clients.pop(number, None), servers.pop(number, None)
        if client is None or record is None:
            found.append(f"{number}: client {client}, record {record}")
            continue
        if server is None:
            # The abort may overtake the header.
            assert talk.client.aborts, f"{number}: no endpoint heard of it"
            server = Account(number, 0, NOTHING, 0, NOTHING, "reset")
        wrong = judge_abort if talk.client.aborts or talk.server.aborts else judge
        reasons = [*wrong(talk, client, server, record, data), *deviations(record)]
        if reasons:
            found.append(f"{number}: {reasons}\n  {talk}\n  {client}\n  {server}\n  {record}")
    assert not found, f"{len(found)} conversations, such as:\n" + "\n".join(found[:5])
    for unknown in (clients, servers, records):
        assert not unknown, "nobody planned these"


def judge(
    talk: Conversation, client: Account, server: Account, record: Record, data: memoryview
) -> Iterable[str]:
    """Say what is wrong with a conversation that both ended in order."""
    if client.ended != "eof" or server.ended != "eof":
        yield "it did not end in order"
    if (client.sent, server.sent) != (talk.client.size, talk.server.size):
        yield "an end did not send its part"
    if (client.received, client.received_sha256) != (server.sent, server.sent_sha256):
        yield "the client got something else"
    if (server.received, server.received_sha256) != (client.sent, client.sent_sha256):
        yield "the endpoint got something else"
    if record["up"] != HEADER.size + talk.client.size or record["down"] != talk.server.size:
        yield "the record has other counts"
    if record["stage"] != "relay" or record["cause"] not in causes(talk):
        yield "the record has another stage or cause"


def judge_abort(
    talk: Conversation, client: Account, server: Account, record: Record, data: memoryview
) -> Iterable[str]:
    """Say what is wrong with a conversation that one side aborted."""
    ends = ("aborted", "reset") if talk.client.aborts else ("reset", "aborted")
    if (client.ended, server.ended) != ends:
        yield "the abort was not passed on as one"
    if not is_prefix(client, talk.server, data) or not is_prefix(server, talk.client, data):
        yield "an end got something that was not sent"
    if not client.received <= record["down"] <= server.sent:
        yield "`down` is not between what the client got and what the endpoint sent"
    if not server.received <= max(0, record["up"] - HEADER.size) <= client.sent:
        yield "`up` is not between what the endpoint got and what the client sent"
    if record["cause"] != ("client_reset" if talk.client.aborts else "endpoint_reset"):
        yield "the record blames the wrong side"


def is_prefix(account: Account, sender: Part, data: memoryview) -> bool:
    """Whether an end got the beginning of what the other one had to send."""
    got = data[sender.offset : sender.offset + min(account.received, sender.size)]
    return hashlib.sha256(got).hexdigest() == account.received_sha256


def causes(talk: Conversation) -> set[str]:
    """Give the causes that an orderly conversation may have had."""
    if talk.server.waits:
        return {"client_eof"}
    if talk.client.waits:
        return {"endpoint_eof"}
    return {"client_eof", "endpoint_eof"}
