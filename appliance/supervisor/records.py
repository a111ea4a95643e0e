"""From what has ended to its record."""

from msgspec import UNSET

from appliance.net.flow import Flow
from appliance.net.session import Session
from appliance.net.sockets import peer_text
from appliance.observe.record import SessionRecord, milliseconds


def session_record(session: Session, ago: float) -> SessionRecord:
    """Make the record of a TCP session that ended `ago` seconds before."""
    cause, endpoint, route, accepted = session.cause, session.endpoint, session.route, session.accepted
    connect, first_byte, attempts = session.connect_seconds, session.first_byte, session.attempts
    assert cause is not None
    return SessionRecord(
        "",
        ago,
        session.id,
        route.rule,
        "tcp",
        session.client_text(),
        route.listener,
        UNSET if endpoint is None else endpoint.text,
        session.stage,
        cause,
        session.bytes_up,
        session.bytes_down,
        UNSET,
        UNSET,
        UNSET,
        UNSET if connect is None else milliseconds(connect),
        UNSET if first_byte is None else milliseconds(first_byte - accepted),
        milliseconds(session.ended - accepted),
        attempts if attempts > 1 else UNSET,
        route.agent or UNSET,
    )


def flow_record(flow: Flow, ago: float) -> SessionRecord:
    """Make the record of a UDP flow that ended `ago` seconds before."""
    cause, endpoint, route, opened = flow.cause, flow.endpoint, flow.route, flow.opened
    first_answer, attempts = flow.first_answer, flow.attempts
    assert cause is not None
    return SessionRecord(
        "",
        ago,
        flow.id,
        route.rule,
        "udp",
        peer_text(flow.client),
        route.listener,
        UNSET if endpoint is None else endpoint.text,
        flow.stage,
        cause,
        flow.bytes_up,
        flow.bytes_down,
        flow.up,
        flow.down,
        flow.drops or UNSET,
        UNSET,
        UNSET if first_answer is None else milliseconds(first_answer - opened),
        milliseconds(flow.ended - opened),
        attempts if attempts > 1 else UNSET,
        route.agent or UNSET,
    )
