"""A worker rests while nothing can move: EPOLLHUP and EPOLLERR, which epoll always reports, never spin it.

Every combination of what a client has done, what its endpoint has done and what is pending between them is
set up at the same time in one gateway; then the worker must come to rest, and the records come out right.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from tests.e2e.gateway import PATIENCE, Gateway, rule, ruleset, wait_for
from tests.e2e.peers import (
    SMALL_BUFFER,
    Address,
    Endpoint,
    assert_idle,
    busy_share,
    connect,
    finish,
    read_to_end,
    reset,
)

ACTS = ("open", "fin", "close", "reset")
PENDING = ("nothing", "up", "down", "both")
TABLE = tuple(product(ACTS, ACTS, PENDING))


@dataclass(slots=True)
class Case:
    """One row of the table, and its two sockets."""

    client_act: str
    endpoint_act: str
    pending: str
    client: socket.socket
    endpoint: socket.socket
    sent_up: int = 0
    sent_down: int = 0

    @property
    def name(self) -> str:
        """What a failure calls it."""
        return f"client {self.client_act}, endpoint {self.endpoint_act}, pending {self.pending}"


def fill(cases: list[Case], passes: int = 20) -> None:
    """Send in every case, the ways that are to be pending, until nothing is taken in so many passes."""
    quiet = 0
    piece = bytes(16384)
    set_blocking(cases, blocking=False)
    while quiet < passes:
        before = sum(case.sent_up + case.sent_down for case in cases)
        for case in cases:
            with suppress(BlockingIOError):
                while case.pending in {"up", "both"}:
                    case.sent_up += case.client.send(piece)
            with suppress(BlockingIOError):
                while case.pending in {"down", "both"}:
                    case.sent_down += case.endpoint.send(piece)
        after = sum(case.sent_up + case.sent_down for case in cases)
        quiet = quiet + 1 if after == before else 0
        with suppress(AssertionError):
            wait_for("a moment", lambda: False, timeout=0.01)
    set_blocking(cases, blocking=True)


def set_blocking(cases: list[Case], *, blocking: bool) -> None:
    """Have the cases' sockets wait, with a deadline, or not."""
    for case in cases:
        for side in (case.client, case.endpoint):
            if side.fileno() >= 0:
                side.settimeout(PATIENCE if blocking else 0.0)


def act(connection: socket.socket, what: str) -> None:
    """Do what the table says."""
    match what:
        case "fin":
            with suppress(OSError):  # the other side has reset it already
                finish(connection)
        case "close":
            connection.close()
        case "reset":
            reset(connection)


@contextmanager
def small_gateway(folder: Path, front: str, back: str) -> Iterator[tuple[Gateway, Address, Endpoint]]:
    """Run a gateway over these kinds of sockets, to an endpoint that clogs soon."""
    behind: Address = str(folder / "back") if back == "unix" else ("127.0.0.1", 0)
    listen = f"unix:{folder}/front" if front == "unix" else "127.0.0.1:0"
    with (
        Endpoint(behind, receive=SMALL_BUFFER) as endpoint,
        Gateway.start(ruleset(rule("way", endpoint.to, listen=listen))) as gateway,
    ):
        yield gateway, str(folder / "front") if front == "unix" else gateway.address("way"), endpoint


@pytest.mark.parametrize("back", ["tcp", "unix"])
@pytest.mark.parametrize("front", ["tcp", "unix"])
@pytest.mark.parametrize("order", ["client first", "endpoint first"])
def test_worker_rests_in_every_state(tmp_path: Path, front: str, back: str, order: str) -> None:
    """Whatever client and endpoint did, whatever is pending: the worker rests, and leaves a record each."""
    with small_gateway(tmp_path, front, back) as (gateway, address, endpoint), ExitStack() as sockets:
        cases = []
        for row in TABLE:
            client = sockets.enter_context(connect(address, receive=SMALL_BUFFER))
            cases.append(Case(*row, client, sockets.enter_context(endpoint.accept())))
        fill(cases)
        for case in cases:
            if order == "client first":
                act(case.client, case.client_act)
                act(case.endpoint, case.endpoint_act)
            else:
                act(case.endpoint, case.endpoint_act)
                act(case.client, case.client_act)
        assert_rests(gateway, cases)
        for case in cases:  # both ends are read at the same time: each may wait for the other
            for side in (case.client, case.endpoint):
                if side.fileno() >= 0:
                    with suppress(OSError):
                        finish(side)
        drain(cases)
        records = gateway.sessions(len(TABLE))
        assert len(records) == len(TABLE)
        assert {record["stage"] for record in records} == {"relay"}
        assert {record["cause"] for record in records} <= {
            "client_eof", "endpoint_eof", "client_reset", "endpoint_reset",
        }  # fmt: skip


def assert_rests(gateway: Gateway, cases: list[Case]) -> None:
    """Fail with the rows that are to blame: those after whose end the worker rests."""
    (worker,) = gateway.workers
    try:
        assert_idle(worker)
    except AssertionError:
        guilty = []
        for case in cases:
            before = busy_share(worker, 0.2)
            case.client.close()
            case.endpoint.close()
            if busy_share(worker, 0.2) < before / 2:
                guilty.append(case.name)
        raise AssertionError(f"the worker spins; it stopped after the end of: {guilty}") from None


def drain(cases: list[Case]) -> None:
    """Read every end to EOF or error by turns, and close it."""
    set_blocking(cases, blocking=False)
    left = {side for case in cases for side in (case.client, case.endpoint) if side.fileno() >= 0}

    def all_read() -> bool:
        for side in tuple(left):
            try:
                while side.recv(1 << 16):
                    pass
            except BlockingIOError:
                continue
            except OSError:
                pass
            left.discard(side)
            side.close()
        return not left

    wait_for("every end is read", all_read)


@pytest.mark.parametrize("back", ["tcp", "unix"])
@pytest.mark.parametrize("front", ["tcp", "unix"])
def test_orderly_ends_lose_nothing(tmp_path: Path, front: str, back: str) -> None:
    """Where only FINs are held, all that was sent arrives, and the record counts each way exactly."""
    with small_gateway(tmp_path, front, back) as (gateway, address, endpoint):
        (worker,) = gateway.workers
        for number, (first, pending) in enumerate(product(("client", "endpoint"), PENDING)):
            with connect(address, receive=SMALL_BUFFER) as client, endpoint.accept() as server:
                case = Case("fin", "fin", pending, client, server)
                fill([case])
                finish(client if first == "client" else server)
                assert_idle(worker, seconds=0.2)
                finish(server if first == "client" else client)
                assert_idle(worker, seconds=0.2)
                assert len(read_to_end(server)) == case.sent_up
                assert len(read_to_end(client)) == case.sent_down
                record = gateway.sessions(number + 1)[number]
            assert (record["up"], record["down"]) == (case.sent_up, case.sent_down), case.name
            assert record["cause"] in {"client_eof", "endpoint_eof"}, case.name
            if pending == "nothing":
                assert record["cause"] == f"{first}_eof"
