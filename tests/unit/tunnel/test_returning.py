"""A link's channels that come back: none is used before the agent is through, and none that is of no use."""

import socket
from collections.abc import Iterator

import pytest

from appliance.net.sealed import END
from appliance.net.sockets import Socket
from appliance.tunnel.pool import CALM, MOST_SPARE
from appliance.tunnel.returning import Delivering
from appliance.wire.messages import Bye, Ping, Pong
from tests.unit.tunnel.links import Agent, Gateway, Passing, gateway


@pytest.fixture
def here() -> Iterator[Gateway]:
    with gateway() as made:
        yield made


def used(agent: Agent, *, sealed: bool = True) -> tuple[socket.socket, Socket]:
    """Make a channel and take it for a session; give both ends."""
    ours = agent.attach(sealed=sealed)
    channel = agent.link.take()
    assert channel is not None
    return ours, channel.connection


def returned(agent: Agent) -> socket.socket:
    """Have a channel's session end in order at the gateway; give the agent's end."""
    ours, theirs = used(agent)
    assert agent.link.takes_back(theirs)
    return ours


def close(agent: Agent, channel: Socket) -> None:
    """As who is left with a channel does."""
    agent.at.reactor.forget(channel.fileno(), channel.close)
    agent.at.turn()


def is_closed(channel: socket.socket) -> bool:
    channel.settimeout(1.0)
    return channel.recv(1) == b""


def live(here: Gateway, agent: Agent, seconds: float) -> None:
    """Let time pass while the agent answers each Ping."""
    for _ in range(round(seconds)):
        here.pass_time(1.0)
        for ping in agent.heard(Ping):
            agent.say(Pong(int(str(ping["number"]))))


def test_it_is_ready_once_the_agent_is_through(here: Gateway) -> None:
    """Nobody has a channel that came back before its agent has delivered everything, and says so."""
    agent = here.join()
    ours = returned(agent)
    taker = here.taker()
    here.crew.request(taker)
    here.at.turn()
    assert not taker.got
    ours.sendall(END)
    here.at.until(lambda: taker.got)
    assert not agent.link._returning
    assert not agent.link.pool


def test_it_is_as_good_as_a_new_one(here: Gateway) -> None:
    """What came back is ready, taken, and comes back again."""
    agent = here.join()
    ours = returned(agent)
    for _ in range(3):
        ours.sendall(END)
        here.at.until(lambda: agent.link.pool)
        channel = agent.link.take()
        assert channel is not None
        assert agent.link.takes_back(channel.connection)
    assert len(agent.link._returning) == 1


def test_it_is_taken_before_a_new_one(here: Gateway) -> None:
    """The agent makes up for a new one: were that used first, each session might cost a handshake."""
    agent = here.join()
    ours = [returned(agent) for _ in range(2)]
    for each in ours:
        each.sendall(END)
        here.at.turn()
    back = [channel.connection for channel in agent.link.pool]
    agent.attach(sealed=True)
    new = agent.link.pool.new[-1].connection
    taken = [agent.link.take() for _ in range(3)]
    assert [channel.connection for channel in taken if channel is not None] == [*reversed(back), new]
    assert all(agent.link.keeps(channel.connection) for channel in taken if channel is not None)


@pytest.mark.parametrize("how", ["closes", "talks on", "says half of it", "says more"])
def test_it_is_closed_unless_the_agent_says_so(here: Gateway, how: str) -> None:
    """A channel that its agent gives up, or says anything else on, is not used again."""
    agent = here.join()
    ours = returned(agent)
    if how == "talks on":
        ours.sendall(b"\0\0\0\1?")
    elif how == "says half of it":
        ours.sendall(END[:1])
    elif how == "says more":
        ours.sendall(END + b"x")
    else:
        ours.close()
    here.at.until(lambda: not agent.link._returning)
    here.at.turn()
    assert not agent.link.pool
    assert how == "closes" or is_closed_or_reset(ours)


def is_closed_or_reset(channel: socket.socket) -> bool:
    try:
        return is_closed(channel)
    except ConnectionResetError:
        return True


