"""A link: who is silent is given up in time, a pool follows demand, and no data channel joins twice."""

import socket
from collections.abc import Iterator

import pytest

from appliance.net.reactor import IN
from appliance.net.sealed import END
from appliance.net.tls import TlsSocket
from appliance.tunnel.pool import CALM, FIRST_READY, MOST_READY, MOST_SPARE, OLDEST
from appliance.wire.messages import Bye, Ping, Pong, Renew, Want, framed
from tests.tls import secure
from tests.unit.net.loop import Watcher
from tests.unit.tunnel.links import HEARTBEAT, Agent, Gateway, attach_of, gateway


@pytest.fixture
def here() -> Iterator[Gateway]:
    with gateway() as made:
        yield made


def live(here: Gateway, *agents: Agent, seconds: float) -> None:
    """Let time pass while agents answer each Ping."""
    for _ in range(round(seconds * 2)):
        here.pass_time(0.5)
        for agent in agents:
            for ping in agent.heard(Ping):
                agent.say(Pong(int(str(ping["number"]))))


def test_an_agent_that_answers_stays(here: Gateway) -> None:
    """A link whose agent answers its Pings lives on, and knows its round trip."""
    agent = here.join()
    live(here, agent, seconds=10 * HEARTBEAT)
    assert not here.ended
    assert agent.link.rtt is not None
    assert agent.link.is_fresh


def test_silence_ends_within_two_heartbeats(here: Gateway) -> None:
    """An agent that answers no Ping is gone two heartbeats after its last answer, and not before."""
    agent = here.join()
    live(here, agent, seconds=3 * HEARTBEAT)
    silent = here.at.clock.now - agent.link.heard
    here.pass_time(2 * HEARTBEAT - silent - 0.25)
    assert not here.ended
    assert not agent.link.is_fresh
    here.pass_time(0.5)
    assert [(why, in_order) for _, why, in_order in here.ended] == [("no heartbeat", False)]


def test_talking_is_no_answer(here: Gateway) -> None:
    """An agent whose own Pings come, but no answers, does not hear us: it is given up as a silent one."""
    agent = here.join()
    for number in range(8):
        if not here.ended:
            agent.say(Ping(number))
        here.pass_time(HEARTBEAT / 3)
    assert [why for _, why, _ in here.ended] == ["no heartbeat"]


def test_pings_are_answered(here: Gateway) -> None:
    """Each Ping is answered by its number."""
    agent = here.join()
    agent.say(Ping(7))
    agent.say(Ping(9))
    assert [pong["number"] for pong in agent.heard(Pong)] == [7, 9]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\0\0", "protocol: a message of 0 bytes"),
        (b"\xff\xff", "protocol: a message of 65535 bytes"),
        (b"\0\2{}", "protocol: "),
    ],
)
def test_what_is_no_message_ends_it(here: Gateway, data: bytes, why: str) -> None:
    """An agent that says what is no message loses its link, with the reason."""
    agent = here.join()
    agent.control.sendall(data)
    here.at.until(lambda: here.ended)
    assert here.ended[0][1].startswith(why)


def test_its_end_is_in_order_after_bye_only(here: Gateway) -> None:
    """A connection that closes after Bye has ended in order; without it, it was lost."""
    leaving, lost = here.join(), here.join()
    leaving.say(Bye("drain"))
    assert leaving.link.is_leaving
    for agent in (leaving, lost):
        agent.control.close()
    here.at.until(lambda: len(here.ended) == 2)
    assert {link: in_order for link, _, in_order in here.ended} == {leaving.link: True, lost.link: False}


def test_renewals_are_passed_on(here: Gateway) -> None:
    """A certificate request reaches who makes certificates."""
    here.join().say(Renew("please"))
    assert here.renewals == ["please"]


