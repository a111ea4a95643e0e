"""Sessions through an agent: another way to dial."""

from appliance.net.dial import Caller
from appliance.net.reactor import Reactor
from appliance.net.session import Session
from appliance.net.sockets import Endpoint, Sealed, Socket, peer_text
from appliance.outcome import Cause
from appliance.policy.balance import RoundRobin
from appliance.ruleset import Rule
from appliance.tunnel.crew import Crew
from appliance.tunnel.link import Link
from appliance.tunnel.opening import Opening
from appliance.wire.messages import Open


class ViaAgent:
    """A rule's endpoints, reached through the agents of one name: a `net.dial.Dialer`."""

    __slots__ = ("_balance", "crew", "reactor", "rule")

    def __init__(self, reactor: Reactor, crew: Crew, rule: Rule, offset: int) -> None:
        """`offset` is which port of the rule's range is dialled."""
        self.reactor = reactor
        self.crew = crew
        self.rule = rule
        self._balance = RoundRobin([str(to.at(offset)) for to in rule.to])

    def dial(self, caller: Caller) -> "Carriage":
        """Make a dialling that begins with the endpoint whose turn it is."""
        assert isinstance(caller, Session)
        return Carriage(self, caller, self._balance.order())


class Carriage(Opening):
    """One session's way through an agent: a `net.dial.Dialling`."""

    __slots__ = ("_session", "_via")

    def __init__(self, via: ViaAgent, session: Session, targets: tuple[str, ...]) -> None:
        super().__init__(via.reactor, via.crew, via.rule.connect_timeout, targets)
        self._via = via
        self._session = session

    def order(self, to: str) -> Open:
        """Give what the agent is told of the session."""
        rule, session = self._via.rule, self._session
        is_introduced = rule.proxy_protocol is not None or rule.is_transparent
        return Open(
            session=session.known_id(),
            rule=rule.name,
            protocol="tcp",
            to=to,
            client=peer_text(session.peer),
            local=peer_text(session.client.getsockname()) if is_introduced else session.route.listener,
            connect_timeout=rule.connect_timeout,
            idle_timeout=rule.idle_timeout,
            proxy_protocol=rule.proxy_protocol.value if rule.proxy_protocol else "",
            source="client" if rule.is_transparent else "",
        )

    def opened(self, link: Link, connection: Socket, endpoint: Endpoint) -> None:
        """Give the session its connection."""
        session = self._session
        session.carrier = link
        link.sessions.add(session)
        session.dialled(connection, endpoint, watched=True)
        if isinstance(connection, Sealed) and connection.pending() and session.cause is None:
            self._via.reactor.nudge(connection.fileno())

    def failed(self, cause: Cause) -> None:
        """End the session."""
        self._session.dial_failed(cause)

    def on_fault(self) -> None:
        """End the session: its dialling raised."""
        self._session.on_fault()
