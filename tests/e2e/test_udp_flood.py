"""Invented clients at one rule, thousands of addresses that never come back, cost the other rules nothing."""

import threading
import time
from contextlib import ExitStack, suppress
from typing import Self

import pytest

from tests.e2e.datagram_peers import Answering, Crowd, Peer, asks, counts, cut
from tests.e2e.gateway import Gateway, open_fds, rule, ruleset
from tests.e2e.peers import Echo, assert_idle, connect, echoes

FOREVER = "1h"
FDS = 400
SECONDS = 2.0


class Flood(threading.Thread):
    """Sends datagrams, each from an address and port that do not come again."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self._addresses = addresses
        self._ending = threading.Event()
        self.sent = 0

    def run(self) -> None:
        """Send some at once, again and again, faster than a worker can take them."""
        with Crowd() as crowd:
            while not self._ending.is_set():
                crowd.send(self.sent, b"flood", self._addresses[self.sent % len(self._addresses)])
                self.sent += 1
                if self.sent % 128 == 0:
                    time.sleep(0.001)  # the test's other threads want their turn, too

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()


def rules(flooded: int, steady: int, web: int, listeners: int, cap: str) -> str:
    """Write a ruleset with a rule to flood, one for other flows, and one for sessions."""
    listen = ", ".join(['"127.0.0.1:0"'] * listeners)
    hit = rule("flooded", flooded, protocol="udp", idle_timeout=FOREVER, receive_buffer="64KiB")
    return ruleset(
        hit.replace('listen = "127.0.0.1:0"', f"listen = [{listen}]\n{cap}"),
        rule("steady", steady, protocol="udp", idle_timeout=FOREVER),
        rule("web", web),
    )


def until_answered(client: Peer, address: tuple[str, int]) -> int:
    """Ask until there is an answer, as clients do: the queue may be full still. Give how often it took."""
    client.socket.settimeout(0.2)
    for tries in range(1, 100):
        client.send(b"after the flood", address)
        with suppress(TimeoutError):
            while client.receive()[1] != address:
                pass
            return tries
    raise AssertionError("a rule that was flooded takes no new clients any more")


@pytest.mark.parametrize(
    ("listeners", "cap"),
    [(1, ""), (20, ""), (1, "max_flows = 20"), (1, "max_flows_per_client = 1")],
    ids=["one port", "twenty ports", "a capped rule", "capped clients"],
)
def test_a_flood_at_one_rule(listeners: int, cap: str) -> None:
    """While a rule is flooded the flows of another one go on with no loss, new ones begin, and TCP works."""
    with Answering() as target, Answering() as steady, Echo() as echo, ExitStack() as ends:
        text = rules(target.port, steady.port, echo.port, listeners, cap)
        with Gateway.start(text, wrap=("prlimit", f"--nofile={FDS}:{FDS}")) as gateway:
            (worker,) = gateway.workers
            flows_max = gateway.events("ready")[0]["flows_max"]
            before = open_fds(worker)
            way, web = gateway.address("steady"), gateway.address("web")
            flooded = [gateway.address("flooded", index) for index in range(listeners)]
            old = [ends.enter_context(Peer()) for _ in range(5)]
            session = ends.enter_context(connect(web))
            for client in old:
                assert asks(client, way)
            assert echoes(session)
            with Flood(*flooded) as flood:
                begun = time.monotonic()
                turn = new = 0
                while time.monotonic() - begun < SECONDS:
                    turn += 1
                    for client in old:
                        assert asks(client, way, b"%d" % turn)
                    if new < flows_max // 4:  # so few that the flooded rule is the one with the most
                        new += 1
                        assert asks(ends.enter_context(Peer()), way, b"new")
                    assert echoes(session)
                    with connect(web) as another:
                        assert echoes(another)
                    assert open_fds(worker) <= FDS
            client = ends.enter_context(Peer())
            tries = sum(until_answered(client, address) for address in flooded)
            assert_idle(worker)
            assert open_fds(worker) <= before + flows_max + 2
            records = cut(gateway)
            dropped = sum(int(event["count"]) for event in gateway.events("datagrams_dropped"))
            assert not gateway.events("log_dropped")
            assert not gateway.events("listener_paused")
        of_rule = {name: [each for each in records if each["rule"] == name] for name in ("flooded", "steady")}
        assert {record["cause"] for record in of_rule["steady"]} == {"drain"}
        assert len(of_rule["steady"]) == len(old) + new
        assert sorted(steady.came.values(), reverse=True) == [turn + 1] * len(old) + [1] * new
        assert not any("drops" in record for record in of_rule["steady"])
        assert {record["cause"] for record in of_rule["flooded"]} == {"flow_limit", "drain"}
        assert len(of_rule["flooded"]) > 1000
        passed = sum(int(record["up_datagrams"]) for record in of_rule["flooded"])
        unsent = sum(sum(record.get("drops", {}).values()) for record in of_rule["flooded"])
        assert passed + unsent + dropped == flood.sent + tries


def test_a_torrent_of_answers_holds_up_nobody() -> None:
    """While one endpoint sends as fast as it can, flows of the same rule and of others, and TCP, go on."""
    with Peer() as loud, Answering() as steady, Echo() as echo, ExitStack() as ends:
        text = ruleset(
            rule("loud", [loud.to], protocol="udp", idle_timeout=FOREVER),
            rule("steady", steady.port, protocol="udp", idle_timeout=FOREVER),
            rule("web", echo.port),
        )
        with Gateway.start(text) as gateway:
            hearer, other = (ends.enter_context(Peer()) for _ in range(2))
            sides = []
            for client in (hearer, other):
                client.send(b"hello", gateway.address("loud"))
                sides.append(loud.receive()[1])
            clients = [ends.enter_context(Peer()) for _ in range(5)]
            session = ends.enter_context(connect(gateway.address("web")))
            ending = threading.Event()

            def pour() -> None:
                while not ending.is_set():
                    for _ in range(64):
                        loud.send(bytes(1000), sides[0])
                    time.sleep(0)

            thread = threading.Thread(target=pour)
            thread.start()
            try:
                begun, turns = time.monotonic(), 0
                while time.monotonic() - begun < SECONDS or turns < 20:
                    turns += 1
                    assert all(asks(client, gateway.address("steady")) for client in clients)
                    assert echoes(session)
                    loud.send(b"for the other", sides[1])
                    assert other.take() == b"for the other"
            finally:
                ending.set()
                thread.join()
            records = {record["client"]: record for record in cut(gateway)}
        for client in clients:
            assert counts(records[client.to])[::2] == (turns, turns)
        assert counts(records[other.to])[::2] == (1, turns)
        assert counts(records[hearer.to])[2] > 1000
