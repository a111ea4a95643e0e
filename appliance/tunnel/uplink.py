"""An uplink: an agent's control channel to one worker of a gateway, dialled again whenever it ends.

PAUSE --> DIALLING --> HELLO --Welcome--> UP --Bye--> (a new one is dialled; this one serves what it has)
  ^           |          |                |
  +-----------+----------+----------------+
"""

from typing import TYPE_CHECKING, Final

from appliance import __version__
from appliance.net.reactor import IN, OUT, Reactor
from appliance.net.sockets import Endpoint, Socket, has_address
from appliance.outcome import Refusal
from appliance.tunnel.credentials import why
from appliance.tunnel.dialout import Caller, Dialout
from appliance.tunnel.messages import ClosedError, Messages
from appliance.tunnel.supply import Supply
from appliance.wire.messages import (
    FROM_GATEWAY,
    VERSION,
    Bye,
    Hello,
    Limit,
    MessageError,
    Open,
    Ping,
    Pong,
    Refused,
    Renew,
    Renewed,
    Want,
    Welcome,
)
from appliance.wire.server_name import worker_name

if TYPE_CHECKING:
    from appliance.tunnel.backoff import Backoff
    from appliance.tunnel.home import Home

WELCOME_TIME: Final = 5.0
"""Seconds that a gateway has to answer Hello."""

SETTLED: Final = 1.0
"""Seconds after which a control channel was in use: who says goodbye earlier may do so for ever."""

NO_RETRY_PAUSE: Final = 30.0
"""Seconds before the next try where the gateway has said that it will be no different soon (revoked)."""


LASTING: Final = (Refusal.EXPIRED.value, Refusal.REVOKED.value, Refusal.UNKNOWN_CA.value)
"""How reasons begin (`credentials.why`) that are no different soon, either."""

TOLD_AGAIN: Final = 60.0
"""Seconds after which a reason that is still the same is reported again."""


class Uplink:
    """One of an agent worker's control channels to a gateway."""

    def __init__(self, home: "Home", server_name: str, backoff: "Backoff") -> None:
        self.home = home
        self.reactor: Reactor = home.agent.reactor
        self._server_name = server_name
        self._backoff = backoff
        self._dialout: Dialout | None = None
        self._slot: int | None = None
        self._endpoint: Endpoint | None = None
        self._is_over = False
        self._told = ""
        self._told_at = 0.0
        """Why there is none, as it was reported last, and when: not at each try, which is one a second."""
        self.channel: Channel | None = None
        """The one that is in use, or says Hello."""

    def start(self) -> None:
        """Dial."""
        if self._is_over:
            return
        self._dialout = self.home.dialout(self, self._server_name, at=None, prelude=None)
        self._dialout.go()

    def start_after(self, pause: float) -> None:
        """Dial in so many seconds; without a pause at once."""
        if pause:
            self._slot = self.reactor.arm(self.reactor.now + pause, self)
        else:
            self.start()

    def dialout(self, caller: Caller, worker: int, prelude: bytes | None) -> Dialout:
        """Make the try of a data channel: to where the control channel leads."""
        at = None if self.home.target.proxy is not None else self._endpoint
        return self.home.dialout(caller, worker_name(worker), at=at, prelude=prelude)

    @property
    def peer(self) -> str:
        """The gateway's address, or the proxy's."""
        return "" if self._endpoint is None else self._endpoint.text

    # -- dialling -------------------------------------------------------------------------------------

    def reached(self, connection: Socket, endpoint: Endpoint) -> None:
        """The gateway is there: say Hello."""
        self._dialout = None
        self._endpoint = endpoint
        self.channel = channel = Channel(self, connection)
        self.reactor.hand_over(connection.fileno(), channel)
        channel.start()

    def unreached(self, why: str) -> None:
        """It is not."""
        self._dialout = None
        self.down(why)

    def down(self, why: str, *, in_order: bool = False, pause: float | None = None) -> None:
        """Report that there is no control channel, and try again later."""
        self.channel = None
        if self._is_over:
            return
        if pause is None:
            pause = NO_RETRY_PAUSE if why.startswith(LASTING) else self._backoff.next()
        self.home.refresh_name()
        if why != self._told or self.reactor.now - self._told_at >= TOLD_AGAIN:
            self._told, self._told_at = why, self.reactor.now
            self.home.report_down(why, pause, in_order=in_order)
        self._slot = self.reactor.arm(self.reactor.now + pause, self)

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  as the timers call it
        """Try again."""
        self._slot = None
        self.start()

    def on_fault(self) -> None:
        """A fault has been reported; the next try may go well."""

    # -- as its channel calls it ----------------------------------------------------------------------

    def up(self, channel: "Channel", welcome: Welcome) -> None:
        """The gateway has welcomed us."""
        self._backoff.reset()
        self._told = ""
        self.home.up(self, channel, welcome)

    def leaves(self, channel: "Channel", reason: str) -> None:
        """The gateway sends us elsewhere: dial anew, at once; where it has just let us in, after a pause.

        So, too, where another one has taken this one's place: most likely another uplink of this very worker,
        which is there while the gateway's number of workers changes.
        """
        if self.channel is not channel:
            return
        self.home.keep(channel)
        why = f"the gateway says goodbye: {reason}"
        if reason == "replaced" or self.reactor.now - channel.since < SETTLED:
            self.down(why, in_order=True)
            return
        self.channel = None
        self.home.report_down(why, 0.0, in_order=True)
        self.start()

    def lost(self, channel: "Channel", why: str, *, in_order: bool, pause: float | None) -> None:
        """A control channel has ended."""
        self.home.leaving.discard(channel)
        if self.channel is channel:
            self.down(why, in_order=in_order, pause=pause)

    def carry(self, order: Open, connection: Socket, welcome: Welcome, returns: Supply) -> None:
        """Carry a session or flow that was opened on a data channel."""
        self.home.carry(order, connection, welcome, returns)

    def close(self) -> None:
        """End it for good: sessions go on."""
        self._is_over = True
        if self._slot is not None:
            self.reactor.timers.cancel(self._slot, self)
        if self._dialout is not None:
            self._dialout.abandon()
        if self.channel is not None:
            self.channel.leave()

    def stop(self) -> None:
        """End it for good, and its control channel at once."""
        channel = self.channel
        self.close()
        if channel is not None:
            channel.end("the gateway has fewer workers", in_order=True)


