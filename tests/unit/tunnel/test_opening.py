"""Opening through an agent: one outcome, whatever the agent does or fails to do, and nothing is left."""

from collections.abc import Iterator

import msgspec
import pytest

from appliance.net.sockets import Endpoint, Socket
from appliance.outcome import Cause
from appliance.tunnel.crew import GRACE
from appliance.tunnel.link import Link
from appliance.tunnel.opening import LONGEST_ENDPOINT, MOST_TRIES, SLACK, Opening
from appliance.wire.messages import Bye, Failed, Open, Opened, framed
from tests.unit.tunnel.links import Agent, Gateway, gateway

CONNECT_TIMEOUT = 3.0


@pytest.fixture
def here() -> Iterator[Gateway]:
    with gateway() as made:
        yield made


class Opener(Opening):
    """A session, in short: it keeps each outcome."""

    def __init__(self, here: Gateway, targets: tuple[str, ...] = ("192.0.2.9:1", "192.0.2.9:2")) -> None:
        super().__init__(here.at.reactor, here.crew, CONNECT_TIMEOUT, targets)
        self.outcomes: list[Endpoint | Cause] = []
        self.ended: Socket | None = None
        self.go()

    def order(self, to: str) -> Open:
        return Open("0" * 26, "rule", "tcp", to, "192.0.2.1:1", "192.0.2.2:1", CONNECT_TIMEOUT, 60.0)

    def opened(self, link: Link, connection: Socket, endpoint: Endpoint) -> None:
        assert link is self.link
        self.outcomes.append(endpoint)
        self.ended = connection
        self._reactor.forget(connection.fileno(), connection.close)

    def failed(self, cause: Cause) -> None:
        self.outcomes.append(cause)

    def on_fault(self) -> None:
        raise AssertionError


def order_on(agent: Agent, channel: int) -> str:
    """Give where an agent is told to dial on its channel of that number."""
    connection = agent.channels[channel]
    connection.settimeout(1.0)
    return str(msgspec.json.decode(connection.recv(int.from_bytes(connection.recv(2), "big")))["to"])


def answer(here: Gateway, agent: Agent, channel: int, message: msgspec.Struct) -> None:
    agent.channels[channel].sendall(framed(message))
    here.at.turn()


def test_opened(here: Gateway) -> None:
    """An agent that answers Opened has its channel taken over, with the endpoint that it names."""
    agent = here.join()
    agent.attach()
    opener = Opener(here)
    assert order_on(agent, 0) == "192.0.2.9:1"
    answer(here, agent, 0, Opened("10.0.0.1:1"))
    assert [each.text for each in opener.outcomes if isinstance(each, Endpoint)] == ["10.0.0.1:1"]
    assert not opener.waits
    assert not here.crew.opening


def test_what_an_agent_names_is_fit_for_a_log(here: Gateway) -> None:
    """An endpoint's text is printable and short, whatever the agent says."""
    agent = here.join()
    agent.attach()
    opener = Opener(here)
    answer(here, agent, 0, Opened("\x1b[2J" + "x" * (LONGEST_ENDPOINT - 4)))
    assert opener.endpoint is not None
    assert opener.endpoint.text.isprintable()
    assert len(opener.endpoint.text) <= LONGEST_ENDPOINT


def test_failed_goes_to_the_next_endpoint(here: Gateway) -> None:
    """Each endpoint that fails is followed by the next; the last one's cause is the outcome."""
    agent = here.join()
    agent.attach()
    agent.attach()
    opener = Opener(here)
    answer(here, agent, 1, Failed("dial-refused"))
    assert not opener.outcomes
    assert order_on(agent, 0) == "192.0.2.9:2"
    answer(here, agent, 0, Failed(Cause.DIAL_REFUSED.value))
    assert opener.outcomes == [Cause.DIAL_REFUSED]
    assert opener.attempts == 2


def test_a_channel_on_which_nothing_was_opened_goes_on(here: Gateway) -> None:
    """A channel with TLS takes the next endpoint after Failed, and is in the pool after the last one."""
    agent = here.join()
    agent.attach(sealed=True)
    opener = Opener(here)
    assert order_on(agent, 0) == "192.0.2.9:1"
    answer(here, agent, 0, Failed(Cause.DIAL_REFUSED.value))
    assert order_on(agent, 0) == "192.0.2.9:2"
    assert not agent.link.pool
    answer(here, agent, 0, Failed(Cause.DIAL_TIMEOUT.value))
    assert opener.outcomes == [Cause.DIAL_TIMEOUT]
    assert opener.attempts == 2
    assert len(agent.link.pool) == 1
    assert not here.crew.opening


