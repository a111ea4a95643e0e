"""What a record says of a session or flow that has ended."""

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from msgspec import UNSET

from appliance.net.flow import ClientAddress, Flow
from appliance.net.sockets import Endpoint, peer_text
from appliance.outcome import Cause, Drop, Stage
from appliance.supervisor.records import flow_record, session_record

if TYPE_CHECKING:
    from appliance.net.session import Session

WHERE = Endpoint(int(socket.AF_INET), ("10.0.0.5", 53), "10.0.0.5:53")


@dataclass
class Route:
    rule: str = "dns"
    listener: str = "0.0.0.0:53"
    agent: str = ""


@dataclass
class EndedFlow:
    """What a flow's record is made of."""

    id: str = "01J"
    cause: Cause | None = Cause.IDLE_TIMEOUT
    stage: Stage = Stage.RELAY
    endpoint: Endpoint | None = WHERE
    route: Route = field(default_factory=Route)
    client: ClientAddress = ("203.0.113.9", 51022)
    opened: float = 100.0
    first_answer: float | None = 100.0032
    ended: float = 130.5
    up: int = 3
    down: int = 2
    bytes_up: int = 90
    bytes_down: int = 1200
    drops: dict[Drop, int] | None = None
    attempts: int = 1

    def record(self, ago: float = 0.25) -> dict[str, object]:
        made = flow_record(cast("Flow", self), ago)
        return {name: value for name in made.__struct_fields__ if (value := getattr(made, name)) is not UNSET}


@dataclass
class EndedSession:
    """What a session's record is made of."""

    id: str = "01J"
    cause: Cause | None = Cause.CLIENT_EOF
    stage: Stage = Stage.RELAY
    endpoint: Endpoint | None = WHERE
    route: Route = field(default_factory=Route)
    peer: object = ("203.0.113.9", 51022)
    accepted: float = 100.0
    connect_seconds: float | None = 0.00041
    first_byte: float | None = 100.0032
    ended: float = 100.812
    bytes_up: int = 1204
    bytes_down: int = 90811
    attempts: int = 1

    def client_text(self) -> str:
        return peer_text(self.peer)

    def record(self, ago: float = 0.25) -> dict[str, object]:
        made = session_record(cast("Session", self), ago)
        return {name: value for name in made.__struct_fields__ if (value := getattr(made, name)) is not UNSET}


def test_the_record_of_a_flow() -> None:
    """Datagrams and bytes both ways, when the first answer came, and no time to connect: there was none."""
    assert EndedFlow().record() == {
        "level": "",
        "time": 0.25,
        "session": "01J",
        "rule": "dns",
        "protocol": "udp",
        "client": "203.0.113.9:51022",
        "listener": "0.0.0.0:53",
        "endpoint": "10.0.0.5:53",
        "stage": Stage.RELAY,
        "cause": Cause.IDLE_TIMEOUT,
        "up": 90,
        "down": 1200,
        "up_datagrams": 3,
        "down_datagrams": 2,
        "first_byte_ms": 3.2,
        "duration_ms": 30500.0,
    }


def test_a_flow_that_came_to_nothing() -> None:
    """No endpoint, no answer; what was dropped is told by its cause."""
    drops = {Drop.UNSENT: 2, Drop.DIALLING: 1}
    made = EndedFlow(
        cause=Cause.DIAL_RESOLVE, stage=Stage.DIAL, endpoint=None, first_answer=None, up=0, drops=drops
    ).record()
    assert made["drops"] == drops
    assert made["up_datagrams"] == 0
    assert not {"endpoint", "first_byte_ms", "attempts"} & made.keys()


def test_without_drops_there_is_no_such_key() -> None:
    """Neither for none nor for an empty table of them."""
    assert "drops" not in EndedFlow(drops=None).record()
    assert "drops" not in EndedFlow(drops={}).record()


def test_more_than_one_attempt_is_told() -> None:
    """One is the usual, and takes no room in the line."""
    assert "attempts" not in EndedFlow(attempts=1).record()
    assert EndedFlow(attempts=3).record()["attempts"] == 3
    assert "attempts" not in EndedSession(attempts=1).record()
    assert EndedSession(attempts=3).record()["attempts"] == 3


def test_clients_are_written_as_in_all_of_the_log() -> None:
    """IPv6 in brackets, an IPv4 client of a socket of both families as what it is."""
    assert EndedFlow(client=("2001:db8::1", 53, 0, 0)).record()["client"] == "[2001:db8::1]:53"
    assert EndedFlow(client=("::ffff:203.0.113.9", 53, 0, 0)).record()["client"] == "203.0.113.9:53"


def test_the_record_of_a_session() -> None:
    """Bytes, no datagrams; how long the endpoint took, and when its first byte came."""
    assert EndedSession().record() == {
        "level": "",
        "time": 0.25,
        "session": "01J",
        "rule": "dns",
        "protocol": "tcp",
        "client": "203.0.113.9:51022",
        "listener": "0.0.0.0:53",
        "endpoint": "10.0.0.5:53",
        "stage": Stage.RELAY,
        "cause": Cause.CLIENT_EOF,
        "up": 1204,
        "down": 90811,
        "connect_ms": 0.41,
        "first_byte_ms": 3.2,
        "duration_ms": 812.0,
    }


def test_a_session_that_was_not_connected() -> None:
    """Nothing is said of what did not happen."""
    made = EndedSession(
        cause=Cause.DIAL_REFUSED, stage=Stage.DIAL, endpoint=None, connect_seconds=None, first_byte=None
    ).record()
    assert not {"endpoint", "connect_ms", "first_byte_ms", "up_datagrams", "drops"} & made.keys()
