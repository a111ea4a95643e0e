"""Session records for tests: one that is whole, and the changes a test is about."""

from msgspec import UNSET
from msgspec.structs import replace

from appliance.observe.record import SessionRecord
from appliance.outcome import Cause, Stage

_SESSION = SessionRecord(
    level="",
    time=0.0,
    session="01HF7YAT3V4T9Q2M7XKD000042",
    rule="intranet-web",
    protocol="tcp",
    client="203.0.113.9:51022",
    listener="0.0.0.0:8080",
    endpoint="10.0.0.5:80",
    stage=Stage.RELAY,
    cause=Cause.CLIENT_EOF,
    up=1204,
    down=90811,
    up_datagrams=UNSET,
    down_datagrams=UNSET,
    drops=UNSET,
    connect_ms=0.41,
    first_byte_ms=3.2,
    duration_ms=812.0,
)

_FLOW = replace(
    _SESSION,
    rule="dns",
    protocol="udp",
    listener="0.0.0.0:53",
    endpoint="10.0.0.2:53",
    cause=Cause.ANSWERED,
    up=41,
    down=120,
    up_datagrams=1,
    down_datagrams=1,
    connect_ms=UNSET,
)


def session(**changes: object) -> SessionRecord:
    """Make the record of a TCP session, as a worker gives it to the log."""
    return replace(_SESSION, **changes)


def flow(**changes: object) -> SessionRecord:
    """Make the record of a UDP flow."""
    return replace(_FLOW, **changes)
