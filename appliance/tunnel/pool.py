"""A link's data channels that are ready, and how many are to be.

How many are wanted follows demand. A session that finds none waits for the next one; more of them than are
wanted double the number. While half of them are never used, it falls by a quarter every CALM seconds. The
agent makes up for each new one that is used by itself, so that the gateway only tells how many it wants.

A channel with TLS comes back from its session or flow (`returning`). What came back is kept beside the number
that is wanted, used before a new one, and closed when it was not needed for CALM seconds: so sessions that
come and go, however many at once, cost no handshakes.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from appliance.net.sockets import Socket

if TYPE_CHECKING:
    from appliance.tunnel.link import Link

FIRST_READY: Final = 2
MOST_READY: Final = 256
"""Data channels kept ready for one link; so many more may have come back."""

MOST_SPARE: Final = 64
"""Channels taken beside those that are wanted: the agent may have been making them when the number fell."""

CALM: Final = 10.0
"""Seconds after which a number of ready channels that was not needed falls."""

OLDEST: Final = 600.0
"""Seconds that a ready channel is kept: a NAT on the way forgets one that is silent."""


class Ready:
    """A data channel on which nothing is open."""

    __slots__ = ("connection", "is_new", "link", "since")

    def __init__(self, link: "Link", connection: Socket, *, is_new: bool) -> None:
        self.link = link
        self.connection = connection
        self.is_new = is_new
        """Nothing was opened on it ever."""
        self.since = link.reactor.now

    def on_event(self, events: int) -> None:  # noqa: ARG002  the agent has nothing to say: any event is its end
        """The agent, or something on the way, has closed it."""
        self.link.pool.drop(self)
        self.close()

    def on_fault(self) -> None:
        """Close it: a handler raised."""
        self.close()

    def close(self) -> None:
        """Close it."""
        self.link.reactor.forget(self.connection.fileno(), self.connection.close)


class Pool:
    """The channels that are ready; each list has its oldest first."""

    __slots__ = ("_calm_since", "_least", "back", "new", "want")

    def __init__(self, now: float) -> None:
        self.want = FIRST_READY
        self.new: list[Ready] = []
        self.back: list[Ready] = []
        """Those that came back."""
        self._least = 0
        """Of them all, since then."""
        self._calm_since = now

    def __len__(self) -> int:
        """Give how many there are."""
        return len(self.new) + len(self.back)

    def __iter__(self) -> Iterator[Ready]:
        """Give them all."""
        yield from (*self.new, *self.back)

    @property
    def is_full(self) -> bool:
        """Whether there are more than an agent that does as it is told could have made."""
        return len(self.new) >= self.want + MOST_SPARE

    def put(self, channel: Ready) -> None:
        """Have one more."""
        (self.new if channel.is_new else self.back).append(channel)

    def drop(self, channel: Ready) -> None:
        """Have one less."""
        (self.new if channel.is_new else self.back).remove(channel)

    def take(self) -> Ready | None:
        """Give the youngest one, the likeliest to be alive, of those that came back; else of the new ones."""
        if not len(self):
            return None
        channel = (self.back or self.new).pop()
        self._least = min(self._least, len(self))
        return channel

    def wants_more(self, waiting: int, now: float) -> bool:
        """Somebody had to wait: say whether the number rises, as it does for more than are being made."""
        self._calm_since = now
        self._least = 0
        want = min(MOST_READY, max(2 * self.want, self.want + waiting))
        if self.want >= waiting + len(self) or want == self.want:
            return False
        self.want = want
        return True

    def look(self, now: float) -> bool:
        """Close what is too old or was not needed; say whether the number falls."""
        for channels in (self.new, self.back):
            while channels and now - channels[0].since > OLDEST:
                channels.pop(0).close()
        if now - self._calm_since < CALM:
            return False
        self._calm_since = now
        falls = self.want > FIRST_READY and self._least > self.want // 2
        if falls:
            self.want = max(FIRST_READY, self.want * 3 // 4)
        self._close_spare(min(self._least, len(self)) - self.want)  # some may have closed by themselves
        self._least = len(self)
        return falls

    def _close_spare(self, count: int) -> None:
        """Close so many, first of those that came back: the others the agent makes up for."""
        for _ in range(count):
            (self.back or self.new).pop(0).close()

    def close(self) -> None:
        """Close them all."""
        for channel in self:
            channel.close()
        self.new.clear()
        self.back.clear()
