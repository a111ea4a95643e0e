"""The page docs/ruleset.md, made from the model: `python -m appliance.ruleset.reference` prints it."""

import re
import sys
from collections.abc import Iterator
from typing import Final

from appliance.ruleset.keys import HEADERS, Key, Table, keys_of, literal
from appliance.ruleset.model import DefaultsTable, GatewayTable, RuleTable
from appliance.ruleset.tunnel_tables import AgentTable, TunnelTable

_INTRO: Final = """\
# The ruleset

One TOML file says what the gateway forwards. `portway check FILE` reports everything that is wrong with one,
`portway schema` prints its JSON Schema for editors. This page is made from the program:
`python -m appliance.ruleset.reference`.

```toml
[gateway]
workers = "auto"

[defaults]
idle_timeout = "10m"

[[rule]]
name = "intranet-web"
listen = ":8080"
to = "10.0.0.5:80"
```

A key that is not listed here is an error. A file has at least one `[[rule]]`, and `[tunnel]` if it
has an `[[agent]]`.
"""

_NOTATIONS: Final = """
## Addresses

| written | means |
|---|---|
| `192.0.2.1:80`, `[2001:db8::1]:80` | one port of one address |
| `:80` | to listen: the port on every address of both families, `0.0.0.0:80` and `[::]:80` |
| `:0`, `127.0.0.1:0` | to listen: a port that the kernel picks |
| `10.0.0.5:16384-16483` | a range of ports, both ends included |
| `db.internal:5432` | as target: a host name; one outside ASCII is written in its `xn--` form |
| `[fe80::1%eth0]:80` | a link-local address, with its interface |
| `unix:/run/app.sock` | a unix socket: an absolute path of at most 107 bytes |

A range in `to` is as long as each of the ranges in `listen`; every port goes to the one at the same offset.
No two rules of one protocol listen on the same port of the same address. An address of its own beside
`0.0.0.0` or `[::]` on the same port is allowed: the kernel prefers it. A unix socket is for TCP rules only.

## What an agent may reach

| written | means |
|---|---|
| `192.168.1.0/24:22`, `[2001:db8::]/64:22` | a port of a whole network; no bits are set beyond its prefix |
| `192.168.1.10:22`, `[2001:db8::5]:22` | a port of one address |
| `db.internal:5432` | a port of a host name, in rules that name it just so; wherever it leads |
| `10.0.0.0/8:8000-8099`, `10.0.0.0/8:*` | a range of ports, both ends included; all ports |
| `0.0.0.0/0:443`, `[::]/0:443` | a port of every address of one family, the agent's own host included |
| `unix:/run/app.sock` | a unix socket on the agent's host |

Every target of a rule with `via` has to be in `allow_to` of its agent, each port of a range in one or another
of its parts. A host name that is not in the list itself is right where a network of the list has its ports:
`portway check` cannot know where it leads, so the agent looks when it dials, and refuses an address that is
not in the list.

`proxy_protocol` is for TCP sessions. A rule that carries UDP only has none, whatever `[defaults]` says; of a
`"tcp+udp"` rule it holds for the sessions.

## Durations

Whole numbers with `d`, `h`, `m`, `s` or `ms`, the largest first: `1d`, `1h30m`, `5s`, `250ms`. More than
nothing, and at most `365d`.

## Sizes

A whole number with `B`, with `kB`, `MB`, `GB` (powers of 1000) or with `KiB`, `MiB`, `GiB` (powers of 1024):
`4MiB`, `512kB`, `4096B`. More than nothing, and at most `1024GiB`.
"""


def page() -> str:
    """Write the whole page, Markdown."""
    parts = [_INTRO]
    for table in (GatewayTable, DefaultsTable, RuleTable, TunnelTable, AgentTable):
        parts.append(f"\n## `{HEADERS[table]}`\n\n{table.__doc__}\n\n")
        parts.append("| key | takes | default | |\n|---|---|---|---|\n")
        parts.extend(f"{row}\n" for row in _rows(table))
    return "".join((*parts, _NOTATIONS))


def _rows(table: Table) -> Iterator[str]:
    for key in keys_of(table).values():
        cells = (f"`{key.name}`", key.wants, _default(key), f"{key.description} {_examples(key)}")
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(key: Key) -> str:
    if key.is_required:
        return "required"
    if key.default is not None:
        return f"`{literal(key.default)}`"
    return re.sub(r"\[[a-z]+\](?= )", r"`\g<0>`", key.otherwise or "")


def _examples(key: Key) -> str:
    return ", ".join(f"`{key.name} = {literal(example)}`" for example in key.examples)


if __name__ == "__main__":
    sys.stdout.write(page())
