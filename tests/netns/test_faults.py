"""A tunnel is back within 3 s of its network, and what breaks it leaves nothing behind.

Each case has hosts of its own, so those that mostly wait run side by side. What was measured is printed
(pytest -s). TUNNEL_CUTS are the lengths of the cuts in seconds: TUNNEL_CUTS=1,30,600.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final

import pytest

from tests.e2e.gateway import wait_for
from tests.e2e.peers import name_of
from tests.netns.world import (
    GATEWAY,
    HEARTBEAT,
    IDLE,
    INSIDE,
    OUTSIDE,
    TUNNEL_PORT,
    Client,
    Process,
    World,
    name_gateway,
    world,
)
from tests.real.namespaces import device_of
from tests.real.programs import find

BACK: Final = 3.0
"""Seconds after which service is back: the promise itself."""

NOTICED: Final = 2 * HEARTBEAT + 1 / 16
"""Seconds after which a link that is dead has been noticed, but for what a busy machine takes."""

BUSY: Final = 1.0
"""Seconds for a machine that does other things as well."""

AGENT_IDLE: Final = 10.0
"""Seconds by which a session may be idle longer on an agent: the gateway's time-out is the rule's."""

CUTS: Final = [float(text) for text in os.environ.get("TUNNEL_CUTS", "1,6,30").split(",")]

AT_ONCE: Final = 4
"""Cases that run side by side."""

Case = Callable[[], None]


def tell(what: str, **figures: float | str) -> None:
    """Print what was measured."""
    texts = [f"{name} {it if isinstance(it, str) else f'{it:.2f} s'}" for name, it in figures.items()]
    print(f"{what}: {', '.join(texts)}")


class Live:
    """Sessions that were there before: half of them say something every now and then, half are silent."""

    def __init__(self, made: World) -> None:
        self.made = made
        self.clients = made.opened(6)
        self._names = {name_of(client.connection) for client in self.clients}
        self._ends = (made.gateway, *made.agents)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _talk(self) -> None:
        while not self._stop.wait(0.25):
            for client in self.clients[::2]:
                try:
                    client.connection.send(b"y")
                except OSError:
                    continue

    def stop(self) -> None:
        """Say nothing more."""
        self._stop.set()
        self._thread.join()

    def after(self) -> str:
        """Say what has become of them: each goes on, or has ended within its time-out."""
        self.stop()
        for client in self.clients:
            client.state, client.took = "waits", 0.0
            while client.state == "waits" and _drained(client):
                pass
        self.made.await_all(self.clients, IDLE + BUSY)
        went_on = sum(client.state == "echoed" for client in self.clients)
        return f"{went_on} go on, {len(self.clients) - went_on} have ended"

    def close(self) -> None:
        """Let go of all of them."""
        self.stop()
        for client in self.clients:
            client.close()

    def have_records(self) -> None:
        """Check that each of them is in the gateway's log, and in an agent's."""
        gateway, *agents = self._ends
        for logs in ([gateway], agents):
            if not any(log.loses_records for log in logs):
                wait_for("records of all sessions", lambda of=logs: self._names <= _recorded(of))  # type: ignore[misc]


def _recorded(processes: list[Process]) -> set[str]:
    """Give the clients of the sessions that have ended."""
    return {str(record["client"]) for process in processes for record in process.events("session")}


def _drained(client: Client) -> bool:
    """Read an echo that came meanwhile; False: there is none, or the end."""
    try:
        return bool(client.connection.recv(1 << 16))
    except OSError:
        return False


@contextmanager
def living(made: World) -> Iterator[Live]:
    """Have sessions that live."""
    live = Live(made)
    try:
        yield live
    finally:
        live.close()


# -- the network ------------------------------------------------------------------------------------------


def cut(seconds: float, encryption: str = "tls") -> None:
    """Cut the link in both directions: packets are lost, and nobody is told."""
    with world(encryption=encryption) as made, living(made) as live:
        since = time.monotonic()
        made.lose(INSIDE, OUTSIDE)
        noticed = notice(made, since) if seconds > NOTICED + BUSY else {}
        for taken in noticed.values():
            in_time(taken)
        time.sleep(max(0.0, since + seconds - time.monotonic()))
        back = made.heal()
        returns(made, f"link ({encryption}) cut for {seconds:.0f} s", back, live, noticed)


def notice(made: World, since: float) -> dict[str, float]:
    """Wait until both ends have noticed; give the seconds that each took."""
    noticed: dict[str, float] = {}

    def have_both() -> bool:
        seen = {"gateway": made.gateway.events("agent_lost"), "agent": made.agent.events("tunnel_down")}
        for name, records in seen.items():
            if records:
                noticed.setdefault(name, time.monotonic() - since)
        return len(noticed) == len(seen)

    wait_for("a notice at both ends", have_both)
    return noticed


def in_time(seconds: float) -> None:
    """Check that what was noticed was noticed in time."""
    assert seconds <= NOTICED + BUSY, f"noticed after {seconds:.2f} s"


def returns(made: World, what: str, since: float, live: Live, more: dict[str, float] | None = None) -> None:
    """Check that service is back in time, that no session hangs, and that nothing has leaked."""
    back, longest = made.back_since(since)
    wait_for("all links", lambda: len(made.links()) == made.expected_links)
    links = time.monotonic() - since
    lived = live.after()
    live.close()
    tell(what, **(more or {}), back=back, links=links, longest=longest, before=lived)
    made.ends_clean(IDLE + AGENT_IDLE + BUSY)
    live.have_records()
    assert back <= BACK, f"{what}: service was back after {back:.2f} s"


def unplugged() -> None:
    """Take the cable out at the intranet's router for 6 s: the devices have no carrier."""
    with world() as made, living(made) as live:
        made.internet.ip("link", "set", device_of(INSIDE), "down")
        time.sleep(6)
        made.internet.ip("link", "set", device_of(INSIDE), "up")
        returns(made, "cable out for 6 s", time.monotonic(), live)