def test_it_waits_through_events_that_bring_nothing(here: Gateway) -> None:
    """An event that was meant for the session, which has read what there was, changes nothing."""
    agent = here.join()
    returned(agent)
    (returning,) = agent.link._returning
    assert isinstance(returning, Delivering)
    returning.on_event(1)
    assert agent.link._returning == {returning}


def test_what_was_read_from_the_kernel_already_is_seen(here: Gateway) -> None:
    """The agent's word may come in one record with the end before it: epoll does not tell of it then."""
    agent = here.join()
    ours, theirs = used(agent)
    assert isinstance(theirs, Passing)
    theirs.is_pending = True
    here.at.reactor.unwatch(theirs.fileno())
    ours.sendall(END)
    assert agent.link.takes_back(theirs)
    here.at.turn()
    assert len(agent.link.pool) == 1


def test_one_on_which_nothing_was_opened_is_ready_at_once(here: Gateway) -> None:
    """After Failed the channel goes to who waits, or into the pool."""
    agent = here.join()
    channels = [used(agent)[1] for _ in range(2)]
    taker = here.taker()
    here.crew.request(taker)
    assert [agent.link.keeps(each) for each in channels] == [True, True]
    assert [channel.connection for channel in [*taker.got, *agent.link.pool]] == channels


def test_a_plain_one_is_not_kept(here: Gateway) -> None:
    """A channel without TLS serves one session, of whatever kind: its agent has closed it."""
    agent = here.join()
    _, theirs = used(agent, sealed=False)
    assert not agent.link.keeps(theirs)
    close(agent, theirs)


@pytest.mark.parametrize("why", ["over", "leaving"])
def test_a_link_at_its_end_takes_none(here: Gateway, why: str) -> None:
    """Where nothing new is opened any more a channel is left to be closed."""
    agent = here.join()
    channels = [used(agent)[1] for _ in range(2)]
    if why == "over":
        agent.link.end("lost")
    else:
        agent.say(Bye("drain"))
    assert not agent.link.takes_back(channels[0])
    assert not agent.link.keeps(channels[1])
    for channel in channels:
        close(agent, channel)


def test_no_more_than_so_many_are_kept(here: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are ready and those that are coming back are bounded together."""
    monkeypatch.setattr("appliance.tunnel.link.MOST_READY", 3)
    agent = here.join()
    channels = [used(agent)[1] for _ in range(5)]
    assert [agent.link.takes_back(each) for each in channels[:2]] == [True, True]
    assert agent.link.keeps(channels[2])
    assert not agent.link.takes_back(channels[3])
    assert not agent.link.keeps(channels[4])
    for channel in channels[3:]:
        close(agent, channel)


def test_the_end_of_a_link_closes_what_is_coming_back(here: Gateway) -> None:
    """Nothing is left of a link that ends, nor of a channel whose agent has not said anything."""
    agent = here.join()
    ours = [returned(agent) for _ in range(2)]
    agent.link.end("lost")
    here.at.turn()
    assert all(is_closed(each) for each in ours)
    assert not agent.link._returning


def come_back(agent: Agent, count: int) -> None:
    """Have so many sessions at a time, which end."""
    taken = [agent.link.take() for _ in range(count)]
    channels = [used(agent)[1] if channel is None else channel.connection for channel in taken]
    assert all(agent.link.keeps(each) for each in channels)


def test_what_came_back_does_not_keep_new_ones_out(here: Gateway) -> None:
    """An agent may have been making channels while others came back: those that it made are counted."""
    agent = here.join()
    come_back(agent, 2 * MOST_SPARE)
    for _ in range(agent.link.pool.want + MOST_SPARE):
        assert not agent.link.pool.is_full
        agent.attach(sealed=True)
    assert agent.link.pool.is_full


def test_what_is_not_needed_is_closed_after_a_while(here: Gateway) -> None:
    """Of what came back so many stay as were in use at a time lately, beside those that are wanted."""
    agent = here.join()
    come_back(agent, 20)
    for _ in range(3):
        live(here, agent, CALM / 2)
        come_back(agent, 8)
        live(here, agent, CALM / 2 + 2)
    assert len(agent.link.pool) == 8 + agent.link.pool.want
    live(here, agent, 3 * CALM)
    assert len(agent.link.pool) == agent.link.pool.want