def test_the_pool_doubles_for_who_had_to_wait(here: Gateway) -> None:
    """Sessions that wait for more channels than are on their way raise the number kept, up to a bound."""
    agent = here.join()
    for _ in range(FIRST_READY):
        here.crew.request(here.taker())
    assert not agent.heard(Want)
    here.crew.request(here.taker())
    assert [int(str(want["ready"])) >= 2 * FIRST_READY for want in agent.heard(Want)] == [True]
    for _ in range(2 * MOST_READY):
        here.crew.request(here.taker())
    assert agent.link.pool.want == MOST_READY
    assert max(int(str(want["ready"])) for want in agent.heard(Want)) == MOST_READY


def test_the_pool_falls_while_it_is_not_used(here: Gateway) -> None:
    """Without demand the number falls by steps to the first one, and what is too much is closed."""
    agent = here.join()
    agent.link.pool.want = 32
    for _ in range(32):
        agent.attach()
    live(here, agent, seconds=3 * CALM)
    assert FIRST_READY < agent.link.pool.want < 32
    assert len(agent.link.pool) == agent.link.pool.want
    live(here, agent, seconds=14 * CALM)
    assert agent.link.pool.want == len(agent.link.pool) == FIRST_READY


def test_the_pool_stays_while_it_is_used(here: Gateway) -> None:
    """A number of which more than half is taken now and then does not fall."""
    agent = here.join()
    agent.link.pool.want = 8
    for _ in range(8):
        agent.attach()
    for _ in range(6):
        used = [agent.link.take() for _ in range(5)]
        for channel in used:
            assert channel is not None
            channel.close()
            agent.attach()
        live(here, agent, seconds=CALM)
    assert agent.link.pool.want == 8


def test_old_channels_are_replaced(here: Gateway) -> None:
    """A channel that was ready for long is closed, so that none is used that a NAT has forgotten."""
    agent = here.join()
    old = agent.attach()
    live(here, agent, seconds=OLDEST / 2)
    young = agent.attach()
    live(here, agent, seconds=OLDEST / 2 + HEARTBEAT)
    assert len(agent.link.pool) == 1
    assert old.recv(1) == b""
    young.setblocking(False)
    with pytest.raises(BlockingIOError):
        young.recv(1)


def test_the_youngest_channel_is_taken(here: Gateway) -> None:
    """Of those that are ready the last one made is used: the likeliest to be alive."""
    agent = here.join()
    agent.attach()
    agent.attach()
    youngest = agent.link.pool.new[-1]
    taken = agent.link.take()
    assert taken is youngest
    taken.close()


def test_a_channel_that_closes_is_not_ready(here: Gateway) -> None:
    """A channel that its agent closes, or talks on before it was asked to, is dropped."""
    agent = here.join()
    agent.attach().close()
    agent.attach().send(b"?")
    here.at.until(lambda: not agent.link.pool)


def test_numbers_are_good_once(here: Gateway) -> None:
    """An Attach is admitted once, with this link's proof, in any order of those that are not long past."""
    link = here.join().link
    assert link.admits(attach_of(link, 2))
    assert link.admits(attach_of(link, 1))
    assert not link.admits(attach_of(link, 1))
    assert not link.admits(attach_of(link, 3, secret="cd" * 32))
    assert link.admits(attach_of(link, 3))


def test_no_number_of_the_past_is_good_again(here: Gateway) -> None:
    """However many channels there were, none of their numbers is admitted again, and few are kept."""
    link = here.join().link
    for number in range(1, 10 * MOST_READY):
        assert link.admits(attach_of(link, number)), number
    assert not any(link.admits(attach_of(link, number)) for number in range(10 * MOST_READY))
    assert len(link._numbers) <= 4 * MOST_READY


