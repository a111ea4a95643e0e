"""What the operator wrote, and everything that is wrong with it. Pure: bytes in, values or problems out."""

from appliance.ruleset.read import read
from appliance.ruleset.rules import Gateway, Protocol, Rule, Ruleset

__all__ = ["Gateway", "Protocol", "Rule", "Ruleset", "read"]
