"""An uplink: it is up while the gateway answers, and dialled again whenever it is not."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from appliance.net.reactor import IN
from appliance.net.sockets import Endpoint
from appliance.tunnel.backoff import FIRST, Backoff
from appliance.tunnel.dialout import Caller
from appliance.tunnel.messages import Messages
from appliance.tunnel.uplink import NO_RETRY_PAUSE, SETTLED, WELCOME_TIME, Channel, Uplink
from appliance.wire.messages import (
    FROM_AGENT,
    VERSION,
    Bye,
    Hello,
    Limit,
    Ping,
    Pong,
    Refused,
    Want,
    Welcome,
    framed,
)
from tests.unit.net.loop import Loop, Watcher, loop, open_fds, tcp_pair

if TYPE_CHECKING:
    from appliance.net.reactor import Reactor
    from appliance.tunnel.home import Home

HEARTBEAT = 2.0
WELCOME = Welcome(VERSION, "0" * 16, "ab" * 32, 0, 1, HEARTBEAT, "tls", 0, None, "")


@dataclass(eq=False)
class Try:
    """A try of one kind: of the control channel, or of a data channel."""

    home: "Gateway"
    caller: Caller

    def go(self) -> None:
        self.home.tries.append(self)

    def abandon(self) -> None:
        if self in self.home.tries:
            self.home.tries.remove(self)


@dataclass
class Target:
    proxy: None = None


@dataclass(eq=False)
class Gateway:
    """The uplink's home and its agent, and the gateway that it dials."""

    at: Loop
    tries: list[Try] = field(default_factory=list)
    downs: list[tuple[str, float, bool]] = field(default_factory=list)
    ups: int = 0
    leaving: set[Channel] = field(default_factory=set)
    instance: str = "0" * 32
    worker: int = 0
    workers: int = 1
    generation: int = 0
    target: Target = field(default_factory=Target)
    peers: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reactor: Reactor = self.at.reactor
        self.agent = self
        self.uplink = Uplink(cast("Home", self), "a0of1.gateway.portway", Backoff(lambda: 1.0))
        self.uplink.start()

    def next_generation(self) -> int:
        self.generation += 1
        return self.generation

    def dialout(self, caller: Caller, server_name: str, at: Endpoint | None, prelude: bytes | None) -> Try:
        del server_name, at, prelude
        return Try(self, caller)

    def up(self, uplink: Uplink, channel: Channel, welcome: Welcome) -> None:
        assert (uplink, channel, welcome) == (self.uplink, self.uplink.channel, WELCOME)
        self.ups += 1

    def report_down(self, why: str, pause: float, *, in_order: bool) -> None:
        self.downs.append((why, pause, in_order))

    def learn(self, connection: object) -> None:
        pass

    def keep(self, channel: Channel) -> None:
        self.leaving.add(channel)

    def refresh_name(self) -> None:
        pass

    # -- as the test calls it -------------------------------------------------------------------------

    def answer(self) -> socket.socket:
        """Let the try of the control channel succeed; give the gateway's end."""
        ours, theirs = tcp_pair()  # it is asked whether this host has its address
        for end in (ours, theirs):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as dialling out does
        self.peers.append(theirs)
        self.reactor.watch(ours.fileno(), IN, Watcher())
        self.tries.pop(0).caller.reached(ours, Endpoint(0, "", "192.0.2.1:7443"))
        return theirs

    def say(self, *messages: msgspec.Struct) -> None:
        """Say them on the last control channel; the agent has heard them."""
        self.peers[-1].sendall(b"".join(map(framed, messages)))
        self.at.turn()

    def heard(self) -> list[object]:
        """Give all that the agent has said on the last control channel, since the last look."""
        messages = Messages(self.reactor, self.peers[-1], Limit.AGENT)
        found = []
        while (message := messages.take(FROM_AGENT)) is not None:
            found.append(message)
        return found

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.at.clock.now += 0.25
            self.at.turn()

    def is_closed(self) -> bool:
        """Whether the agent has closed its end of the last control channel."""
        self.at.turn()
        self.peers[-1].settimeout(0.0)
        try:
            while self.peers[-1].recv(1 << 12):
                pass
        except BlockingIOError:
            return False
        except ConnectionResetError:  # with something of ours unread
            pass
        return True


@pytest.fixture
def there() -> Iterator[Gateway]:
    before = open_fds()
    with loop() as at:
        made = Gateway(at)
        yield made
        for peer in made.peers:
            peer.close()
        made.uplink.close()
        at.turn()
        if made.uplink.channel is not None:
            made.uplink.channel.end("the test is over")
        for channel in tuple(made.leaving):
            channel.end("the test is over")
    assert open_fds() == before


def test_hello_is_first(there: Gateway) -> None:
    """Once the gateway is there the agent says who it is, and is up with the gateway's Welcome."""
    there.answer()
    (hello,) = there.heard()
    assert isinstance(hello, Hello)
    assert (hello.instance, hello.generation, hello.worker, hello.workers) == ("0" * 32, 1, 0, 1)
    assert there.ups == 0
    there.say(WELCOME)
    assert there.ups == 1
    assert there.uplink.peer == "192.0.2.1:7443"