def one_way(network: str, name: str) -> None:
    """Lose what comes from one side only, for 6 s: that side hears the other one, and is not heard."""
    with world() as made, living(made) as live:
        since = time.monotonic()
        made.lose(network)
        noticed = notice(made, since)
        in_time(noticed["gateway" if network == INSIDE else "agent"])
        time.sleep(max(0.0, since + 6 - time.monotonic()))
        returns(made, f"{name} lost for 6 s", made.heal(), live, noticed)


def readdressed() -> None:
    """Give the agent's host another address while it is connected."""
    with world() as made, living(made) as live:
        device = device_of(INSIDE)
        made.intranet.ip("address", "delete", f"{INSIDE}.2/24", "dev", device)
        made.intranet.ip("address", "add", f"{INSIDE}.3/24", "dev", device)
        made.intranet.ip("route", "add", "default", "via", f"{INSIDE}.1")
        since = time.monotonic()
        wait_for("the newcomer", lambda: len(made.gateway.events("agent_connected")) > 1)
        (lost,) = made.gateway.events("agent_lost")
        assert "replaced" in lost["error"], lost
        returns(made, "another address of the agent", since, live)


def translated() -> None:
    """Give the router before the agent another address: what its NAT knew of connections is gone."""
    with world(translated=True) as made, living(made) as live:
        device = device_of(OUTSIDE)
        made.internet.ip("address", "delete", f"{OUTSIDE}.2/24", "dev", device)
        made.internet.ip("address", "add", f"{OUTSIDE}.3/24", "dev", device)
        returns(made, "another address of the agent's router", time.monotonic(), live)
        assert made.gateway.events("agent_connected")[-1]["peer"].startswith(f"{OUTSIDE}.3:")


def renamed() -> None:
    """Give the gateway another address, and its name with it: the agent asks for the name again."""
    with world(named=True) as made, living(made) as live:
        device = device_of(OUTSIDE)
        made.gateway_host.ip("address", "add", f"{OUTSIDE}.7/24", "dev", device)
        name_gateway(made.intranet, f"{OUTSIDE}.7")
        since = time.monotonic()
        made.gateway_host.run(
            find("nft"),
            f"add table ip moved; add chain ip moved in {{ type filter hook input priority 0; }};"
            f"add rule ip moved in ip daddr {GATEWAY} tcp dport {TUNNEL_PORT} drop",
        )
        wait_for("the agent's notice", lambda: made.agent.events("tunnel_down"))
        noticed = time.monotonic()
        in_time(noticed - since)
        returns(made, "another address of the gateway", noticed, live, {"agent": noticed - since})
        assert made.agent.events("tunnel_up")[-1]["peer"] == f"{OUTSIDE}.7:{TUNNEL_PORT}"


# -- the processes ----------------------------------------------------------------------------------------


def gateway_restarted(number: int) -> None:
    """End the gateway, in order or not, and start it again."""
    with world() as made, living(made) as live:
        live.stop()
        if number == signal.SIGTERM:
            live.close()
        made.end(made.gateway, number)
        time.sleep(1.5)  # long enough for the longest pause between two tries
        made.start_gateway()
        returns(made, f"gateway restarted ({signal.Signals(number).name})", time.monotonic(), live)


