"""Data channels with TLS on their way back: what they carried is over here, and they are not ready yet."""

from typing import Protocol

from appliance.net.reactor import IN, Reactor
from appliance.net.sealed import END, LENGTH
from appliance.net.sockets import DONTWAIT, Sealed, Socket


def has_more(connection: Socket) -> bool:
    """Say whether something of the peer's is there that epoll would never tell of; now none is due."""
    return isinstance(connection, Sealed) and connection.pending()


class Returning(Protocol):
    """A channel that nobody uses, and that is not ready yet."""

    def give_up(self) -> None:
        """Close it."""


class Returns(Protocol):
    """Where channels come from, and may go back to: a control channel's end."""

    def awaits(self, returning: Returning) -> bool:
        """Say whether it is wanted back; it is given up when that changes."""

    def came_back(self, returning: Returning, connection: Socket) -> None:
        """Take a channel that was awaited and is ready, which is in the epoll set."""

    def went(self, returning: Returning) -> None:
        """Know that it was awaited, and does not come."""


class Delivering:
    """A session's, at the gateway: its agent may have to deliver something yet."""

    __slots__ = ("_connection", "_is_over", "_reactor", "_returns")

    def __init__(self, reactor: Reactor, connection: Socket, returns: Returns) -> None:
        self._reactor = reactor
        self._connection = connection
        self._returns = returns
        self._is_over = False

    def start(self) -> bool:
        """Wait for the agent's word; False where nobody does."""
        if not self._returns.awaits(self):
            return False
        self._reactor.hand_over(self._connection.fileno(), self)
        if has_more(self._connection):
            self._reactor.defer(self._look)
        return True

    def _look(self) -> None:
        """Read the agent's word that came in one record with the end before it."""
        if not self._is_over:
            self.on_event(IN)

    def on_event(self, events: int) -> None:  # noqa: ARG002  what there is, reading tells
        """The agent says that it is through, or gives the channel up."""
        try:
            said = self._connection.recv(LENGTH, DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said == END and not has_more(self._connection):
            self._is_over = True
            self._returns.came_back(self, self._connection)
        else:
            self._returns.went(self)
            self.give_up()

    def give_up(self) -> None:
        """Close it."""
        self._is_over = True
        self._reactor.forget(self._connection.fileno(), self._connection.close)

    def on_fault(self) -> None:
        """Give it up: its handler raised."""
        self._returns.went(self)
        self.give_up()
