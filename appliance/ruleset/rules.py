"""The ruleset as the gateway runs it: complete, checked, with every default filled in."""

from enum import StrEnum, unique

import msgspec

from appliance.values import ListenAddress, TargetAddress


@unique
class Protocol(StrEnum):
    """What a rule forwards."""

    TCP = "tcp"


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the gateway as a whole.

    `workers` is None for one per core. `drain_timeout` is in seconds.
    """

    workers: int | None
    drain_timeout: float


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What comes in at any of `listen` goes to one of `to`.

    A range in `to` is as long as each range of `listen`: `to[n].at(offset)` is the endpoint for the port that
    is `offset` above the listen range's first. Time-outs are in seconds.
    """

    name: str
    listen: tuple[ListenAddress, ...]
    to: tuple[TargetAddress, ...]
    protocol: Protocol
    connect_timeout: float
    idle_timeout: float


class Ruleset(msgspec.Struct, frozen=True, kw_only=True):
    """A whole ruleset. Names are unique, and no two rules listen on the same port of the same address."""

    gateway: Gateway
    rules: tuple[Rule, ...]
