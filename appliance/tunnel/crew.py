"""A crew: all the links that agents of one name have to this worker, and the sessions that wait for them.

Several agents may carry one name, each of them with several workers: their sessions are spread over the
links, to the least loaded one of those that have been heard of lately.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from appliance.ruleset import Encryption
from appliance.tunnel.link import Link
from appliance.tunnel.pool import MOST_READY, Ready
from appliance.wire.messages import Hello

if TYPE_CHECKING:
    from appliance.net.reactor import Reactor

GRACE: Final = 10.0
"""Seconds in which an agent that was here, or may not have had the time to come, is waited for; later on its
sessions are refused at once."""


MOST_RENEWALS: Final = 64
RENEWAL_EVERY: Final = 60.0
"""Certificates that are made for one name in a row, and seconds until there is one more: each is a file that
stays."""


class Taker(Protocol):
    """Who wants a data channel."""

    def take(self, channel: Ready) -> None:
        """Use it."""

    def try_again(self) -> None:
        """The link that was used is gone: take another one."""


class Crew:
    """The links of one name."""

    __slots__ = (
        "_here_until",
        "_reactor",
        "_renewals_until",
        "allow_to",
        "encryption",
        "links",
        "name",
        "opening",
        "waiting",
    )

    def __init__(
        self, reactor: "Reactor", name: str, allow_to: Sequence[str] | None, encryption: Encryption
    ) -> None:
        self._reactor = reactor
        self.name = name
        self.allow_to = None if allow_to is None else list(allow_to)
        self.encryption = encryption
        self.links: list[Link] = []
        self.waiting: deque[Taker] = deque()
        self.opening: dict[Taker, Link] = {}
        """Those who have opened a session on a channel and have no answer yet."""
        self._renewals_until = reactor.now
        self._here_until = reactor.now
        """When it was here last; at the start, as if it had been just now."""

    # -- links ----------------------------------------------------------------------------------------

    def rival_of(self, hello: Hello) -> Link | None:
        """Give the link that a newcomer is to replace, or that is newer than it."""
        for link in self.links:
            if link.hello.instance == hello.instance and link.hello.worker == hello.worker:
                return link
        return None

    def join(self, link: Link) -> None:
        """Put a link to use. It has not been welcomed yet: the Welcome says how many channels are wanted."""
        self.links.append(link)
        self._here_until = math.inf
        link.pool.want = min(MOST_READY, max(link.pool.want, len(self.waiting)))

    def lost(self, link: Link) -> None:
        """A link has ended: who had opened a session on it, and has no answer, tries again."""
        self.links.remove(link)
        if not self.links:
            self._here_until = self._reactor.now
        stranded = [taker for taker, used in self.opening.items() if used is link]
        for taker in stranded:
            del self.opening[taker]
        for taker in stranded:
            taker.try_again()
        while self.waiting and (other := self._best([link for link in self.links if link.pool])) is not None:
            self._give_of(other, self.waiting.popleft())
        if self.waiting and (other := self._best(self.links)) is not None:
            other.ask_for(len(self.waiting))

    @property
    def is_expected(self) -> bool:
        """Whether it is here, or may be in a moment."""
        return self._reactor.now - self._here_until < GRACE

    def may_renew(self) -> bool:
        """Say whether one more certificate is to be made, and count it."""
        now = self._reactor.now
        begin = max(self._renewals_until, now)
        if begin + RENEWAL_EVERY > now + MOST_RENEWALS * RENEWAL_EVERY:
            return False
        self._renewals_until = begin + RENEWAL_EVERY
        return True

    # -- channels -------------------------------------------------------------------------------------

    def request(self, taker: Taker) -> bool:
        """Give a channel, now or later, by `taker.take`; False where there is nobody to wait for."""
        link = self._best([link for link in self.links if link.pool])
        if link is not None and (link.is_fresh or link is self._best(self.links)):
            self._give_of(link, taker)
            return True
        if not self.is_expected:
            return False
        self.waiting.append(taker)
        if (link := self._best(self.links)) is not None:
            link.ask_for(len(self.waiting))
        return True

    def has_use_for(self, channel: Ready) -> bool:
        """Give a channel that is ready now to who waits the longest; False when nobody does."""
        if not self.waiting:
            return False
        self._give(self.waiting.popleft(), channel)
        return True

    def _give_of(self, link: Link, taker: Taker) -> None:
        channel = link.take()
        assert channel is not None
        self._give(taker, channel)

    def _give(self, taker: Taker, channel: Ready) -> None:
        self.opening[taker] = channel.link
        taker.take(channel)

    def withdraw(self, taker: Taker) -> None:
        """Forget who waits, or has opened: it has its answer, or wants none any more."""
        if self.opening.pop(taker, None) is None and taker in self.waiting:
            self.waiting.remove(taker)

    @staticmethod
    def _best(links: Sequence[Link]) -> Link | None:
        """Give the least loaded link, those heard of lately first, those that leave last."""
        return min(
            links, key=lambda link: (link.is_leaving, not link.is_fresh, link.load, link.used), default=None
        )