def agent_restarted(number: int) -> None:
    """End the agent, in order or not, and start it again."""
    with world() as made, living(made) as live:
        live.stop()
        if number == signal.SIGTERM:
            live.close()
        made.end(made.agent, number)
        made.start_agent()
        returns(made, f"agent restarted ({signal.Signals(number).name})", time.monotonic(), live)


def agent_gone_of_two(number: int) -> None:
    """End one of two agents of a name: the other one serves."""
    with world(agents=2) as made, living(made) as live:
        live.stop()
        gone = made.agent
        if number == signal.SIGTERM:
            gone.process.send_signal(number)
        else:
            gone.send(number)
        back, longest = made.back_since(time.monotonic())
        live.close()
        tell(f"one of two agents got {signal.Signals(number).name}", back=back, longest=longest)
        if number == signal.SIGSTOP:
            wait_for("its loss", lambda: made.gateway.events("agent_lost"))
            gone.send(signal.SIGCONT)
        else:
            made.end(gone, number)
        made.ends_clean(IDLE + AGENT_IDLE + BUSY)
        assert back <= BACK
        assert longest <= NOTICED + BUSY


def agent_frozen(seconds: float) -> None:
    """Freeze the agent for a while."""
    with world() as made, living(made) as live:
        made.agent.send(signal.SIGSTOP)
        time.sleep(seconds)
        made.agent.send(signal.SIGCONT)
        returns(made, f"agent frozen for {seconds:.0f} s", time.monotonic(), live)


def gateway_frozen(seconds: float) -> None:
    """Freeze the gateway for a while."""
    with world() as made, living(made) as live:
        made.gateway.send(signal.SIGSTOP)
        time.sleep(seconds)
        made.gateway.send(signal.SIGCONT)
        returns(made, f"gateway frozen for {seconds:.0f} s", time.monotonic(), live)


def reloaded() -> None:
    """Reload the gateway's ruleset: what lives goes on, what is new works."""
    with world(workers=2, agent_workers=2) as made, living(made) as live:
        made.gateway.process.send_signal(signal.SIGHUP)
        since = time.monotonic()
        made.gateway.await_event("reloaded")
        back, longest = made.back_since(since)
        lived = live.after()
        tell("reload", back=back, longest=longest, before=lived)
        live.close()
        made.ends_clean()
        live.have_records()
        assert back <= BACK
        assert lived.startswith("6 go on"), lived


def worker_killed(whose: str) -> None:
    """Kill a worker of two: a new one is started, and has its control channels."""
    with world(workers=2, agent_workers=2) as made, living(made) as live:
        live.stop()
        process = made.gateway if whose == "gateway" else made.agent
        process.loses_records = True
        os.kill(process.workers[0], signal.SIGKILL)
        returns(made, f"a worker of the {whose} killed", time.monotonic(), live)


def run(*cases: Case) -> None:
    """Run cases side by side: most of them wait, most of the time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(case) for case in cases]:
            done.result()


@pytest.mark.timeout(60 + 2 * sum(CUTS))
def test_service_is_back_within_3_s_of_the_network() -> None:
    """A link that was cut for any time, in one direction or both, serves 3 s after it is back.

    So it does where the agent's host has got another address, or its router, or the gateway with its name.
    """
    run(
        *(partial(cut, seconds) for seconds in sorted(CUTS, reverse=True)),
        partial(cut, 6, "none"),
        unplugged,
        partial(one_way, INSIDE, "what agents send"),
        partial(one_way, OUTSIDE, "what the gateway sends"),
        readdressed,
        translated,
        renamed,
    )


@pytest.mark.timeout(180)
def test_a_gateway_that_ends_or_stalls_is_found_again() -> None:
    """Restarted, killed, frozen, reloaded or with a worker lost, a gateway serves 3 s after it is there."""
    run(
        partial(gateway_frozen, 6),
        partial(gateway_restarted, signal.SIGTERM),
        partial(gateway_restarted, signal.SIGKILL),
        reloaded,
        partial(worker_killed, "gateway"),
    )


@pytest.mark.timeout(180)
def test_an_agent_that_ends_or_stalls_is_back_or_replaced() -> None:
    """Restarted, killed, frozen or with a worker lost, an agent serves 3 s later; a second one at once."""
    run(
        partial(agent_frozen, 6),
        partial(agent_restarted, signal.SIGTERM),
        partial(agent_restarted, signal.SIGKILL),
        partial(agent_gone_of_two, signal.SIGTERM),
        partial(agent_gone_of_two, signal.SIGKILL),
        partial(agent_gone_of_two, signal.SIGSTOP),
        partial(worker_killed, "agent"),
    )
