"""What this host's kernel has been told about routing, as ip(8) and nft(8) say it."""

from typing import Final

import msgspec

from appliance.host.answers import NFT_TABLE, TABLE, Entry, State
from appliance.host.commands import CommandError, attempt, find

FAMILIES: Final = (4, 6)

_ENTRIES: Final = msgspec.json.Decoder(list[dict[str, object]])
_NFT: Final = msgspec.json.Decoder(dict[str, list[dict[str, object]]])

_NO_SUCH: Final = "No such file or directory"
"""What nft says of a table that is not there."""


def state() -> State:
    """Look what there is of ours. Raises CommandError where that cannot be seen."""
    return State(
        {family: _ip(f"-{family}", "rule", "show") for family in FAMILIES},
        # A table that has no route is none: ip fails then.
        {family: _ip(f"-{family}", "route", "show", "table", f"{TABLE}") for family in FAMILIES},
        _nft(),
    )


def is_here(host: str) -> bool:
    """Say whether an address is one of this host's."""
    return any(entry.get("type") == "local" for entry in _ip("route", "get", host))


def _ip(*words: str) -> list[Entry]:
    if find("ip") is None:
        raise CommandError("ip is not installed, which the lines are for; the package is called iproute2")
    done = attempt("ip", "-json", *words)
    if done.returncode or not done.stdout.strip():
        return []
    return list(_ENTRIES.decode(done.stdout))


def _nft() -> list[Entry]:
    if find("nft") is None:
        return []
    done = attempt("nft", "--json", "list", "table", "inet", NFT_TABLE)
    if done.returncode:
        if _NO_SUCH in done.stderr:
            return []
        said = done.stderr.strip().partition("\n")[0] or f"exit status {done.returncode}"
        raise CommandError(f"nft does not say what there is: {said}")
    return list(_NFT.decode(done.stdout)["nftables"])
