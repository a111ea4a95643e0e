"""A flow's trains, each way: as `Flow.forward` and `Flow.on_event`, for many datagrams at a time."""

from typing import TYPE_CHECKING, Final

from appliance.net.datagram_sockets import drop_cause, endpoint_lost
from appliance.net.trains import REFUSED, Sense, segment_control, segment_size, segments

if TYPE_CHECKING:
    from appliance.net.flow import Flow

CONTROL_BYTES: Final = 128
"""Room for the control messages of recvmsg(2): where a datagram was sent to, which a socket of both families
tells twice, and a train's segment size."""


def forward_train(flow: "Flow", train: memoryview, size: int) -> None:
    """Send a train of the client on; `size` is that of its datagrams."""
    if flow.connection is None or not flow.segments or flow.may_go_on:
        _forward_each(flow, train, size)
        return
    try:
        flow.connection.sendmsg((train,), (segment_control(size),))
    except OSError as error:
        if error.errno in REFUSED:
            flow.segments = False
            _forward_each(flow, train, size)
        elif endpoint_lost(error.errno) is not None:  # the error of an earlier datagram, told once
            flow.not_sent(error, train[:size])
            _forward_each(flow, train[size:], size)
        else:
            flow.dropped(drop_cause(error.errno), segments(len(train), size))
    else:
        flow.up += segments(len(train), size)
        flow.bytes_up += len(train)
        flow.active = flow.route.datagrams.reactor.now


def _forward_each(flow: "Flow", train: memoryview, size: int) -> None:
    for start in range(0, len(train), size):
        datagram = train[start : start + size]
        if flow.cause is not None:  # one of them ended the flow, and perhaps began the next
            flow = flow.front.flows.get(flow.key, flow)
        if flow.cause is None:
            flow.forward(datagram)
        else:
            flow.front.again(flow, bytes(datagram))


def take_trains(flow: "Flow", sense: Sense) -> None:
    """Send on what the endpoint has sent, received by recvmsg(2)."""
    datagrams, connection, burst = flow.route.datagrams, flow.connection, flow.burst
    assert connection is not None
    taken = moved = 0
    failure: OSError | None = None
    try:
        for _ in range(1 if burst is None else burst.size):
            count, controls, _, _ = connection.recvmsg_into(datagrams.buffers, CONTROL_BYTES)
            taken += 1
            size = segment_size(controls)
            if 0 < size < count:
                sense.train_came()
                moved += _answer_train(flow, datagrams.view[:count], size)
            else:
                moved += _answer(flow, datagrams.view[:count])
                sense.single_came()
    except BlockingIOError:
        if burst is not None:
            burst.emptied(taken)
    except OSError as error:
        failure = error
    else:
        if burst is not None:
            burst.filled()
    flow.took(min(taken, 1), 0, moved)  # no more than one: what a run would tell is known
    if failure is not None:
        flow.failed(failure.errno)


def _answer(flow: "Flow", datagram: memoryview) -> int:
    """Send the client a datagram; give its length."""
    try:
        flow.source.sendmsg((datagram,), flow.source.controls, 0, flow.client)
    except OSError as error:
        flow.dropped(drop_cause(error.errno))
        return 0
    flow.down += 1
    return len(datagram)


def _answer_train(flow: "Flow", train: memoryview, size: int) -> int:
    """Send the client a train; give the bytes of it that were sent."""
    if flow.segments:
        try:
            flow.source.sendmsg((train,), [*flow.source.controls, segment_control(size)], 0, flow.client)
        except OSError as error:
            if error.errno not in REFUSED:
                flow.dropped(drop_cause(error.errno), segments(len(train), size))
                return 0
            flow.segments = False
        else:
            flow.down += segments(len(train), size)
            return len(train)
    return sum([_answer(flow, train[start : start + size]) for start in range(0, len(train), size)])
