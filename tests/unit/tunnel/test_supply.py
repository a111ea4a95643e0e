"""A supply: as many data channels as are wanted, whatever happens to them, and none left at its end."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from appliance.net.reactor import IN
from appliance.net.sealed import END
from appliance.net.sockets import Endpoint, Socket
from appliance.tunnel.backoff import LONGEST
from appliance.tunnel.dialout import Caller
from appliance.tunnel.link import proof_of
from appliance.tunnel.messages import Messages
from appliance.tunnel.supply import FEW_AT_ONCE, LATER, MOST_AT_ONCE, Supply
from appliance.wire.messages import FIRST, VERSION, Attach, Limit, Open, Welcome, framed
from tests.unit.net.loop import Loop, Watcher, loop, open_fds

if TYPE_CHECKING:
    from appliance.tunnel.uplink import Uplink

SECRET = "ab" * 32
WHERE = Endpoint(0, "", "")
ORDER = Open("0" * 26, "rule", "tcp", "192.0.2.9:1", "192.0.2.1:1", "192.0.2.2:1", 5.0, 60.0)


def welcome(ready: int) -> Welcome:
    return Welcome(VERSION, "0" * 16, SECRET, 1, 2, 2.0, "tls", ready, None, "")


@dataclass(eq=False)
class Try:
    """A try to make a channel; the test decides how it goes."""

    uplink: "Gateway"
    caller: Caller
    is_abandoned: bool = False

    def go(self) -> None:
        self.uplink.tries.append(self)
        if self.uplink.is_quick:
            self.succeed()

    def succeed(self) -> None:
        self.uplink.tries.remove(self)
        ours, theirs = socket.socketpair()
        self.uplink.peers.append(theirs)
        self.uplink.reactor.watch(ours.fileno(), IN, Watcher())
        self.caller.reached(ours, WHERE)

    def fail(self) -> None:
        self.uplink.tries.remove(self)
        self.caller.unreached("no")

    def abandon(self) -> None:
        self.is_abandoned = True
        self.uplink.tries.remove(self)


@dataclass(eq=False)
class Gateway:
    """The supply's uplink, and the gateway behind it."""

    at: Loop
    tries: list[Try] = field(default_factory=list)
    peers: list[socket.socket] = field(default_factory=list)
    carried: list[Socket] = field(default_factory=list)
    is_quick: bool = False
    is_held: bool = False
    """Whether a session lives on, and its channel with it."""

    def __post_init__(self) -> None:
        self.reactor = self.at.reactor

    def dialout(self, caller: Caller, worker: int, prelude: bytes | None) -> Try:
        assert (worker, prelude) == (1, None)
        return Try(self, caller)

    def carry(self, order: Open, connection: Socket, _: Welcome, returns: Supply) -> None:
        assert order == ORDER
        self.carried.append(connection)
        self.given_by = returns
        if not self.is_held:
            self.close(connection)

    def close(self, connection: Socket) -> None:
        self.reactor.forget(connection.fileno(), connection.close)

    def use(self, *peers: int) -> list[Socket]:
        """Have sessions on the channels of these numbers; give their agent's ends."""
        self.is_held = True
        count = len(self.carried) + len(peers)
        for peer in peers:
            self.peers[peer].send(framed(ORDER))
        self.at.until(lambda: len(self.carried) == count)
        return self.carried[-len(peers) :]

    def supply(self, ready: int) -> Supply:
        made = Supply(cast("Uplink", self), welcome(ready))
        made.fill()
        return made

    def succeed(self) -> None:
        for each in tuple(self.tries):
            each.succeed()

    def pass_time(self, seconds: float) -> None:
        self.at.clock.now += seconds
        self.at.turn()


@pytest.fixture
def there() -> Iterator[Gateway]:
    before = open_fds()
    with loop() as at:
        made = Gateway(at)
        yield made
        for peer in made.peers:
            peer.close()
    assert open_fds() == before


