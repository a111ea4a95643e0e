"""How much a worker takes on: all of its file descriptors, and no more; neither kind at the other's cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.supervisor.limits import (
    MOST_PIPES,
    PORTS_USED,
    SPARE_FDS,
    SPARE_FLOWS,
    limits,
    pipe_limit,
)

ENOUGH = 10**9
fds = st.integers(256, 1 << 20)


@given(fds, st.integers(1, 64), st.booleans(), st.booleans())
def test_all_together_there_are_fds_enough(count: int, listeners: int, tcp: bool, udp: bool) -> None:
    """Two for a session, one for a flow, also one just ended; pipes, listeners, the rest."""
    made = limits(count, listeners, ENOUGH, tcp=tcp, udp=udp)
    flows = made.flows + made.spare_flows if udp else 0
    assert 2 * made.sessions + flows + 2 * made.pipes + listeners + SPARE_FDS <= count


@given(fds, st.integers(1, 64))
def test_hardly_any_is_left_over(count: int, listeners: int) -> None:
    """What one kind alone could use, it may."""
    for tcp in (True, False):
        made = limits(count, listeners, ENOUGH, tcp=tcp, udp=not tcp)
        used = 2 * made.sessions + 2 * made.pipes if tcp else made.flows + made.spare_flows
        assert count - SPARE_FDS - listeners - used <= 1


@given(fds, st.integers(1, 64))
def test_what_no_rule_carries_takes_nothing(count: int, listeners: int) -> None:
    """A gateway for UDP alone has no pipes and no sessions; one for TCP alone no flows."""
    assert limits(count, listeners, ENOUGH, tcp=True, udp=False).flows == 0
    alone = limits(count, listeners, ENOUGH, tcp=False, udp=True)
    assert (alone.sessions, alone.pipes) == (0, 0)


@given(fds)
def test_each_kind_gets_half(count: int) -> None:
    """A flood of the one leaves the other its own, and both together have what one had."""
    both = limits(count, 2, ENOUGH, tcp=True, udp=True)
    assert abs(2 * both.sessions - (both.flows + both.spare_flows)) <= 2
    assert both.sessions >= limits(count, 2, ENOUGH, tcp=True, udp=False).sessions // 2


@pytest.mark.parametrize(("ports", "flows"), [(28_232, 25_408), (10, 9), (1, 1), (0, 1)])
def test_each_flow_takes_a_port_of_the_host(ports: int, flows: int) -> None:
    """Some are left to whoever needs one to ask a DNS server."""
    assert limits(1 << 20, 1, ports, tcp=False, udp=True).flows == flows
    assert flows <= max(1, ports * PORTS_USED)


@given(st.integers(0, 200), st.integers(0, 300), st.booleans(), st.booleans())
def test_there_is_always_room_for_one(count: int, listeners: int, tcp: bool, udp: bool) -> None:
    """Where fds are far too few, a worker still begins: what there is no fd for is refused one by one."""
    made = limits(count, listeners, 1, tcp=tcp, udp=udp)
    assert (made.sessions >= 1, made.flows >= 1) == (tcp, udp)
    assert made.spare_flows >= 1
    assert made.pipes >= 0


@given(st.integers(0, 1 << 20))
def test_pipes_are_an_eighth_at_the_most(count: int) -> None:
    """Two fds each; a worker with many has as many as pay."""
    assert 2 * pipe_limit(count) <= count / 8
    assert pipe_limit(count) <= MOST_PIPES


def test_usual_figures() -> None:
    """As the log's `ready` has them: 20,000 fds per process, IPv4's usual range of ports."""
    made = limits(20_000, 2, 28_232, tcp=True, udp=True)
    assert (made.sessions, made.pipes) == (4865, 256)
    assert (made.flows, made.spare_flows) == (9731 - SPARE_FLOWS, 128)
