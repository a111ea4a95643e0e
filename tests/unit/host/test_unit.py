"""The systemd units: the gateway's, and the example for an agent."""

from pathlib import Path

from appliance.host.layout import ACCOUNT, STATE
from appliance.host.unit import UNIT_TEXT

AGENT = Path(__file__).parents[3] / "examples" / "portway-agent.service"

OF_THE_GATEWAY = {"ConfigurationDirectory", "ConfigurationDirectoryMode", "ExecReload", "ExecStartPre"}
"""What an agent has no use for; and it binds no port, so no AmbientCapabilities."""

ITS_OWN = {"CapabilityBoundingSet", "Environment", "ExecStart", "Group", "RuntimeDirectory", "StateDirectory"}
"""What has another value for an agent."""

CLOSED_FURTHER = {"RuntimeDirectoryMode", "TimeoutStopSec", "UMask", "User"}


def settings(text: str) -> set[tuple[str, str]]:
    """Give the lines of [Service]."""
    service = text.partition("[Service]\n")[2].partition("[Install]")[0]
    pairs = (line.partition("=")[::2] for line in service.splitlines() if line[:1].isalpha())
    return {(key, value) for key, value in pairs}


def test_a_gateway_may_write_where_agents_are_remembered() -> None:
    """The unit gives the gateway's user the directory that `[tunnel] state` names in the documents."""
    found = dict(settings(UNIT_TEXT))
    assert Path("/var/lib", found["StateDirectory"]) == STATE
    assert found["User"] == ACCOUNT


def test_an_agent_is_as_closed_as_a_gateway() -> None:
    """Whatever confines the gateway's service confines the agent's in the example."""
    differs = {key for key, _ in settings(UNIT_TEXT) - settings(AGENT.read_text())}
    assert differs <= OF_THE_GATEWAY | ITS_OWN | CLOSED_FURTHER | {"AmbientCapabilities"}
    assert ("CapabilityBoundingSet", "") in settings(AGENT.read_text())