def test_so_many_are_made(there: Gateway) -> None:
    """As many are made as the gateway wants, each said to be the link's, by a number of its own."""
    supply = there.supply(3)
    there.succeed()
    assert not there.tries
    attaches = [Messages(there.reactor, peer, Limit.STRANGER).take(FIRST) for peer in there.peers]
    assert attaches == [
        Attach(VERSION, "0" * 16, number, proof_of(SECRET, "0" * 16, number)) for number in (1, 2, 3)
    ]
    supply.want(5)
    there.succeed()
    assert len(there.peers) == 5
    supply.want(2)
    assert len(there.peers) == 5
    assert not there.tries
    supply.close()


def test_no_more_are_made_than_wanted_however_quickly(there: Gateway) -> None:
    """Channels that are there as soon as they are begun are counted, too."""
    there.is_quick = True
    supply = there.supply(6)
    assert len(there.peers) == 6
    supply.close()


def test_they_are_made_some_at_a_time(there: Gateway) -> None:
    """A great number is not begun at once: a gateway's handshakes take its time."""
    supply = there.supply(3 * MOST_AT_ONCE)
    assert len(there.tries) == MOST_AT_ONCE
    there.succeed()
    assert len(there.tries) == MOST_AT_ONCE
    supply.close()


def test_one_that_is_used_is_made_up_for_later(there: Gateway) -> None:
    """While more than a quarter is there, a used one is made up for later: not during its first bytes."""
    supply = there.supply(4)
    there.succeed()
    there.peers[0].send(framed(ORDER))
    there.at.until(lambda: there.carried)
    assert not there.tries
    there.pass_time(LATER + 0.1)
    assert len(there.tries) == 1
    supply.close()


def test_all_but_a_quarter_used_are_made_up_for_at_once(there: Gateway) -> None:
    """When a quarter is left the next ones are made at once, as many as are missing."""
    supply = there.supply(40)
    there.succeed()
    for peer in there.peers[:30]:
        assert not there.tries
        peer.send(framed(ORDER))
    there.at.until(lambda: len(there.carried) == 30)
    assert len(there.tries) == 30
    supply.close()


