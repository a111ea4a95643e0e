"""Everything at once, by dice: nothing breaks, nothing is left, and each record is in order."""

import os
import random
import signal
import time
from contextlib import ExitStack

import pytest

from appliance.observe.names import deviations
from tests.e2e import needs
from tests.e2e.datagram_peers import Answering, Crowd, Held, Peer, send_train, stopped
from tests.e2e.gateway import Gateway, open_fds, rule, ruleset, wait_for
from tests.e2e.peers import assert_idle

SECONDS = 6.0
MOST_KILLS = 4
SIZES = (0, 1, 100, 1472, 9000, 60_000)


class Endpoints:
    """Three endpoints that come and go, and answer now and then, or more than once."""

    def __init__(self, dice: random.Random, ends: ExitStack) -> None:
        self._dice = dice
        self._ends = ends
        self.held = [ends.enter_context(Held()) for _ in range(3)]
        self._live: dict[int, Answering] = {}

    def flip(self, number: int) -> None:
        """Open one, or close it."""
        if number in self._live:
            self._live.pop(number).close()
        else:
            found = Answering(self.held[number].address, self._answers, shared=True)
            self._live[number] = self._ends.enter_context(found)

    def _answers(self, data: bytes) -> list[bytes]:
        return [data] * (data[:1] > b"@") + [data[:100]] * (len(data) % 3)


def rules(endpoints: Endpoints, workers: int) -> str:
    """Write a ruleset of rules of every kind."""
    one, two, three = targets = [held.to for held in endpoints.held]
    name = f"localhost:{endpoints.held[1].port}"
    return ruleset(
        rule("one", one, protocol="udp", idle_timeout="200ms"),
        rule("pool", targets, listen=":0", protocol="udp", responses=1, idle_timeout="1s"),
        rule("few", targets, listen="0.0.0.0:0", protocol="udp", max_flows=30, idle_timeout="2s"),
        rule(
            "six", [one, two], listen="[::1]:0", protocol="tcp+udp", max_flows_per_client=3, idle_timeout="1s"
        ),
        rule("name", [name, three], protocol="udp", idle_timeout="300ms"),
        rule("small", one, protocol="udp", receive_buffer="4KiB", responses=2, idle_timeout="300ms"),
        workers=workers,
    )


class Clients:
    """Clients of all rules, each act by dice."""

    def __init__(self, dice: random.Random, ends: ExitStack, gateway: Gateway) -> None:
        self._dice = dice
        self._gateway = gateway
        self._four = [ends.enter_context(Peer()) for _ in range(30)]
        self._six = [ends.enter_context(Peer(("::1", 0))) for _ in range(10)]
        self._crowd = ends.enter_context(Crowd())
        self._ports = {name: gateway.port(name) for name in ("one", "pool", "few", "six", "name", "small")}

    def act(self) -> None:
        """Send a train, a crowd's datagrams, what waits for a stopped worker, or singles of any size."""
        dice = self._dice
        name = dice.choice(list(self._ports))
        host = "::1" if name == "six" else "127.0.0.1" if name in {"one", "name", "small"} else "127.0.0.2"
        client, address = dice.choice(self._six if name == "six" else self._four), (host, self._ports[name])
        match dice.randrange(10):
            case 0 | 1:
                size = dice.choice((1, 8, 100, 1200))
                send_train(client, [dice.randbytes(size) for _ in range(dice.randint(2, 40))], address)
            case 2 if name != "six":
                for _ in range(dice.randint(1, 100)):
                    self._crowd.send(dice.randrange(100_000), b"Crowd", address)
            case 3:
                with ExitStack() as held:
                    for pid in self._gateway.workers[:1]:
                        held.enter_context(stopped(pid))
                    for size in range(dice.randint(1, 80)):
                        client.send(bytes(size), address)
            case _:
                for _ in range(dice.randint(1, 20)):
                    client.send(dice.randbytes(dice.choice(SIZES)), address)

    def hear(self) -> None:
        """Take what some of them have got."""
        for client in self._dice.sample(self._four, 3):
            client.all_waiting()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_whatever_comes(workers: int) -> None:
    """Trains, floods, dying endpoints and workers, full buffers, caps: no fault, no leak, no odd record."""
    needs.ipv6()
    seed = int(os.environ.get("SEED", workers))
    print("SEED =", seed)
    dice = random.Random(seed)
    with ExitStack() as ends:
        endpoints = Endpoints(dice, ends)
        for number in (0, 1):
            endpoints.flip(number)
        wrap = ("prlimit", "--nofile=600:600")
        with Gateway.start(rules(endpoints, workers), wrap=wrap) as gateway:
            idle = sum(map(open_fds, gateway.workers))
            clients = Clients(dice, ends, gateway)
            begun, kills = time.monotonic(), 0
            while time.monotonic() - begun < SECONDS:
                clients.act()
                clients.hear()
                if dice.random() < 0.02:
                    endpoints.flip(dice.randrange(3))
                if dice.random() < 0.005 and kills < MOST_KILLS:
                    for pid in gateway.workers[:1]:
                        kills += 1
                        os.kill(pid, signal.SIGKILL)
                        gateway.await_event("worker_started", workers + kills)
            wait_for("all workers", lambda: len(gateway.workers) == workers)
            sources = 16 * 3 * workers  # what wildcard listeners may keep (`net.source`)
            wait_for(
                "the descriptors to be closed",
                lambda: sum(map(open_fds, gateway.workers)) <= idle + sources,
            )
            for pid in [gateway.process.pid, *gateway.workers]:
                assert_idle(pid)
            gateway.stop()
            events = gateway.events()
        assert not [deviations(event) for event in events if deviations(event)]
        assert sum(event["event"] == "session" for event in events) > 1000
