"""The page docs/machine.md, its tables from the model: `python -m appliance.machine.reference` prints it."""

import sys
from collections.abc import Iterator
from typing import Final

from msgspec import UNSET, structs

from appliance.machine.network_model import InterfaceTable, NetworkFile
from appliance.ruleset.keys import Table, keys_of, literal

_HEAD: Final = """\
# The machine

The VM image is a kernel and Portway: PID 1 is `portway machine`, and there is no shell, no package manager,
no ssh. This page says what it reads, shows and does. It is made from the program: `python -m
appliance.machine.reference`.

## The two files

`rules.toml` is the ruleset ([ruleset.md](ruleset.md)), `network.toml` the network. Each is taken from the
first of:

1. a NoCloud seed disk: labelled `cidata`, FAT or ISO 9660. There the files may be named `rules.toml` and
   `network.toml`, or `user-data` (the text of `rules.toml`) and `network-config` (the text of
   `network.toml`). cloud-config and netplan, which are YAML, are refused with a sentence; `meta-data` is
   not looked at;
2. the partition labelled `PORTWAY`, the first one of the disk that was booted;
3. `/etc/portway` in the image itself.

The files are read when the machine starts. `PORTWAY` is FAT, so any computer can edit it; with the machine
off:

    mcopy -o -i portway.raw@@1M rules.toml ::

A ruleset that is wrong, or whose addresses cannot be bound, is told on the console with place and hint, and
the machine runs the last rules that ran well (for 10 s; kept as `rules.last-good.toml`), or else rules that
forward nothing. A `network.toml` that is wrong is told, too, and every interface asks DHCP.

## network.toml

Without it, every interface asks DHCP, and takes the IPv6 addresses and name servers that routers advertise.

```toml
hostname = "gateway-1"

[[interface]]
name = "eth0"
ipv4 = "192.0.2.5/24"
gateway4 = "192.0.2.1"
ipv6 = "2001:db8::5/64"
dns = ["192.0.2.53"]
ntp = ["ntp.example.net"]

[[interface]]                  # all others
ipv4 = "dhcp"
```
"""

_TAIL: Final = """
DHCP is version 4 only; of IPv6 addresses there are advertised ones (SLAAC) and static ones, not DHCPv6. An
address that DHCP grants is not probed by ARP first.

## The clock

The kernel sets it by the hypervisor's at start. Time servers are those of `network.toml`, or where it names
none those of DHCP (option 42); without any the clock is left alone: there is no built-in server, since the
NTP pool asks makers of appliances not to have its names built in. A clock that is off by more than half a
second is stepped, by less it is slewed. Forwarding waits for none of it.

## What runs, and as whom

| process | user | may |
|---|---|---|
| PID 1 | root | everything: mounts, drivers, addresses, power |
| gateway and its workers | 65532 | nothing (no capability, no_new_privs); ports below 1024 are free to all |
| clock | 65532 | set the clock (CAP_SYS_TIME) |

The root is the initramfs, in RAM, read-only once the machine is set up; `/run` is a tmpfs of 16 MiB. Rules
may listen on addresses that the machine has not yet, or never gets (`ip_nonlocal_bind`).
`/run/portway/admin.sock` is the admin socket.

A machine with less than 224 MiB of memory compresses what lies there unused (zram): 112 MB will do by BIOS.

## State

A disk or partition labelled `PORTWAY-STATE` (ext4; or FAT, whose label is cut to `PORTWAY-STA`) is mounted at
`/var/lib/portway` for the gateway to write.

## The console

The log ([log.md](log.md)) as JSON lines, and a screen for people at start and when addresses or health
change. A console that is slower than the log loses lines, which are counted (`log_dropped`), and never
holds up forwarding.

## Off, reboot, crash

The power button (ACPI), and a shutdown from Hyper-V or Xen, drain the gateway and turn the machine off;
Ctrl-Alt-Del drains and reboots. A second time cuts what is left. A gateway that ends unasked, a failure of
PID 1, or a new slot that is not healthy within 3 minutes restarts the machine: after 1, 2,
4 ... 300 s, anew after ten minutes of life. The reason is the last line of `crash.log` on `PORTWAY` (one
JSON object a line, 64 KiB in all: time, uptime, reason, the last 20 lines of the console), and on the next
start's screen.
"""


def page() -> str:
    """Write the whole page, Markdown."""
    parts = [_HEAD]
    for table, header in ((NetworkFile, "At the top"), (InterfaceTable, "`[[interface]]`")):
        parts.append(f"\n### {header}\n\n| key | takes | default | |\n|---|---|---|---|\n")
        parts.extend(f"{row}\n" for row in _rows(table))
        if table is InterfaceTable:
            parts.append(f"\n{table.__doc__}\n")
    return "".join((*parts, _TAIL))


def _rows(table: Table) -> Iterator[str]:
    defaults = {field.name: field.default for field in structs.fields(table)}
    for key in keys_of(table).values():
        if key.name == "interface":
            continue
        default = defaults[key.name]
        shown = "" if default is UNSET or default == () else f"`{literal(default)}`"
        examples = ", ".join(f"`{key.name} = {literal(example)}`" for example in key.examples)
        yield f"| `{key.name}` | {key.wants} | {shown} | {key.description} {examples} |"


if __name__ == "__main__":
    sys.stdout.write(page())