def test_an_end_closes_what_is_ready_and_nothing_else(here: Gateway) -> None:
    """A link that ends closes its unused channels, admits none any more, and is reported once."""
    agent = here.join()
    unused, used = agent.attach(), agent.attach()
    taker = here.taker()
    here.crew.request(taker)
    here.crew.withdraw(taker)  # it has its answer
    agent.link.end("lost")
    agent.link.end("again")
    here.at.turn()
    assert unused.recv(1) == b""
    used.setblocking(False)
    with pytest.raises(BlockingIOError):
        used.recv(1)
    assert [why for _, why, _ in here.ended] == ["lost"]
    assert not agent.link.admits(attach_of(agent.link, 99))


def test_those_that_came_back_are_closed_before_those_that_are_wanted(here: Gateway) -> None:
    """What a time without demand leaves over are channels that the agent does not make up for."""
    agent = here.join()
    kept = [agent.attach() for _ in range(FIRST_READY)]
    spare = [agent.attach(is_new=False) for _ in range(3)]
    live(here, agent, seconds=3 * CALM)
    assert len(agent.link.pool) == FIRST_READY
    for channel in (*kept, *spare):
        channel.setblocking(False)
    assert [channel.recv(1) for channel in spare] == [b""] * 3
    for channel in kept:
        with pytest.raises(BlockingIOError):
            channel.recv(1)


def test_those_that_came_back_leave_room_for_those_that_are_wanted(here: Gateway) -> None:
    """However many have come back, an agent that makes what it was told to is not refused."""
    agent = here.join()
    for _ in range(MOST_READY):
        agent.attach(is_new=False)
    assert not agent.link.pool.is_full
    for _ in range(FIRST_READY + MOST_SPARE):
        agent.attach()
    assert agent.link.pool.is_full


def test_those_that_are_wanted_stay_when_others_have_closed(here: Gateway) -> None:
    """Channels that something on the way has closed are not counted as too many of those that are there."""
    agent = here.join()
    gone = [agent.attach(is_new=False) for _ in range(6)]
    live(here, agent, seconds=CALM + HEARTBEAT)
    assert len(agent.link.pool) == 6
    for channel in gone:
        channel.close()
    for _ in range(FIRST_READY):
        agent.attach()
    live(here, agent, seconds=CALM)
    assert len(agent.link.pool) == FIRST_READY


@pytest.fixture
def sealed(here: Gateway) -> Iterator[tuple[TlsSocket, TlsSocket]]:
    """Give a used data channel with TLS, which is in the epoll set: the gateway's end, the agent's."""
    agents, ours = secure(*socket.socketpair())
    here.at.reactor.watch(ours.fileno(), IN, Watcher())
    yield ours, agents
    agents.close()


def test_a_channel_is_ready_again_once_its_agent_says_so(
    here: Gateway, sealed: tuple[TlsSocket, TlsSocket]
) -> None:
    """A channel that the link has taken back may be used after the agent's word, and is not before."""
    ours, agents = sealed
    link = here.join().link
    assert link.takes_back(ours)
    here.at.turn()
    assert not link.pool
    agents.send(END)
    here.at.until(lambda: link.pool)


def test_a_channel_on_which_more_was_said_is_not_ready_again(
    here: Gateway, sealed: tuple[TlsSocket, TlsSocket]
) -> None:
    """What stands behind the agent's word in one record would be taken for its answer to the next Open."""
    ours, agents = sealed
    link = here.join().link
    assert link.takes_back(ours)
    agents.send(END + framed(Pong(1)))
    here.at.until(lambda: ours.fileno() < 0)
    assert not link.pool


def test_a_channel_on_which_more_was_said_than_failed_does_not_come_back(
    here: Gateway, sealed: tuple[TlsSocket, TlsSocket]
) -> None:
    """So it is where it stands behind the agent's Failed: epoll does not tell of it."""
    ours, agents = sealed
    agents.send(framed(Pong(1)) + framed(Pong(2)))
    here.at.turn()
    assert ours.recv(len(framed(Pong(1)))) == framed(Pong(1))
    assert not here.join().link.keeps(ours)
    here.at.reactor.forget(ours.fileno(), ours.close)