def test_those_that_are_made_later_are_few_at_a_time(there: Gateway) -> None:
    """Nobody waits for them, and who has a session is not to wait for their handshakes."""
    supply = there.supply(40)
    there.succeed()
    there.use(*range(20))
    there.pass_time(LATER + 0.1)
    for _ in range(20 // FEW_AT_ONCE):
        assert len(there.tries) == FEW_AT_ONCE
        there.succeed()
    assert not there.tries
    for channel in there.carried:
        there.close(channel)
    supply.close()


def test_where_none_is_left_they_are_made_at_once_later_too(there: Gateway) -> None:
    """After a pause, for whoever came meanwhile."""
    supply = there.supply(40)
    there.tries[0].fail()
    for each in tuple(there.tries):
        each.fail()
    there.pass_time(2.0)
    assert len(there.tries) == 40
    supply.close()


def test_one_that_cannot_be_made_is_tried_after_a_pause(there: Gateway) -> None:
    """A failure is followed by a pause for all of them, however often more are wanted meanwhile."""
    supply = there.supply(2)
    there.tries[0].fail()
    supply.want(4)
    assert len(there.tries) == 1
    there.pass_time(0.05)
    assert len(there.tries) == 1
    there.pass_time(LONGEST)
    assert len(there.tries) == 4
    supply.close()


def test_a_used_one_does_not_shorten_the_pause(there: Gateway) -> None:
    """A failure right after a channel was used has its own pause, not the short one of LATER."""
    supply = there.supply(4)
    there.succeed()
    there.peers[0].send(framed(ORDER))
    there.at.until(lambda: there.carried)
    there.peers[1].close()
    there.at.turn()
    there.pass_time(LATER + 0.02)
    assert not there.tries
    there.pass_time(LONGEST)
    assert len(there.tries) == 2
    supply.close()


def test_one_that_is_closed_is_made_up_for(there: Gateway) -> None:
    """A ready channel that the gateway closes, or that says nonsense, is dropped and replaced."""
    supply = there.supply(2)
    there.succeed()
    there.peers[0].close()
    there.peers[1].send(b"\0\1?")
    there.at.turn()
    there.pass_time(LONGEST)
    assert len(there.tries) == 2
    supply.close()


def test_one_whose_handler_raises_is_made_up_for(there: Gateway) -> None:
    """A bug costs its channel; it is closed, and not counted as ready for ever."""
    supply = there.supply(1)
    there.succeed()
    there.peers[0].send(b"\0")  # has it learn, for which this uplink has no home
    there.at.until(lambda: there.at.faults)
    assert isinstance(there.at.faults.pop(), AttributeError)
    there.pass_time(LONGEST)
    assert len(there.tries) == 1
    supply.close()
    there.at.turn()


def test_one_whose_attach_finds_no_room_is_not_made(there: Gateway) -> None:
    """A channel that breaks before its Attach is out counts as one that could not be made."""
    supply = there.supply(1)
    the_try = there.tries.pop()
    ours, theirs = socket.socketpair()
    there.reactor.watch(ours.fileno(), IN, Watcher())
    theirs.close()
    the_try.caller.reached(ours, WHERE)
    assert not there.tries
    there.pass_time(LONGEST)
    assert len(there.tries) == 1
    supply.close()


def test_leaving_keeps_what_is_ready(there: Gateway) -> None:
    """After the gateway's Bye nothing is made; what is ready may be used yet."""
    supply = there.supply(2)
    there.tries[0].succeed()
    supply.leave()
    assert not there.tries
    supply.want(9)
    there.peers[0].send(framed(ORDER))
    there.at.until(lambda: there.carried)
    there.pass_time(LONGEST)
    assert not there.tries
    supply.close()


def test_closing_leaves_nothing(there: Gateway) -> None:
    """Its end closes what is ready, gives up what is being made, and no time brings more."""
    supply = there.supply(3)
    there.tries[0].succeed()
    there.tries[0].fail()
    supply.close()
    there.at.turn()
    assert not there.tries
    assert there.peers[0].recv(1 << 12)
    assert there.peers[0].recv(1) == b""
    there.pass_time(LONGEST)
    assert not there.tries


def returned(there: Gateway, supply: Supply) -> socket.socket:
    """Have a channel come back from its session; give the gateway's end."""
    ours, theirs = socket.socketpair()
    there.peers.append(theirs)
    there.reactor.watch(ours.fileno(), IN, Watcher())
    assert supply.takes_back(ours)
    assert theirs.recv(10) == END
    return theirs


def test_one_that_comes_back_is_kept_beside_those_that_are_wanted(there: Gateway) -> None:
    """It is no reason to make fewer: its session may go on at the gateway for as long as its client likes."""
    supply = there.supply(2)
    there.succeed()
    for _ in range(3):
        returned(there, supply)
    for peer in there.peers[:2]:
        peer.send(framed(ORDER))
    there.at.until(lambda: len(there.carried) == 2)
    assert len(there.tries) == 2
    supply.close()


def test_one_that_came_back_is_not_made_up_for(there: Gateway) -> None:
    """Whether it is used again or closed, no other is made, and no pause begins."""
    supply = there.supply(2)
    there.succeed()
    used, closed = returned(there, supply), returned(there, supply)
    used.send(framed(ORDER))
    closed.close()
    there.at.until(lambda: there.carried)
    there.pass_time(LATER + 0.1)
    assert not there.tries
    supply.want(3)
    assert len(there.tries) == 1
    supply.close()


def test_one_that_came_back_and_cannot_be_watched_is_not_kept(there: Gateway) -> None:
    """Where the kernel watches no more fds the channel is left to the session, whose end goes on."""
    supply = there.supply(0)
    ours, theirs = socket.socketpair()
    there.peers.append(theirs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(there.reactor), "watch", unwatchable)
        assert not supply.keeps(ours)
    ours.close()
    supply.close()


def unwatchable(*_: object) -> None:
    raise OSError(errno.ENOSPC, "fs.epoll.max_user_watches")


def test_its_end_closes_those_that_came_back(there: Gateway) -> None:
    """They are not used any more, either."""
    supply = there.supply(0)
    peer = returned(there, supply)
    supply.close()
    there.at.turn()
    assert peer.recv(1) == b""


def drained(peer: socket.socket) -> bytes:
    """Give what the gateway has of a channel, and has not read yet."""
    peer.setblocking(False)
    return peer.recv(1 << 16)


def test_one_comes_back_and_is_used_again(there: Gateway) -> None:
    """The gateway is told once a session is over, and may open the next one; its place is taken once."""
    supply = there.supply(4)
    there.succeed()
    drained(there.peers[0])
    (channel,) = there.use(0)
    there.pass_time(LATER + 0.1)
    there.succeed()
    assert supply.takes_back(channel)
    assert drained(there.peers[0]) == END
    for _ in range(3):
        (channel,) = there.use(0)
        assert there.given_by is supply
        assert supply.takes_back(channel)
        assert drained(there.peers[0]) == END
        there.pass_time(LATER + 0.1)
        assert not there.tries
    supply.close()


def test_one_on_which_nothing_was_opened_is_used_again(there: Gateway) -> None:
    """The gateway, which was told why, is told nothing more; the channel is watched as before."""
    supply = there.supply(4)
    there.succeed()
    drained(there.peers[0])
    for _ in range(3):
        (channel,) = there.use(0)
        there.reactor.unwatch(channel.fileno())
        assert supply.keeps(channel)
        with pytest.raises(BlockingIOError):
            drained(there.peers[0])
    supply.close()


def test_those_that_come_back_are_beside_those_that_are_wanted(there: Gateway) -> None:
    """However few are wanted, the agent closes none: when one is too much is the gateway's to say."""
    supply = there.supply(2)
    there.succeed()
    channels = there.use(0, 1)
    there.succeed()
    assert len(there.peers) == 4
    assert all(supply.takes_back(channel) for channel in channels)
    supply.want(1)
    there.at.turn()
    for peer in there.peers:
        drained(peer)
        with pytest.raises(BlockingIOError):
            drained(peer)
    for peer in there.peers[:3]:
        peer.close()
    there.at.turn()
    there.pass_time(LONGEST)
    assert not there.tries
    supply.close()


def test_no_more_than_so_many_come_back(there: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside those that are wanted; a gateway that does not use them again leaves the rest to be closed."""
    supply = there.supply(3)
    there.succeed()
    channels = [*there.use(0), *there.use(1), *there.use(2)]
    monkeypatch.setattr("appliance.tunnel.supply.MOST_READY", 1)
    assert supply.takes_back(channels[0])
    drained(there.peers[1])
    assert not supply.takes_back(channels[1])
    with pytest.raises(BlockingIOError):
        drained(there.peers[1])
    there.reactor.unwatch(channels[2].fileno())
    assert not supply.keeps(channels[2])
    for channel in channels[1:]:
        there.close(channel)
    supply.close()


@pytest.mark.parametrize("end", [Supply.leave, Supply.close])
def test_none_comes_back_in_the_end(there: Gateway, end: Callable[[Supply], None]) -> None:
    """After the gateway's Bye, and once the control channel is lost, a channel is left to be closed."""
    supply = there.supply(2)
    there.succeed()
    channels = there.use(0, 1)
    end(supply)
    assert not supply.takes_back(channels[0])
    assert not supply.keeps(channels[1])
    for channel in channels:
        there.close(channel)
    supply.close()


@pytest.mark.parametrize("how", ["full", "closed"])
def test_one_that_cannot_tell_does_not_come_back(there: Gateway, how: str) -> None:
    """Where there is no room to tell the gateway, or no gateway, the channel is left to be closed."""
    supply = there.supply(1)
    there.succeed()
    (channel,) = there.use(0)
    there.succeed()
    if how == "full":
        with suppress(BlockingIOError):
            while channel.send(bytes(1 << 16), socket.MSG_DONTWAIT):
                pass
    else:
        there.peers[0].close()
    assert not supply.takes_back(channel)
    there.close(channel)
    supply.close()