def test_a_channel_on_which_nothing_was_opened_goes_to_who_waits(here: Gateway) -> None:
    """Others may have waited longer than the next endpoint of this session."""
    agent = here.join()
    agent.attach(sealed=True)
    opener, other = Opener(here), Opener(here, ("192.0.2.9:3",))
    answer(here, agent, 0, Failed(Cause.DIAL_REFUSED.value))
    order_on(agent, 0)
    assert order_on(agent, 0) == "192.0.2.9:3"
    answer(here, agent, 0, Failed(Cause.DIAL_REFUSED.value))
    assert order_on(agent, 0) == "192.0.2.9:2"
    assert other.outcomes == [Cause.DIAL_REFUSED]
    assert not opener.outcomes
    opener.abandon()


@pytest.mark.parametrize("why", ["plain", "leaving"])
def test_a_channel_that_the_link_does_not_keep_is_closed(here: Gateway, why: str) -> None:
    """After Failed, one without TLS, or of a link that leaves, is closed."""
    agent = here.join()
    agent.attach(sealed=why != "plain")
    Opener(here, ("192.0.2.9:1",))
    order_on(agent, 0)
    if why == "leaving":
        agent.say(Bye("drain"))
    answer(here, agent, 0, Failed(Cause.DIAL_REFUSED.value))
    assert agent.channels[0].recv(1) == b""
    assert not agent.link.pool


def test_without_an_agent_it_fails_at_once(here: Gateway) -> None:
    """Where the agent is not expected there is no waiting."""
    here.pass_time(GRACE)
    assert Opener(here).outcomes == [Cause.AGENT_OFFLINE]


def test_its_time_without_a_channel(here: Gateway) -> None:
    """When no channel came in time the agent counts as offline, whatever endpoints are left."""
    here.join()
    opener = Opener(here)
    assert opener.deadline == opener.started + CONNECT_TIMEOUT
    opener.timed_out()
    assert opener.outcomes == [Cause.AGENT_OFFLINE]
    assert not here.crew.waiting
    assert opener.attempts == 0


def test_its_time_with_a_channel(here: Gateway) -> None:
    """When an answer did not come in time its channel is closed, and the next endpoint is gone to."""
    agent = here.join()
    agent.attach()
    agent.attach()
    opener = Opener(here)
    assert opener.deadline == opener.started + CONNECT_TIMEOUT + SLACK
    opener.timed_out()
    here.at.turn()
    order_on(agent, 1)
    assert agent.channels[1].recv(1) == b""
    opener.timed_out()
    assert opener.outcomes == [Cause.DIAL_TIMEOUT]
    assert not here.crew.opening


@pytest.mark.parametrize("how", ["close", "nonsense", "link"])
def test_a_lost_channel_is_replaced(here: Gateway, how: str) -> None:
    """A channel that is lost before its answer is replaced by another one for the same endpoint."""
    agent, other = here.join(), here.join()
    agent.attach()
    opener = Opener(here)
    if how == "close":
        agent.channels[0].close()
    elif how == "nonsense":
        agent.channels[0].sendall(b"\0\1?")
    else:
        agent.link.end("lost")
    here.at.until(lambda: here.crew.waiting)
    assert not opener.outcomes
    other.attach()
    assert order_on(other, 0) == "192.0.2.9:1"
    answer(here, other, 0, Opened("10.0.0.1:1"))
    assert len(opener.outcomes) == opener.attempts == 1


def test_losses_are_bounded(here: Gateway) -> None:
    """Who loses channel after channel gets its answer after a few."""
    opener = Opener(here)
    agent = here.join()
    for _ in range(MOST_TRIES):
        assert not opener.outcomes
        agent.attach().close()
        here.at.until(lambda: not here.crew.opening)
    assert opener.outcomes == [Cause.AGENT_OFFLINE]
    assert opener.attempts == 0
    assert not here.crew.waiting


@pytest.mark.parametrize("has_channel", [False, True])
def test_abandoned(here: Gateway, *, has_channel: bool) -> None:
    """A session that ends meanwhile leaves nothing, and hears nothing more."""
    agent = here.join()
    if has_channel:
        agent.attach()
    opener = Opener(here)
    opener.abandon()
    here.at.turn()
    agent.link.end("lost")
    assert not opener.outcomes
    assert not here.crew.waiting
    assert not here.crew.opening
    assert not opener.waits