class Channel:
    """A control channel; the handler of its fd."""

    def __init__(self, uplink: Uplink, connection: Socket) -> None:
        self._uplink = uplink
        self._reactor = uplink.reactor
        self._messages = Messages(uplink.reactor, connection, Limit.GATEWAY)
        self.since = self._answered = uplink.reactor.now
        """When the gateway answered last. That it can be heard shows one direction, its answers show both."""
        self._silence = WELCOME_TIME
        self._pause = WELCOME_TIME
        self._ping = 0
        self._slot: int | None = None
        self.supply: Supply | None = None
        self.is_over = False

    def start(self) -> None:
        """Say Hello."""
        agent = self._uplink.home.agent
        self._slot = self._reactor.arm(self._reactor.now + WELCOME_TIME, self)
        self.say(
            Hello(
                version=VERSION,
                instance=agent.instance,
                generation=agent.next_generation(),
                worker=agent.worker,
                workers=agent.workers,
                software=__version__,
            )
        )

    def say(self, message: Hello | Ping | Pong | Bye | Renew) -> None:
        """Send a message; a connection that is broken ends it."""
        try:
            self._messages.say(message)
        except OSError as error:
            self.end(error.strerror or str(error))

    def on_event(self, events: int) -> None:
        """Take what the gateway says."""
        try:
            if events & OUT:
                self._messages.on_room()
            if events & ~OUT:
                for message in self._messages.some(FROM_GATEWAY, self):
                    self._take(message)
        except ClosedError:
            self.end("the gateway closed")
        except MessageError as wrong:
            self.end(f"protocol: {wrong}")
        except OSError as error:
            self.end(why(error))

    def _take(self, message: object) -> None:
        match message:
            case Welcome() if self.supply is None:
                self._welcome(message)
            case Refused(message=why, retry=retry) if self.supply is None:
                self.end(why, pause=None if retry else NO_RETRY_PAUSE)
            case Ping(number=number):
                self.say(Pong(number))
            case Pong():
                self._answered = self._reactor.now
            case Want(ready=ready) if self.supply is not None:
                self.supply.want(ready)
            case Renewed():
                self._uplink.home.renewed(message)
            case Bye(reason=reason) if self.supply is not None:
                self.supply.leave()
                self._uplink.leaves(self, reason)
            case _:
                raise MessageError(f"an unexpected {type(message).__name__}")

    def _welcome(self, welcome: Welcome) -> None:
        self.supply = Supply(self._uplink, welcome)
        self._pause, self._silence = welcome.heartbeat, 2 * welcome.heartbeat
        self._answered = self._reactor.now
        self._rearm(self._reactor.now)
        self._uplink.home.learn(self._messages.connection)
        self._uplink.up(self, welcome)
        self.supply.fill()

    def _rearm(self, now: float) -> None:
        if self._slot is not None:
            self._reactor.timers.cancel(self._slot, self)
        self._slot = self._reactor.arm(min(now + self._pause, self._answered + self._silence), self)

    def on_deadline(self, now: float) -> None:
        """Send the next Ping, or give up on a gateway that answers none."""
        self._slot = None
        if self.is_over:
            return
        if self._is_silent(now):
            self.on_event(IN)  # where this worker is behind with its events, the answer may be there
        if self._is_silent(now):
            self.end("no heartbeat" if self.supply is not None else "no answer")
        if self._has_ended():
            return
        if not has_address(self._messages.connection):
            self.end("this host has lost the address that it had")
            return
        self._ping += 1
        self.say(Ping(self._ping))
        if not self.is_over:
            self._rearm(now)

    def _is_silent(self, now: float) -> bool:
        return now >= self._answered + self._silence

    def _has_ended(self) -> bool:
        return self.is_over

    def leave(self) -> None:
        """End it, in order: this agent stops."""
        self.say(Bye("drain"))
        if self.supply is not None:
            self.supply.close()

    def end(self, why: str, *, in_order: bool = False, pause: float | None = None) -> None:
        """Close it, and the data channels that are not used."""
        if self.is_over:
            return
        self.is_over = True
        if self._slot is not None:
            self._reactor.timers.cancel(self._slot, self)
        if self.supply is not None:
            self.supply.close()
        connection = self._messages.connection
        self._reactor.forget(connection.fileno(), connection.close)
        self._uplink.lost(self, why, in_order=in_order, pause=pause)

    def on_fault(self) -> None:
        """End: a handler of it raised."""
        self.end("internal")
