"""UDP flows by the thousand: as many at once as a worker may have, and all of them gone without a trace."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.capacity.test_capacity import FDS, _enough_descriptors  # noqa: F401  a fixture
from tests.e2e.datagram_peers import Crowd, Peer, cut
from tests.e2e.gateway import Gateway, open_fds, rule, ruleset, wait_for
from tests.e2e.peers import assert_idle

WAVES = 4
WAVE = 25_000 - 1_000
"""Flows at a time: fewer than nine tenths of the 28,232 ephemeral ports that a host has."""
STEP = 500
"""Datagrams on the way: they fit the endpoint's buffer, and each listener's."""
BUFFER = 1 << 22
PATIENCE = 60.0
TOKEN = b"a token."


class Tail:
    """The log of a gateway, read on as it grows: what it has by now costs 40 MB to read anew."""

    def __init__(self, log: Path) -> None:
        self._file = log.open("rb")
        self._rest = b""
        self.records: list[Any] = []
        """Session records."""

    def read(self) -> int:
        """Read on; give how many session records there are."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        self.records += [json.loads(line) for line in lines if line.startswith(b'{"event":"session"')]
        return len(self.records)

    def close(self) -> None:
        """Close the log."""
        self._file.close()


def open_flows(crowd: Crowd, numbers: range, address: tuple[str, int], endpoint: Peer) -> dict[int, Any]:
    """Have each of these clients send its number; give which port the endpoint saw for it."""
    sides = {}
    for start in range(numbers.start, numbers.stop, STEP):
        step = range(start, min(start + STEP, numbers.stop))
        for number in step:
            crowd.send(number, number.to_bytes(8), address)
        for _ in step:
            data, side = endpoint.receive()
            sides[int.from_bytes(data)] = side
    return sides


def private_bytes(pid: int) -> int:
    """Give a process's memory that it shares with none."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = [int(line.split()[1]) for line in rollup if line.startswith("Private_")]
    return sum(sizes) * 1024


@pytest.mark.timeout(300)
def test_a_hundred_thousand_flows_leave_nothing_behind() -> None:
    """After 100,000 flows that ended in silence, descriptors and memory are back, and each has its record."""
    with Peer(receive=BUFFER) as endpoint, Peer() as client, Crowd() as crowd:
        text = rule("way", endpoint.port, protocol="udp", idle_timeout="3s", max_flows_per_client=1000)
        wrap = ("prlimit", f"--nofile={FDS}:{FDS}")
        with Gateway.start(ruleset(text, workers=2), wrap=wrap) as gateway:
            address = gateway.address("way")
            pids = gateway.workers
            fds = [open_fds(pid) for pid in pids]
            tail = Tail(gateway.log)
            memory: list[int] = []
            for wave in range(1 + WAVES):
                numbers = range(wave * WAVE, (wave + 1) * WAVE)
                sides = open_flows(crowd, numbers, address, endpoint)
                assert sides.keys() == set(numbers)
                assert len(set(sides.values())) == WAVE
                wait_for("the records", lambda: tail.read() >= (wave + 1) * WAVE, PATIENCE)  # noqa: B023
                wait_for("the descriptors to be closed", lambda: [open_fds(pid) for pid in pids] == fds)
                memory.append(sum(map(private_bytes, pids)))
            for pid in pids:
                assert_idle(pid)
            client.send(b"still here?", address)
            assert endpoint.take() == b"still here?"
            cut(gateway)
            tail.read()
            tail.close()
            assert not gateway.log.read_bytes().count(b"_dropped")
            *records, last = tail.records
            assert last["client"] == client.to
    print([size >> 20 for size in memory], "MiB")
    assert len(records) == (1 + WAVES) * WAVE
    ends = Counter((record["cause"], record["up_datagrams"], record["up"]) for record in records)
    assert ends == {("idle_timeout", 1, 8): len(records)}
    assert len({record["client"] for record in records}) == len(records)
    assert len({record["session"] for record in records}) == len(records)
    assert memory[-1] < memory[0] + (6 << 20), "memory grows with each wave"


@pytest.mark.timeout(300)
def test_as_many_flows_as_a_worker_may_have() -> None:
    """A worker has flows_max flows at once, each of which passes data; more end the least recently used."""
    more = 500
    with Peer(receive=BUFFER) as endpoint, Peer() as client, Crowd() as crowd:
        text = rule("way", endpoint.port, protocol="udp", idle_timeout="1h")
        with Gateway.start(ruleset(text), wrap=("prlimit", f"--nofile={FDS}:{FDS}")) as gateway:
            address = gateway.address("way")
            (worker,) = gateway.workers
            fds = open_fds(worker)
            most = gateway.events("ready")[0]["flows_max"]
            assert most > 15_000
            sides = open_flows(crowd, range(most), address, endpoint)
            assert open_fds(worker) == fds + most
            assert not gateway.events("session")
            again = open_flows(crowd, range(most), address, endpoint)
            assert again == sides
            for number in (0, 7, most - 1):
                endpoint.send(TOKEN, sides[number])
                assert crowd.take(number) == TOKEN
            used = {0, 7, most - 1}
            open_flows(crowd, range(most, most + more), address, endpoint)
            ended = gateway.sessions(more)
            assert {record["cause"] for record in ended} == {"flow_limit"}
            oldest = [number for number in range(more + len(used)) if number not in used][:more]
            assert {record["client"] for record in ended} == {
                "{}:{}".format(*crowd.of(number)) for number in oldest
            }
            assert open_fds(worker) <= fds + most
            assert not asks_nothing(client, address, endpoint)
            records = cut(gateway)
            assert not gateway.events("log_dropped")
        assert len(records) == most + more + 1
        assert Counter(record["cause"] for record in records) == {"flow_limit": more + 1, "drain": most}


def asks_nothing(client: Peer, address: tuple[str, int], endpoint: Peer) -> bool:
    """Say whether a new client finds no way through."""
    client.send(TOKEN, address)
    return endpoint.take() != TOKEN
