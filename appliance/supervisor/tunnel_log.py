"""What happens to tunnels, as records of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from appliance.observe.lines import utc_times
from appliance.observe.log import wall_clock
from appliance.observe.names import Event
from appliance.observe.record import milliseconds
from appliance.supervisor.orders import Links
from appliance.supervisor.status import AgentLink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.supervisor.journal import Journal
    from appliance.tunnel.gateway import Gateway
    from appliance.tunnel.home import Home
    from appliance.tunnel.link import Link
    from appliance.tunnel.refusals import Refused
    from appliance.wire.messages import Welcome

MOST_LINKS: Final = 100
"""Links told in one message: 20 kB."""


class TunnelLog:
    """The records of one worker's tunnels, of either end."""

    __slots__ = ("_journal", "_worker")

    def __init__(self, journal: Journal, worker: int) -> None:
        self._journal = journal
        self._worker = worker

    # -- gateway --------------------------------------------------------------------------------------

    def agent_connected(self, link: Link) -> None:
        """Write that an agent is here."""
        self._journal.log.info(
            Event.AGENT_CONNECTED,
            agent=link.crew.name,
            peer=link.peer,
            version=link.hello.software,
            worker=self._worker,
        )
        self._journal.wrote()

    def agent_lost(self, link: Link, why: str, *, in_order: bool) -> None:
        """Write that an agent's control channel has ended."""
        log = self._journal.log
        (log.info if in_order else log.warning)(
            Event.AGENT_LOST,
            agent=link.crew.name,
            peer=link.peer,
            error=why,
            duration_ms=milliseconds(link.reactor.now - link.since),
            worker=self._worker,
        )
        self._journal.wrote()

    def tunnel_refused(self, refused: Refused) -> None:
        """Write that strangers were refused."""
        self._journal.log.warning(
            Event.TUNNEL_REFUSED,
            peer=refused.peer,
            refusal=refused.refusal,
            worker=self._worker,
            **({"agent": refused.agent} if refused.agent else {}),
            **({"error": refused.error} if refused.error else {}),
            **({"count": refused.count} if refused.count > 1 else {}),
        )
        self._journal.wrote()

    # -- agent ----------------------------------------------------------------------------------------

    def tunnel_up(self, home: Home, peer: str, welcome: Welcome) -> None:
        """Write that there is a control channel to a gateway."""
        self._journal.log.info(
            Event.TUNNEL_UP,
            agent=home.identity.name,
            gateway=str(home.target.gateway),
            peer=peer,
            version=welcome.software,
            worker=self._worker,
        )
        self._journal.wrote()

    def tunnel_down(self, home: Home, why: str, pause: float, *, in_order: bool) -> None:
        """Write that there is none."""
        log = self._journal.log
        (log.info if in_order else log.warning)(
            Event.TUNNEL_DOWN,
            agent=home.identity.name,
            gateway=str(home.target.gateway),
            error=why,
            worker=self._worker,
            retry_ms=milliseconds(pause),
        )
        self._journal.wrote()

    # -- both -----------------------------------------------------------------------------------------

    def certificate_renewed(self, agent: str, serial: str) -> None:
        """Write that an agent has a new certificate."""
        self._journal.log.info(
            Event.CERTIFICATE_RENEWED,
            agent=agent,
            worker=self._worker,
            **({"serial": serial} if serial else {}),
        )
        self._journal.wrote()

    def trouble(self, message: str, error: str) -> None:
        """Write what an operator should know."""
        self._journal.log.warning(Event.WARNING, message=message, error=error, worker=self._worker)
        self._journal.wrote()


def told_links(gateway: Gateway | None, number: int, worker: int) -> Iterator[Links]:
    """Tell the master of the links that a worker has, in messages of MOST_LINKS."""
    links = [] if gateway is None else list(gateway.live())
    times, wall = utc_times(), wall_clock()
    told = [
        AgentLink(
            agent=link.crew.name,
            serial=link.serial,
            peer=link.peer,
            since=times(wall - link.reactor.now + link.since),
            worker=worker,
            ready=len(link.pool),
            sessions=link.load,
            rtt_ms=None if link.rtt is None else milliseconds(link.rtt),
            version=link.hello.software,
        )
        for link in links
    ]
    for begin in range(0, max(len(told), 1), MOST_LINKS):
        part = tuple(told[begin : begin + MOST_LINKS])
        yield Links(number, part, begin + MOST_LINKS < len(told))
