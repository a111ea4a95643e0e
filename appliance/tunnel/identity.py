"""Who an agent is: its join file, the TLS context made of it, and the renewal of its certificate.

Every worker renews by itself once a third of the certificate's life is left, unless the join file holds a
newer one by then that another worker has stored. Connections that are open stay as they are; the next ones
show the new certificate.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.observe.log import wall_clock
from appliance.problem import Problem
from appliance.tunnel.authority import key_pem, new_key, request_for
from appliance.tunnel.credentials import agent_context
from appliance.tunnel.join import Join, renewed
from appliance.tunnel.join_file import load_join, store
from appliance.values import AllowedTarget, Misread, Proxy, TargetAddress
from appliance.wire.messages import Renew, Renewed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from appliance.tunnel.agent import Agent
    from appliance.tunnel.home import Home

LOOK: Final = 60.0
"""Seconds between two looks at the certificate's life, and not more than a tenth of what is left."""


def _written(path: str | None, now: float) -> float:
    """Say when a join file was written; where that cannot be told, it was just now."""
    try:
        return now if path is None else min(now, Path(path).stat().st_mtime)
    except OSError:
        return now


class Identity:
    """One join file, in one worker."""

    def __init__(self, join: Join, path: str | None, proxy: Proxy | None) -> None:
        """`path` is where the join file is; None where it came as a line."""
        self._join = join
        self._path = path
        self._taken = _written(path, wall_clock())
        """When the certificate came: its life is from then on."""
        self._key: str | None = None
        """The private key of a renewal that was asked for."""
        self._agent: Agent | None = None
        self._homes: Sequence[Home] = ()
        self.proxy = proxy or (None if join.proxy is None else Proxy.parse(join.proxy))
        self.context: ssl.SSLContext = agent_context(join)

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._join.name

    @property
    def gateways(self) -> list[TargetAddress]:
        """The gateways it serves."""
        return [TargetAddress.parse(text) for text in self._join.gateways]

    @property
    def allow_to(self) -> list[AllowedTarget] | None:
        """What the join file lets it reach; None: it sets no bounds."""
        if self._join.allow_to is None:
            return None
        return [AllowedTarget.parse(text) for text in self._join.allow_to]

    def serve(self, agent: "Agent", homes: "Sequence[Home]") -> None:
        """Watch over the certificate in an agent's loop."""
        self._agent, self._homes = agent, homes
        self._rearm()

    def _rearm(self) -> None:
        assert self._agent is not None
        left = self._join.expires - wall_clock()
        pause = min(LOOK, max(0.5, left / 10))
        self._agent.reactor.arm(self._agent.reactor.now + pause, self)

    def on_deadline(self, now: float) -> None:  # noqa: ARG002  the certificate's time is that of the wall clock
        """Renew, when it is time."""
        self._rearm()
        wall = wall_clock()
        life = self._join.expires - self._taken
        if self._join.expires - wall > life / 3:
            return
        if self._has_stored_one():
            return
        for home in self._homes:
            if (channel := home.channel) is not None:
                key = new_key()
                self._key = key_pem(key)
                channel.say(Renew(request_for(key)))
                return

    def _has_stored_one(self) -> bool:
        """Take the certificate that another worker has stored, if there is one."""
        if self._path is None:
            return False
        try:
            found = load_join(self._path)
        except OSError:
            return False
        if isinstance(found, Problem) or found.expires <= self._join.expires or found.name != self.name:
            return False
        return self._take(found)

    def renewed(self, message: Renewed) -> None:
        """Take the gateway's answer, and store it."""
        if self._key is None or self._agent is None:
            return
        key, self._key = self._key, None
        try:
            join = renewed(self._join, message.certificate, key, message.expires)
        except Misread as wrong:
            self._agent.journal.trouble("the new certificate cannot be used", wrong.what)
            return
        if not self._take(join):
            return
        self._agent.journal.certificate_renewed(self.name, "")
        if self._path is None:
            return
        try:
            store(self._path, join.certificate, join.key, join.expires)
        except OSError as error:
            why = f"the new certificate is not stored in {self._path}, and lost at a restart"
            self._agent.journal.trouble(why, error.strerror or str(error))

    def _take(self, join: Join) -> bool:
        try:
            self.context = agent_context(join)
        except (OSError, ValueError) as error:  # ssl.SSLError: key and certificate do not match
            assert self._agent is not None
            self._agent.journal.trouble("the new certificate cannot be used", str(error))
            return False
        self._join = join
        self._taken = wall_clock()
        return True

    def on_fault(self) -> None:
        """A fault in renewing has been reported."""
