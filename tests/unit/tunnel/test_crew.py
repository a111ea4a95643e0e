"""A crew: whose link a session gets, who waits, and what happens to those whose link is lost."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from appliance.tunnel.crew import GRACE
from appliance.tunnel.pool import MOST_READY
from appliance.wire.messages import Bye, Ping, Pong
from tests.unit.tunnel.links import HEARTBEAT, Agent, Gateway, Taker, gateway


@pytest.fixture
def here() -> Iterator[Gateway]:
    with gateway() as made:
        yield made


@dataclass(eq=False)
class Flow:
    """Something that a link carries."""

    def end(self, cause: object) -> None:
        raise AssertionError(cause)


def ready(here: Gateway, channels: int = 1) -> Agent:
    """Have an agent join that has channels ready."""
    agent = here.join()
    for _ in range(channels):
        agent.attach()
    return agent


def requested(here: Gateway) -> Taker:
    taker = here.taker()
    assert here.crew.request(taker)
    return taker


def test_the_least_loaded_link_is_used(here: Gateway) -> None:
    """A session goes to the link that carries the fewest sessions and flows."""
    busy, idle = ready(here), ready(here)
    busy.link.flows.add(Flow())
    assert requested(here).got[0].link is idle.link


def test_links_alike_take_turns(here: Gateway) -> None:
    """Links that carry as many are used one after the other."""
    agents = [ready(here, 2) for _ in range(3)]
    used = []
    for _ in range(6):
        here.pass_time(0.25)
        used.append(requested(here).got[0].link)
    assert used[:3] == used[3:]
    assert set(used) == {agent.link for agent in agents}


def test_who_was_heard_of_lately_comes_first(here: Gateway) -> None:
    """A link that may be dead is passed over for one that answers, though that one carries more."""
    silent, alive = ready(here), ready(here)
    alive.link.flows.add(Flow())
    here.pass_time(HEARTBEAT * 1.5 - 0.25)
    for ping in alive.heard(Ping):
        alive.say(Pong(int(str(ping["number"]))))
    here.pass_time(0.25)
    assert not silent.link.is_fresh
    assert requested(here).got[0].link is alive.link


def test_who_leaves_comes_last(here: Gateway) -> None:
    """An agent that has said Bye gets a session only where no other one has a channel."""
    leaving, staying = ready(here), ready(here)
    staying.link.flows.add(Flow())
    leaving.say(Bye("drain"))
    assert requested(here).got[0].link is staying.link
    assert requested(here).got[0].link is leaving.link


def test_who_waits_longest_is_next(here: Gateway) -> None:
    """Channels go to those who wait, in the order in which they came; who withdrew gets none."""
    agent = here.join()
    first, gone, second = requested(here), requested(here), requested(here)
    here.crew.withdraw(gone)
    agent.attach()
    assert [len(taker.got) for taker in (first, gone, second)] == [1, 0, 0]
    agent.attach()
    assert [len(taker.got) for taker in (first, gone, second)] == [1, 0, 1]
    agent.attach()
    assert len(agent.link.pool) == 1
    assert not here.crew.waiting


def test_a_lost_link_sends_its_sessions_to_another(here: Gateway) -> None:
    """Those who have opened on a link that is lost, and have no answer, try again, each once."""
    lost = ready(here, 3)
    answered, *takers = [requested(here) for _ in range(3)]
    here.crew.withdraw(answered)
    other = ready(here, 2)
    lost.link.end("lost")
    assert [taker.tries for taker in takers] == [1, 1]
    assert all(taker.got[1].link is other.link for taker in takers)
    assert answered.tries == 0


def test_a_lost_link_with_no_other_has_its_sessions_wait(here: Gateway) -> None:
    """Where there is no other link, they wait for the agent to come back, and are served then."""
    lost = ready(here)
    taker = requested(here)
    lost.link.end("lost")
    assert list(here.crew.waiting) == [taker]
    back = ready(here)
    assert taker.got[1].link is back.link


def test_who_waits_gets_what_is_ready_elsewhere(here: Gateway) -> None:
    """One that waits for a link that is lost then takes a channel that another link has ready."""
    doubtful = ready(here, 2)
    doubtful.link.pool.want = MOST_READY  # it will not be asked for more
    here.pass_time(HEARTBEAT * 1.5)
    lost = here.join()
    taker = requested(here)
    assert not taker.got, "the one that answers was not waited for"
    lost.link.end("lost")
    assert taker.got[0].link is doubtful.link


def test_an_agent_that_is_gone_is_waited_for_a_while(here: Gateway) -> None:
    """Sessions wait for an agent for GRACE seconds after its last link; later they are refused at once."""
    agent = here.join()
    here.pass_time(HEARTBEAT)
    agent.link.end("lost")
    here.pass_time(GRACE - 0.5)
    requested(here)
    here.pass_time(0.5)
    assert not here.crew.request(here.taker())


def test_an_agent_that_never_came_is_waited_for_at_the_start(here: Gateway) -> None:
    """After a gateway's start its agents have GRACE seconds to come before their sessions are refused."""
    assert here.crew.request(here.taker())
    here.pass_time(GRACE)
    assert not here.crew.request(here.taker())


def test_a_newcomer_knows_its_rival(here: Gateway) -> None:
    """A second control channel of one agent's worker is told from other agents'."""
    agent = here.join()
    here.join()
    assert here.crew.rival_of(agent.link.hello) is agent.link
