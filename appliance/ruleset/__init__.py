"""What the operator wrote, and everything that is wrong with it. Pure: bytes in, values or problems out."""

from appliance.ruleset.read import read
from appliance.ruleset.rules import (
    Agent,
    Encryption,
    Gateway,
    Protocol,
    ProxyProtocol,
    Rule,
    Ruleset,
    Tunnel,
)

__all__ = ["Agent", "Encryption", "Gateway", "Protocol", "ProxyProtocol", "Rule", "Ruleset", "Tunnel", "read"]