def test_a_gateway_that_cannot_be_reached_is_tried_again(there: Gateway) -> None:
    """Each failed try is reported, and followed by the next after a pause that grows."""
    for why, pause in (("connection refused", FIRST), ("no answer", 2 * FIRST)):
        there.tries.pop().caller.unreached(why)
        assert there.downs[-1] == (why, pause, False)
        assert not there.tries
        there.pass_time(1.0)
        assert len(there.tries) == 1


def test_a_gateway_that_says_nothing_is_given_up(there: Gateway) -> None:
    """Without an answer to Hello within WELCOME_TIME it is dialled anew, and the connection is closed."""
    there.answer()
    there.pass_time(WELCOME_TIME + 0.5)
    assert there.downs == [("no answer", FIRST, False)]
    assert there.is_closed()


@pytest.mark.parametrize(("retry", "pause"), [(True, FIRST), (False, NO_RETRY_PAUSE)])
def test_refused(there: Gateway, *, retry: bool, pause: float) -> None:
    """A refusal is reported in the gateway's words; one that will not change soon is tried after long."""
    there.answer()
    there.say(Refused("revoked", "the certificate is revoked", retry))
    assert there.downs == [("the certificate is revoked", pause, False)]
    there.pass_time(pause - 0.25)
    assert not there.tries or retry
    there.pass_time(0.5)
    assert len(there.tries) == 1


def test_success_makes_the_next_pause_short(there: Gateway) -> None:
    """After a Welcome the pauses begin anew."""
    for _ in range(4):
        there.tries.pop().caller.unreached("no answer")
        there.pass_time(1.25)
    there.answer()
    there.say(WELCOME)
    there.peers[-1].close()
    there.at.until(lambda: len(there.downs) == 2)
    assert there.downs[-1][1] == FIRST


def test_a_gateway_that_answers_stays(there: Gateway) -> None:
    """While each Ping is answered it is up; its own Pings are answered, too."""
    there.answer()
    there.heard()
    there.say(WELCOME, Ping(77))
    assert there.heard() == [Pong(77)]
    pings = 0
    for _ in range(40):
        there.pass_time(0.5)
        for message in there.heard():
            assert isinstance(message, Ping)
            pings += 1
            there.say(Pong(message.number))
    assert not there.downs
    assert 9 <= pings <= 11


def test_silence_ends_within_two_heartbeats(there: Gateway) -> None:
    """A gateway that answers no Ping is given up after two heartbeats, though it may still talk."""
    there.answer()
    there.say(WELCOME)
    there.pass_time(2 * HEARTBEAT - 0.25)
    there.say(Ping(1))
    assert not there.downs
    there.pass_time(0.5)
    assert there.downs == [("no heartbeat", FIRST, False)]
    assert there.is_closed()


def test_what_is_no_message_of_the_place_ends_it(there: Gateway) -> None:
    """A Want before the Welcome, or a second Welcome, is against the protocol."""
    there.answer()
    there.say(Want(1))
    there.pass_time(1.0)
    there.answer()
    there.say(WELCOME, WELCOME)
    assert [why for why, _, _ in there.downs] == [
        "protocol: an unexpected Want",
        "protocol: an unexpected Welcome",
    ]


def test_goodbye_is_followed_by_a_new_one_at_once(there: Gateway) -> None:
    """After the gateway's Bye the next channel is dialled at once; the old one lives until it closes."""
    there.answer()
    there.say(WELCOME)
    there.pass_time(SETTLED)
    there.say(Bye("drain"))
    assert there.downs == [("the gateway says goodbye: drain", 0.0, True)]
    assert len(there.tries) == 1
    assert len(there.leaving) == 1
    assert not there.is_closed()
    there.peers[-1].close()
    there.at.until(lambda: not there.leaving)
    assert len(there.downs) == 1
    assert len(there.tries) == 1


def test_goodbye_to_a_newcomer_is_followed_by_a_pause(there: Gateway) -> None:
    """A gateway that sends away whom it has just let in is not dialled in a circle."""
    there.answer()
    there.say(WELCOME, Bye("drain"))
    assert there.downs == [("the gateway says goodbye: drain", FIRST, True)]
    assert not there.tries
    there.pass_time(0.5)
    assert len(there.tries) == 1


def test_closing_says_goodbye_and_dials_no_more(there: Gateway) -> None:
    """An agent that stops says Bye, and neither a failure nor time brings another try."""
    there.answer()
    there.say(WELCOME)
    there.heard()
    there.uplink.close()
    assert there.heard() == [Bye("drain")]
    there.peers[-1].close()
    there.at.until(lambda: there.uplink.channel is None)
    there.pass_time(3.0)
    assert not there.tries
    assert not there.downs


def test_closing_gives_up_a_try(there: Gateway) -> None:
    """A try that is under way ends with it."""
    there.uplink.close()
    assert not there.tries
